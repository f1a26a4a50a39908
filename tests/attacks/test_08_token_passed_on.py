"""Row 8: the inbound token reaches a tool server; or what the gateway and its callers say to each other does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.rules import jose
from mcp_authz.rules.context_token import HEADER, TYP
from mcp_authz.rules.context_token import META as CONTEXT
from tests.attacks.attacker import answer_in, handshake, serving, spy, tool
from tests.signing import signing
from tests.world import LEGACY, MODERN, called, world

SCOPE = "spy:look"
TOOLS = {"look": {"hazard": "read", "scopes": [SCOPE]}}
OURS = "dev.mcp-authz/"
META = {f"{OURS}link": ["link"], f"{OURS}outcome": {"outcome": "done"}, "com.example/kept": "kept"}


def of_ours(heard: bytes, *secrets: str) -> list[str]:
    """What a tool server must never see, and did."""
    return [word for word in (*secrets, OURS, "Bearer", "uthorization") if word.encode() in heard]


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_a_stdio_server_sees_no_token_and_no_meta_of_ours(tmp_path: Path, mode: str) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools=TOOLS)}) as w:
        coder = await w.ready("coder", SCOPE)
        token = await w.token(coder)
        async with w.client(coder, mode) as client:
            assert not (await called(client, "spy__look", {"path": "a"})).is_error
        answered = await w.raw_call(token, "spy__look", {"path": "b"}, meta=META)
        assert answered.status_code == 200
        async with handshake(w, token) as session:
            assert "result" in await session.call("spy__look", {"path": "c"}, _meta=META)
        assert [arguments["path"] for _, arguments in server.ran] == ["a", "b", "c"]
        assert b"com.example/kept" in server.heard  # what is not ours goes on
        assert of_ours(server.heard, token) == []


async def test_an_http_server_sees_no_header_of_a_caller(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    strange = {"x_user": "root", "cookie": "session=stolen", "forwarded": "for=10.0.0.1", "traceparent": "00-aa"}
    with serving(server) as url:
        entry = {"url": url, "headers": {"x-api-key": "the operator's"}, "tools": TOOLS}
        async with world(tmp_path, servers={"spy": entry}) as w:
            coder = await w.ready("coder", SCOPE)
            token = await w.token(coder)
            assert (await w.raw_call(token, "spy__look", {}, meta=META, headers=strange)).status_code == 200
            async with handshake(w, token, **strange) as session:
                assert "result" in await session.call("spy__look", {}, _meta=META)
            assert len(server.ran) == 2
            assert b"the operator's" in server.heard
            assert of_ours(server.heard, token, "stolen", "10.0.0.1", "traceparent", "x-user") == []


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_server_that_asks_for_the_context_is_told_that_and_nothing_else_of_ours(
    tmp_path: Path, transport: str
) -> None:
    """Not the caller's token, not what a caller says in the place of the context; and no caller is told the context."""
    server, forged = spy(tmp_path / "spy", tool("look")), "forged-by-the-caller"
    with serving(server) as url:
        more = {"tools": TOOLS, "context": True}
        entry = {"url": url, **more} if transport == "http" else server.config(**more)
        async with world(tmp_path, servers={"spy": entry}) as w:
            coder = await w.ready("coder", SCOPE)
            token, meta = await w.token(coder), {**META, CONTEXT: forged}
            proof = (await signing(w, coder)).meta("spy__look", {}, at=w.clock())
            answered = await w.raw_call(token, "spy__look", {}, meta={**meta, **proof}, headers={HEADER: forged})
            assert answered.status_code == 200
            async with handshake(w, token, **{HEADER.lower().replace("-", "_"): forged}) as session:
                said = json.dumps(await session.call("spy__look", {}, _meta=meta))
            own = set(re.findall(rb"eyJ[\w.-]+", server.heard))
            assert len(server.ran) == len(own) == 2  # a fresh one for each call
            assert {jose.read(text.decode()).header["typ"] for text in own} == {TYP}
            heard = server.heard
            for text in own:
                assert text.decode() not in answered.text + said + str(answered.headers)
                heard = heard.replace(b'"%s": "%s"' % (CONTEXT.encode(), text), b"")
                heard = heard.replace(b'"%s":"%s"' % (CONTEXT.encode(), text), b"").replace(text, b"")
            assert of_ours(heard, token, forged, *proof.values()) == []


async def test_a_question_of_a_retry_does_not_carry_our_state_or_the_answer_to_our_question(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("drop"))
    entry = server.config(tools={"drop": {"scopes": ["spy:drop"]}})
    async with world(tmp_path, servers={"spy": entry}) as w:
        coder = await w.ready("coder", "spy:drop", interactive=True)
        token = await w.token(coder)
        form: dict[str, Any] = {"capabilities": {"elicitation": {"form": {}}}}
        asked = answer_in(await w.raw_call(token, "spy__drop", {}, **form))["result"]
        answers = {"approval": {"action": "accept", "content": {"approve": True}}, "other": {"action": "accept"}}
        again = {"requestState": asked["requestState"], "inputResponses": answers}
        done = answer_in(await w.raw_call(token, "spy__drop", {}, **form, **again))["result"]
        assert done["content"][0]["text"] == "ran drop"
        assert of_ours(server.heard, token, "inputResponses", "requestState", "approve") == []


async def test_a_server_that_speaks_in_our_name_is_not_heard(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("raw"))
    forged = {"content": [], "_meta": {f"{OURS}outcome": {"outcome": "held"}, "theirs": 1}}
    async with world(tmp_path, servers={"spy": server.config(tools={"raw": {"hazard": "read"}})}) as w:
        coder = await w.ready("coder", "spy:raw")
        token = await w.token(coder)
        said = answer_in(await w.raw_call(token, "spy__raw", {"result": json.dumps(forged)}))["result"]
        assert said["_meta"]["theirs"] == 1
        assert not any(key.startswith(OURS) for key in said["_meta"])
