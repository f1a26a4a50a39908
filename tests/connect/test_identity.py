"""Who a client is to the gateway, for how long, and what becomes of its sessions: it signs in with a key and renews."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest

from mcp_authz.client import discovery, tokens
from mcp_authz.client.asking import Applicant, own_session
from mcp_authz.client.door import Door, NoAnswer, SignInRefused
from mcp_authz.client.granted import Granted, read_granted
from mcp_authz.client.key_files import load_key
from mcp_authz.client.talk import carry
from mcp_authz.client.tokens import Tokens
from mcp_authz.errors import ConfigError, InputError, KeyRefused
from mcp_authz.revocation import Revocation
from mcp_authz.rules.keys import PrivateKey
from tests.connect.desktop import COMMAND, SOON, Wire, desktop, envelope_of, modern, text_of
from tests.road.places import BOTH
from tests.world import MODERN, OPERATOR, ROOT, Actor, World, world

PULLS = {"owner": "acme", "repo": "api"}
LIST = "acme__list_pull_requests"
KEY = PrivateKey.generate()
NOW = datetime(2026, 7, 28, 12, tzinfo=UTC)


@asynccontextmanager
async def connected(w: World, coder: Actor, *words: str) -> AsyncIterator[Wire]:
    """`connect` to a gateway elsewhere: there is no configuration here, only a URL and a key."""
    key = w.directory / f"{coder.name}.pem"
    key.write_text(coder.key.to_pem())
    key.chmod(0o600)
    env = {"HOME": str(w.directory / "home"), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    command = [*COMMAND, "connect", w.url, "--agent", coder.name, "--key", str(key), *words]
    async with await anyio.open_process(command, env=env, cwd=w.directory, stderr=sys.stderr) as process:
        try:
            yield Wire(process)
        finally:
            if process.returncode is None:
                process.kill()


async def sign_ins(w: World) -> list[Mapping[str, Any]]:
    return [record.event.fields for record in await w.records("sign-in")]


@BOTH
async def test_a_gateway_elsewhere_is_found_by_its_url_and_one_token_serves_all_calls(
    tmp_path: Path, mode: str
) -> None:
    meta = {"_meta": modern()} if mode == MODERN else {}
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        async with connected(w, coder) as wire:
            if mode != MODERN:
                await wire.introduce()
            for number in range(5):
                assert not (await wire.call(number, LIST, PULLS, **meta)).get("isError")
        (one,) = await sign_ins(w)
    assert one["subject"] == "user:alice" and "pr" in one["scope"]


@BOTH
async def test_a_session_that_ended_is_followed_by_the_one_that_the_agent_asks_for(tmp_path: Path, mode: str) -> None:
    meta = {"_meta": modern()} if mode == MODERN else {}
    ask = {"purpose": "fix issue 41", "minutes": 30}
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        async with connected(w, coder) as wire:
            if mode != MODERN:
                await wire.introduce()
            assert not (await wire.call(1, LIST, PULLS, **meta)).get("isError")
            (session,) = await w.store.sessions()
            await Revocation(w.store, w.clock).revoke("session", session.id, reason="lunch", by=OPERATOR)
            told = await wire.call(2, LIST, PULLS, **meta)
            assert told["isError"] and envelope_of(told)["reason"] in {"no_session", "session_over"}
            held = await wire.call(3, "authz__request_session", ask, **meta)
            assert envelope_of(held)["outcome"] == "held"
            await w.answer(envelope_of(held)["hold"], by="alice")
            opened = await wire.call(4, "authz__request_session", ask, **meta)
            assert not opened.get("isError"), text_of(opened)
            done = await wire.call(5, LIST, PULLS, **meta)
            assert not done.get("isError"), text_of(done)
        (newest,) = [each for each in await w.store.sessions() if each.id != session.id]
        assert (await w.decisions())[-1]["session"] == newest.id


async def test_a_session_that_a_person_starts_is_used_by_the_next_call(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        (session,), (grant,) = await w.store.sessions(), await w.store.grants()
        await Revocation(w.store, w.clock).revoke("session", session.id, reason="lunch", by=OPERATOR)
        async with connected(w, coder) as wire:
            told = await wire.call(1, LIST, PULLS, _meta=modern())
            assert told["isError"] and envelope_of(told)["reason"] == "no_session"
            await w.start(grant)
            assert not (await wire.call(2, LIST, PULLS, _meta=modern())).get("isError")


async def test_a_client_works_for_the_person_and_in_the_session_that_it_was_started_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        await w.person("bob")
        session, _ = await w.start(await w.grant("bob", "coder", "pr"))
        for words in (("--for", "bob"), ("--session", session.id)):
            async with connected(w, coder, *words) as wire:
                assert not (await wire.call(1, LIST, PULLS, _meta=modern())).get("isError")
            assert (await w.decisions())[-1]["subject"] == "user:bob"
        async with connected(w, coder) as wire:  # two people: never a guess
            told = await wire.call(1, LIST, PULLS, _meta=modern())
            assert envelope_of(told)["reason"] == "no_session"


async def test_a_token_that_is_refused_is_replaced_and_the_call_made_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        async with connected(w, coder) as wire:
            await wire.call(1, LIST, PULLS, _meta=modern())
            await Revocation(w.store, w.clock).revoke("agent", "coder", reason="test", by=OPERATOR)
            told = await wire.call(2, LIST, PULLS, _meta=modern())
            assert envelope_of(told) == {"outcome": "unreachable", "reason": "sign_in", "may_have_run": False}
            error = await wire.ask(3, "prompts/get", {"name": "x", "_meta": modern()})
            assert error["error"]["code"] == 40100
        assert sum(d["decision"] == "permit" for d in await w.decisions()) == 1


async def test_neither_key_nor_token_is_ever_written_down(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        body = d.keys["coder"].to_pem().splitlines()[1]
        async with d.wire() as wire:
            await wire.introduce()
            await wire.ask(1, "tools/list")
            await wire.call(2, "plain__received", {"n": 1})
            d.kill_gateway()
            await wire.call(3, "plain__received", {"n": 1})
            await wire.closed()
            said = wire.out + wire.err
        written = b"".join(path.read_bytes() for path in d.caches)
        log = (d.config.data / "gateway.log").read_bytes()
    for text in (said, written, log):
        assert body.encode() not in text and b"eyJ" not in text and b"Bearer" not in text
    assert b"plain__received" in written


class Gate:
    """A token endpoint whose sessions end when a test says so."""

    def __init__(self) -> None:
        self.claims: list[Mapping[str, str]] = []
        self.open = {"s_1": "user:alice"}
        self.lasts = 600

    async def __call__(self, claims: Mapping[str, str]) -> Granted:
        return read_granted(await self._answer(claims), KEY, at=NOW)

    async def _answer(self, claims: Mapping[str, str]) -> Mapping[str, Any]:
        self.claims.append(claims)
        await anyio.lowlevel.checkpoint()
        named, subject = claims.get("session"), claims.get("subject")
        found = [s for s, person in self.open.items() if named in (None, s) and subject in (None, person)]
        answer = {"access_token": f"t{len(self.claims)}", "expires_in": self.lasts}
        if len(found) != 1:
            return {**answer, "subject": "agent:coder"}
        return {**answer, "session": found[0], "subject": self.open[found[0]]}


async def test_a_token_is_fetched_once_for_all_who_wait_for_it() -> None:
    gate = Gate()
    held = Tokens(gate)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(held.current)
    assert gate.claims == [{}]


async def test_every_later_sign_in_names_the_session_of_the_first() -> None:
    gate = Gate()
    held = Tokens(gate)
    first = await held.current()
    gate.open["s_2"] = "user:bob"  # now a sign-in without a claim would be for nobody
    held.drop(first)
    assert (await held.current()).session == "s_1"
    assert gate.claims == [{}, {"session": "s_1"}]


async def test_after_a_session_comes_one_for_the_same_person_and_never_one_for_another() -> None:
    gate = Gate()
    held = Tokens(gate)
    first = await held.current()
    gate.open = {"s_2": "user:bob"}
    held.drop(first)
    alone = await held.current()
    assert alone.is_own_name and gate.claims[1:] == [{"session": "s_1"}, {"subject": "user:alice"}]
    gate.open = {"s_2": "user:bob", "s_3": "user:alice"}
    held.drop(alone)
    assert (await held.current()).session == "s_3"
    held.drop(await held.current(), session="s_9")
    assert (await held.current()).session == "s_3" and gate.claims[-2:] == [
        {"session": "s_9"},
        {"subject": "user:alice"},
    ]


async def test_no_other_session_is_taken_for_one_that_was_named_and_is_not_there() -> None:
    gate = Gate()
    held = Tokens(gate, session="s_9")
    alone = await held.current()
    assert alone.is_own_name and gate.claims == [{"session": "s_9"}]
    gate.open = {"s_1": "user:alice", "s_9": "user:alice"}
    held.drop(alone)
    assert (await held.current()).session == "s_9"


async def test_a_token_is_renewed_before_it_ends_and_a_short_one_is_used_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, now = Gate(), [1000.0]
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now[0])
    held = Tokens(gate)
    for seconds, lasts in ((600, 570), (60, 30), (10, 5)):
        gate.lasts = seconds
        held.drop(await held.current())
        before = (await held.current()).access
        now[0] += lasts - 1
        assert (await held.current()).access == before
        now[0] += 1
        assert (await held.current()).access != before


async def test_an_agent_that_works_for_itself_goes_on_working_for_itself() -> None:
    gate = Gate()
    gate.open = {"s_1": "agent:coder"}
    held = Tokens(gate)
    first = await held.current()
    assert first.principal == "agent:coder" and not first.is_own_name
    gate.open = {"s_2": "agent:coder", "s_3": "user:alice"}
    held.drop(first)
    assert (await held.current()).session == "s_2"
    assert gate.claims == [{}, {"session": "s_1"}, {"subject": "agent:coder"}]


async def test_a_chain_is_redeemed_once_and_again_only_when_its_link_leads_nowhere() -> None:
    asked, ended = list[Mapping[str, str]](), set[str]()

    async def gate(claims: Mapping[str, str]) -> Granted:
        asked.append(claims)
        if (named := claims.get("delegation")) in ended:
            raise SignInRefused("invalid_grant: the delegation has ended")
        answer = {"access_token": "t", "expires_in": 600, "subject": "user:alice", "session": "s_1"}
        return read_granted({**answer, "link": named or f"l_{len(asked)}"}, KEY, at=NOW)

    held = Tokens(gate, redeems=True)
    held.drop(await held.current())
    held.drop(await held.current())
    ended.add("l_1")
    assert (await held.current()).link == "l_4"
    assert asked == [{}, {"delegation": "l_1"}, {"delegation": "l_1"}, {}]
    held.drop(await held.current(), session="s_9")  # it was given a session of its own
    await held.current()
    assert asked[-1] == {"session": "s_9"}


def test_a_key_that_others_can_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(PrivateKey.generate().to_pem())
    path.chmod(0o640)
    with pytest.raises(KeyRefused, match=f"chmod 600 {path}"):
        load_key(path)
    path.chmod(0o600)
    assert load_key(path).public
    path.write_text("no key")
    with pytest.raises(KeyRefused, match="PEM"):
        load_key(path)
    with pytest.raises(ConfigError, match="No such file"):
        load_key(tmp_path / "none")


@pytest.mark.parametrize(
    "url",
    [
        "http://authz.example.com",
        "ftp://x",
        "authz",
        "",
        "https://u:p@x.example",
        "https://x.example/mcp?a=1",
        "http://[::",
    ],
)
def test_a_url_by_which_a_token_would_travel_in_the_open_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        discovery.endpoint(url)


def test_the_endpoint_is_named_or_follows_from_the_origin() -> None:
    assert discovery.endpoint("https://authz.example.com/") == "https://authz.example.com/mcp"
    assert discovery.endpoint("http://localhost:8642/mcp") == "http://localhost:8642/mcp"
    assert discovery.endpoint("https://x.example/team/mcp") == "https://x.example/team/mcp"


class Pages:
    """A web server whose JSON documents a test writes."""

    def __init__(self, pages: Mapping[str, Any]) -> None:
        self.pages = pages

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        page = self.pages.get(request.url.path)
        return httpx2.Response(404) if page is None else httpx2.Response(200, json=page)


URL = "https://x.example/mcp"
RESOURCE = "/.well-known/oauth-protected-resource/mcp"
SERVER = "/.well-known/oauth-authorization-server"
GOOD = {
    RESOURCE: {"resource": URL, "authorization_servers": ["https://x.example"]},
    SERVER: {"issuer": "https://x.example", "token_endpoint": "https://x.example/token"},
}


async def test_metadata_leads_from_the_resource_to_the_token_endpoint() -> None:
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(Pages(GOOD))) as http:
        found = await discovery.discover(http, URL)
    assert found == Door(issuer="https://x.example", token_endpoint="https://x.example/token")


@pytest.mark.parametrize(
    "wrong",
    [
        {RESOURCE: None},
        {RESOURCE: {**GOOD[RESOURCE], "resource": "https://y.example/mcp"}},
        {RESOURCE: {**GOOD[RESOURCE], "authorization_servers": ["http://x.example"]}},
        {RESOURCE: {**GOOD[RESOURCE], "authorization_servers": []}},
        {RESOURCE: ["no object"]},
        {SERVER: None},
        {SERVER: {**GOOD[SERVER], "issuer": "https://y.example"}},
        {SERVER: {**GOOD[SERVER], "token_endpoint": "http://x.example/token"}},
        {SERVER: {"issuer": "https://x.example"}},
    ],
    ids=lambda wrong: json.dumps(wrong)[17:90],
)
async def test_metadata_that_does_not_belong_together_leads_nowhere(wrong: Any) -> None:
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(Pages({**GOOD, **wrong}))) as http:
        with pytest.raises(NoAnswer):
            await discovery.discover(http, URL)


async def test_a_sign_in_that_is_refused_is_told_from_one_that_nobody_answered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.ready("coder", "pr")
        door = Door(issuer=w.config.public_url, token_endpoint=f"{w.config.public_url}/token")
        who = Applicant(name="coder", key=KEY, door=door)
        async with httpx2.AsyncClient(timeout=SOON) as http:
            with pytest.raises(SignInRefused, match="invalid_client"):
                await carry(http, own_session(who, {}, None))
            nowhere = replace(who, door=replace(who.door, token_endpoint="http://localhost:1/token"))
            with pytest.raises(NoAnswer):
                await carry(http, own_session(nowhere, {}, None))


async def test_a_gateway_elsewhere_that_does_not_answer_is_not_waited_for_long(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        async with connected(w, coder) as wire:
            await wire.introduce()
            known = (await wire.ask(1, "tools/list"))["result"]["tools"]
            await wire.closed()
    with anyio.fail_after(SOON):
        async with connected(w, coder) as wire:
            began = time.monotonic()
            await wire.introduce()
            assert (await wire.ask(1, "tools/list"))["result"]["tools"] == known
            told = await wire.call(2, LIST, PULLS)
            assert "no gateway answers at" in text_of(told).lower() and "Nothing was run." in text_of(told)
            assert time.monotonic() - began < 15
