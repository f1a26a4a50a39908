"""Step 8: a proof of a call counts for exactly this call, once; what a call needs is the same in both eras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.config import parse_config
from mcp_authz.errors import ConfigError
from mcp_authz.model import Hazard
from mcp_authz.principals import Chain, Link, Proof
from mcp_authz.protocol.answers import ENVELOPE
from mcp_authz.rules import link_id
from mcp_authz.rules.call_proof import DELEGATION, INVOCATION
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.settings import least_proof
from tests.road.places import BOTH, plain
from tests.road.test_prompt import Person
from tests.road.wire import wire
from tests.signing import Signing, signing
from tests.world import MODERN, Actor, World, called, world

SIGNED = {"*": {"hazard": "read", "scopes": ["use"], "proof": "signed"}}
SAY: dict[str, Any] = {"result": {"content": [], "structuredContent": {"ran": True}}}


def reason_of(result: dict[str, Any]) -> str:
    return str(result["_meta"][ENVELOPE]["reason"])


@BOTH
async def test_a_signed_call_of_a_tool_that_demands_it_runs_and_is_recorded_as_signed(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path, servers={"plain": plain(tools=SIGNED)}) as w:
        coder = await w.ready("coder", "use")
        sign = await signing(w, coder)
        async with wire(w, coder, mode) as client:
            meta = sign.meta("plain__say", SAY, at=w.clock(), id="p_1")
            done = await (await client.call("plain__say", SAY, meta=meta)).result()
        assert done["structuredContent"] == {"ran": True}
        (decision,) = await w.decisions()
        assert decision["decision"] == "permit" and decision["proof"] == "signed" and decision["proof_id"] == "p_1"
        assert decision["links"] == [link_id.link_id(sign.link)]


async def test_policy_sees_that_a_call_was_signed(tmp_path: Path) -> None:
    policy = tmp_path / "signed.cedar"
    policy.write_text(
        '@id("signed") permit (principal, action, resource) '
        'when { context has session && principal.proof == "signed" };'
    )
    async with world(tmp_path, servers={"plain": plain()}, policy=str(policy)) as w:
        coder = await w.ready("coder", "use")
        sign = await signing(w, coder)
        async with wire(w, coder, MODERN) as client:
            assert reason_of(await (await client.call("plain__say", SAY)).result()) == "policy"
            meta = sign.meta("plain__say", SAY, at=w.clock())
            assert not (await (await client.call("plain__say", SAY, meta=meta)).result()).get("isError")


async def test_arguments_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain(tools=SIGNED)}) as w:
        coder = await w.ready("coder", "use")
        sign = await signing(w, coder)
        async with wire(w, coder, MODERN) as client:
            meta = sign.meta("plain__received", {"b": 1, "a": {"d": 2, "c": 1.0}}, at=w.clock())
            done = await (await client.call("plain__received", {"a": {"c": 1, "d": 2.0}, "b": 1}, meta=meta)).result()
        assert not done.get("isError")


@BOTH
async def test_a_denial_for_too_weak_a_proof_says_what_to_sign(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={"plain": plain(tools=SIGNED)}) as w:
        coder = await w.ready("coder", "use")
        sign = await signing(w, coder)
        async with wire(w, coder, mode) as client:
            denied = await (await client.call("plain__say", SAY)).result()
            said = denied["_meta"][ENVELOPE]
            assert denied["isError"] and said["reason"] == "proof_required" and said["proof"] == "signed"
            assert said["sign"] == {
                "meta": INVOCATION,
                "typ": "aat-pop+jwt",
                "link": sign.link,
                "tool": "plain__say",
                "audience": w.config.resource,
            }
            told = Signing(key=coder.key, link=said["sign"]["link"], audience=said["sign"]["audience"])
            meta = {said["sign"]["meta"]: told.proof(said["sign"]["tool"], SAY, at=w.clock())}
            done = await (await client.call("plain__say", SAY, meta=meta)).result()
        assert done["structuredContent"] == {"ran": True}
        assert "connect" in denied["content"][0]["text"]


@BOTH
async def test_a_proof_that_is_none_of_this_call_is_refused_also_where_none_is_needed(
    tmp_path: Path, mode: str
) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "key": {"key": PrivateKey.from_seed(b"\x07" * 32)},
        "tool": {"tool": "plain__other"},
        "arguments": {"arguments": {"result": {}}},
        "audience": {"audience": "http://localhost:1/mcp"},
        "link": {"link": "0199a3c0-0000-7000-8000-000000000001"},
    }
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        sign = await signing(w, coder)
        said: list[Any] = [7, "no proof at all", ""]
        for other in wrong.values():
            signer = Signing(key=other.pop("key", sign.key), link=sign.link, audience=sign.audience)
            said.append(signer.proof(**{"tool": "plain__say", "arguments": SAY, "at": w.clock(), **other}))
        async with wire(w, coder, mode) as client:
            for text in said:
                denied = await (await client.call("plain__say", SAY, meta={INVOCATION: text})).result()
                assert denied["isError"] and reason_of(denied) == "proof_invalid"
        decisions = await w.decisions()
    assert [decision["reason"] for decision in decisions] == ["proof_invalid"] * len(said)
    assert not any("proof_id" in decision or decision["proof"] != "bearer" for decision in decisions)


async def test_the_stronger_one_of_hazard_and_tool_counts(tmp_path: Path) -> None:
    own = {
        "say": {"hazard": "read", "scopes": ["use"]},
        "received": {"hazard": "read", "scopes": ["use"], "proof": "signed"},
    }
    async with world(tmp_path, servers={"plain": plain("book", tools=own)}, proof={"read": "dpop"}) as w:
        await w.ready("coder", "use")
        reading = w.running.catalog.find("plain__resources/read")
        needs = {tool.tool: tool.classification.proof for tool in w.running.catalog.tools}
    assert (needs["say"], needs["received"]) == (Proof.DPOP, Proof.SIGNED)
    assert reading is not None and reading.classification.proof is Proof.DPOP
    assert needs["fail"] is Proof.BEARER  # nobody classified it, so it destroys


def test_what_the_configuration_says_of_hazards_is_the_least_proof() -> None:
    least = least_proof(parse_config({"proof": {"destructive": "signed", "write": "dpop"}}))
    assert least == {Hazard.READ: Proof.BEARER, Hazard.WRITE: Proof.DPOP, Hazard.DESTRUCTIVE: Proof.SIGNED}
    with pytest.raises(ConfigError, match="proof"):
        parse_config({"proof": {"read": "none"}})


@BOTH
async def test_a_signed_call_counts_where_a_bound_token_is_demanded_and_a_bearer_token_is_sent_for_one(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path, servers={"plain": plain()}, proof={"read": "dpop"}) as w:
        coder = await w.ready("coder", "use")
        sign = await signing(w, coder)
        async with wire(w, coder, mode) as client:
            refused = await client.call("plain__say", SAY)
            assert refused.status == 401 and refused.challenge.startswith("DPoP ")
            data = (await refused.end())["error"]["data"]
            assert data["reason"] == "proof_required" and data["proof"] == "dpop"
            meta = sign.meta("plain__say", SAY, at=w.clock())
            done = await (await client.call("plain__say", SAY, meta=meta)).result()
        assert done["structuredContent"] == {"ran": True}


async def test_a_resource_and_a_prompt_are_signed_by_their_method_and_parameters(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain("book")}, proof={"read": "signed"}) as w:
        coder = await w.ready("coder", "plain use")
        sign = await signing(w, coder)
        async with wire(w, coder, "legacy") as client:
            listed = (await (await client.ask("resources/list")).end())["result"]["resources"]
            uri = {"uri": listed[0]["uri"]}
            denied = (await (await client.ask("resources/read", uri)).end())["error"]
            meta = {"_meta": sign.meta("resources/read", uri, at=w.clock())}
            read = (await (await client.ask("resources/read", {**uri, **meta})).end())["result"]
            other = {"_meta": sign.meta("resources/read", {"uri": "other:x"}, at=w.clock())}
            swapped = (await (await client.ask("resources/read", {**uri, **other})).end())["error"]
        assert denied["data"]["reason"] == "proof_required" and denied["data"]["sign"]["tool"] == "resources/read"
        assert read["contents"] and swapped["data"]["reason"] == "proof_invalid"


@BOTH
async def test_a_proof_counts_once_whatever_came_of_its_call(tmp_path: Path, mode: str) -> None:
    tools = {**SIGNED, "received": {"hazard": "read", "scopes": ["use:{n}"]}}
    async with world(tmp_path, servers={"plain": plain(tools=tools)}) as w:
        coder = await w.ready("coder", "use")
        sign = await signing(w, coder)
        async with wire(w, coder, mode) as client:
            for tool, arguments, first in (
                ("plain__say", SAY, None),  # permitted
                ("plain__fail", {"error": {"code": -32050, "message": "no"}}, None),  # its server refused it
                ("plain__received", {}, "scope_arguments"),  # denied
            ):
                meta = sign.meta(tool, arguments, at=w.clock())
                said = await (await client.call(tool, arguments, meta=meta)).end()
                assert said.get("result", {}).get("_meta", {}).get(ENVELOPE, {}).get("reason") == first
                again = await (await client.call(tool, arguments, meta=meta)).result()
                assert reason_of(again) == "replayed"
        assert [d["reason"] for d in await w.decisions() if d["decision"] == "deny"] == [
            *("replayed", "replayed", "scope_arguments", "replayed")
        ]


@BOTH
async def test_a_call_that_was_approved_in_the_prompt_of_the_same_request_is_no_replay_of_itself(
    tmp_path: Path, mode: str
) -> None:
    tools = {"*": {"hazard": "destructive", "scopes": ["use"], "proof": "signed"}}
    yes = Person("accept", {"approve": True})
    async with world(tmp_path, servers={"plain": plain(tools=tools)}) as w:
        coder = await w.ready("coder", "use", interactive=True)
        sign = await signing(w, coder)
        async with w.client(coder, mode, elicitation_callback=yes) as client:
            sent: list[dict[str, Any]] = []
            done = await _signed(w, client, sign, sent)
        assert done.result.get("structuredContent") == {"ran": True}, done
        async with wire(w, coder, MODERN) as client:
            # One that was held has been used, too.
            again = await (await client.call("plain__say", SAY, meta=sent[0])).result()
        assert reason_of(again) == "replayed"


async def _signed(w: World, client: Any, sign: Signing, sent: list[dict[str, Any]]) -> Any:
    """Call through the SDK, whose retries of a 2026-07-28 call take a new proof each."""
    call_tool = client.session.call_tool

    async def signed(*args: Any, **more: Any) -> Any:
        sent.append(sign.meta("plain__say", SAY, at=w.clock()))
        return await call_tool(*args, **{**more, "meta": {**(more.get("meta") or {}), **sent[-1]}})

    client.session.call_tool = signed
    return await called(client, "plain__say", SAY)


@BOTH
async def test_a_client_that_is_sent_for_more_scope_sends_the_same_signed_call_again(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={"plain": plain(tools=SIGNED)}) as w:
        coder = await w.ready("coder", "use")
        meta = (await signing(w, coder)).meta("plain__say", SAY, at=w.clock())
        async with wire(w, coder, mode, "mcp:connect") as client:
            assert (await client.call("plain__say", SAY, meta=meta)).status == 403
            client.headers["authorization"] = f"Bearer {await w.token(coder)}"
            done = await (await client.call("plain__say", SAY, meta=meta)).result()
            assert done["structuredContent"] == {"ran": True}
            assert reason_of(await (await client.call("plain__say", SAY, meta=meta)).result()) == "replayed"


async def test_a_held_call_is_made_again_with_another_proof(tmp_path: Path) -> None:
    tools = {"*": {"hazard": "destructive", "scopes": ["use"]}}
    async with world(tmp_path, servers={"plain": plain(tools=tools)}, proof={"destructive": "signed"}) as w:
        coder = await w.ready("coder", "use")
        sign = await signing(w, coder)
        async with wire(w, coder, MODERN) as client:
            meta = sign.meta("plain__say", SAY, at=w.clock())
            held = (await (await client.call("plain__say", SAY, meta=meta)).result())["_meta"][ENVELOPE]
            assert held["outcome"] == "held"
            await w.answer(held["hold"], by="alice")
            assert reason_of(await (await client.call("plain__say", SAY, meta=meta)).result()) == "replayed"
            assert reason_of(await (await client.call("plain__say", SAY)).result()) == "proof_required"
            meta = sign.meta("plain__say", SAY, at=w.clock())
            done = await (await client.call("plain__say", SAY, meta=meta)).result()
        assert done["structuredContent"] == {"ran": True}


async def test_a_request_for_a_session_takes_the_same_proofs(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        sign, asked, tool = await signing(w, coder), {"purpose": "test"}, "authz__request_session"
        async with wire(w, coder, MODERN) as client:
            other = sign.meta(tool, {"purpose": "else"}, at=w.clock())
            assert reason_of(await (await client.call(tool, asked, meta=other)).result()) == "proof_invalid"
            meta = sign.meta(tool, asked, at=w.clock(), id="p_s")
            held = (await (await client.call(tool, asked, meta=meta)).result())["_meta"][ENVELOPE]
            assert held["outcome"] == "held"
            assert reason_of(await (await client.call(tool, asked, meta=meta)).result()) == "replayed"
        assert [d.get("proof_id") for d in await w.decisions()] == [None, "p_s", "p_s"]


@BOTH
async def test_links_that_come_with_a_request_are_those_of_its_token_or_it_is_not_heard(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        other = await w.ready("other", "use")
        own, foreign = [await _root(w, actor) for actor in (coder, other)]
        for_another_key = await _root(w, coder, key=other.key)
        async with wire(w, coder, mode) as client:
            done = await (await client.call("plain__say", SAY, meta={DELEGATION: [*own]})).result()
            assert done["structuredContent"] == {"ran": True}
            _, later = await w.start((await w.store.grants(agent="coder"))[0])  # another delegation of the same key
            another = await _root(w, coder, link=later)
            wrong: list[Any] = [[*foreign], [*another], [*for_another_key], [own[0][:-4] + "AAAA"], [*own, *own]]
            for links in [*wrong, [], "x", [1]]:
                refused = await client.call("plain__say", SAY, meta={DELEGATION: links})
                assert refused.status == 401 and 'error="invalid_token"' in refused.challenge
                assert (await refused.end())["error"]["data"]["reason"] == "links_invalid"
        assert [d.get("reason") for d in await w.decisions()] == [None, *["links_invalid"] * 8]


async def _root(w: World, actor: Actor, *, link: Link | None = None, key: PrivateKey | None = None) -> tuple[str, ...]:
    """The signed chain of the agent's link, or of that of its only open session, for its key or another one."""
    if link is None:
        ((_, link),) = await w.store.open_links(actor.name, w.clock())
    mine = await w.store.key(actor.key.public.thumbprint)
    if key is not None:
        mine = replace(mine, raw=key.public.raw, thumbprint=key.public.thumbprint)
    session = await w.store.session(link.session)
    return await w.running.chains.root(link, session, Chain(links=(link,)), mine)


@BOTH
async def test_nothing_of_a_proof_reaches_the_tool_server_or_the_log(
    tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="mcp_authz")
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        sign, links = await signing(w, coder), [*await _root(w, coder)]
        async with wire(w, coder, mode) as client:
            meta = {**sign.meta("plain__received", {"n": 1}, at=w.clock()), DELEGATION: links, "x.example/kept": 1}
            done = await (await client.call("plain__received", {"n": 1}, meta=meta)).result()
            wrong = sign.meta("plain__received", {"n": 2}, at=w.clock())
            await client.call("plain__received", {"n": 1}, meta=wrong)
        seen = done["structuredContent"]["value"]
        assert seen["_meta"].get("x.example/kept") == 1
        assert not [key for key in seen["_meta"] if key.startswith("dev.mcp-authz/")]
        kept = "\n".join(record.getMessage() for record in caplog.records) + str(await w.records())
        for secret in (meta[INVOCATION], wrong[INVOCATION], links[0]):
            assert secret not in str(seen) and secret.rpartition(".")[2] not in kept
