"""Row 16: an agent says in arguments, `_meta`, headers or `clientInfo` who it is or whom it acts for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.attacker import answer_in, handshake, spoken, spy, tool
from tests.world import ENVELOPE, world

FOR_BOB_ONLY = """
@id("for-bob") permit (principal is Agent, action, resource is Tool)
when { context has on_behalf_of && context.on_behalf_of.user_id == "bob" };
@id("for-admins") permit (principal is Agent, action, resource is Tool)
when { context has on_behalf_of && context.on_behalf_of.groups.contains("admins") };
"""
PERSON = {"sub": "user:bob", "user": "bob", "user_id": "bob", "act": {"sub": "agent:root"}, "groups": ["admins"]}
HEADERS = {
    "x_user": "bob",
    "x_forwarded_user": "bob",
    "x_remote_user": "bob",
    "remote_user": "bob",
    "x_forwarded_for": "10.9.9.9",
    "x_real_ip": "10.9.9.9",
    "forwarded": "for=10.9.9.9;host=evil.example",
    "x_forwarded_host": "evil.example",
    "x_original_url": "/admin",
    "x_agent": "root",
    "on_behalf_of": "bob",
    "x_mcp_subject": "user:bob",
    "cookie": "user=bob",
}
META = {
    **PERSON,
    "io.modelcontextprotocol/clientInfo": {"name": "agent:root", "version": "user:bob", "title": "bob"},
    "dev.mcp-authz/subject": "user:bob",
    "dev.mcp-authz/approval": {"hold": "h_1", "by": ["user:bob"]},
    "dev.mcp-authz/outcome": {"outcome": "permit"},
}
# What differs from one call to the next whoever makes it.
OWN = {"arguments", "arguments_digest", "token"}
CLAIM = "claimed_client"  # the one member that is said to be a claim


def facts(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in OWN | {CLAIM}}


async def test_a_claim_changes_neither_the_decision_nor_what_is_recorded_as_known(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        await w.person("bob")
        token = await w.token(await w.ready("coder", "spy:look"))
        await w.raw_call(token, "spy__look", {})
        await w.raw_call(token, "spy__look", PERSON, meta=META, headers=HEADERS, **PERSON)
        async with handshake(w, token, **HEADERS) as session:
            await session.call("spy__look", PERSON, _meta=META, **PERSON)
        said = await w.decisions()
        plain, *claimed = map(facts, said)
        assert [fields[CLAIM] for fields in said[1:]] == ["agent:root user:bob"] * 2
        assert plain["decision"] == "permit" and plain["subject"] == "user:alice" and plain["chain"] == ["agent:coder"]
        assert claimed == [plain, plain]


async def test_a_claim_where_links_or_a_proof_belong_is_refused_and_recorded_for_whom_the_token_is(
    tmp_path: Path,
) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        for name, claim in (("delegation", ["user:bob"]), ("delegation", PERSON), ("invocation", "user:bob")):
            await w.raw_call(token, "spy__look", {}, meta={f"dev.mcp-authz/{name}": claim})
        decisions = await w.decisions()
        assert [fields["reason"] for fields in decisions] == ["links_invalid", "links_invalid", "proof_invalid"]
        assert {fields["subject"] for fields in decisions} == {"user:alice"} and server.ran == []


@pytest.mark.parametrize("where", ["arguments", "meta", "headers", "params"])
async def test_policy_hears_no_claim_of_the_caller(tmp_path: Path, where: str) -> None:
    (tmp_path / "bob.cedar").write_text(FOR_BOB_ONLY)
    server = spy(tmp_path / "spy", tool("look"))
    servers = {"spy": server.config(tools={"look": {"hazard": "read"}})}
    async with world(tmp_path, servers=servers, policy=str(tmp_path / "bob.cedar")) as w:
        await w.person("bob", "admins")
        token = await w.token(await w.ready("coder", "spy:look"))
        said: dict[str, Any] = {
            "arguments": {"arguments": {**PERSON, "on_behalf_of": {"user_id": "bob", "groups": ["admins"]}}},
            "meta": {"arguments": {}, "meta": META},
            "headers": {"arguments": {}, "headers": HEADERS},
            "params": {"arguments": {}, **PERSON},
        }[where]
        denied = answer_in(await w.raw_call(token, "spy__look", said.pop("arguments"), **said))["result"]
        assert denied["_meta"][ENVELOPE]["reason"] == "policy"
        assert server.ran == []
        # The same policy permits what is really for bob, so that the denial says something.
        await w.start(await w.grant("bob", "coder", "spy:look"))
        (session,) = [session for session in await w.store.sessions() if session.subject == "bob"]
        coder = await w.ready("other", "spy:look", subject="bob")
        assert session.agent == "coder"
        assert "ran look" in (await w.raw_call(await w.token(coder), "spy__look", {})).text


async def test_an_attribute_of_an_argument_does_not_pass_for_the_operators(tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text(
        '@id("staging") permit (principal is Agent, action, resource is Tool)'
        ' when { context has session && resource.environment == "staging" && resource.hazard == "read" };'
    )
    server = spy(tmp_path / "spy", tool("look"))
    entry = server.config(environment="production", tools={"look": {"hazard": "read", "resource": {"path": "{path}"}}})
    async with world(tmp_path, servers={"spy": entry}, policy=str(tmp_path / "p.cedar")) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        claims = {"environment": "staging", "hazard": "read", "path": {"environment": "staging"}}
        await w.raw_call(token, "spy__look", claims)
        assert server.ran == []


async def test_the_source_of_a_refusal_is_who_connects(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await w.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, "nobody", **HEADERS)
        await w.app._write_refusals()
        (record,) = await w.records("refusals")
        assert record.event.fields["source"] == "127.0.0.1"


async def test_urls_in_answers_come_from_the_configuration_and_never_from_the_request(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        request = "\r\n".join(
            [
                "POST /mcp HTTP/1.1",
                f"host: 127.0.0.1:{w.config.listen_port}",
                "x-forwarded-host: evil.example",
                "x-forwarded-proto: https",
                "forwarded: host=evil.example;proto=https",
                "content-type: application/json",
                "content-length: 46",
                "",
                '{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
            ]
        )
        said = await spoken(w, request.encode())
        assert b"401" in said and f'resource_metadata="{w.config.public_url}/'.encode() in said
        assert b"evil" not in said


@pytest.mark.parametrize("host", ["evil.example", "localhost", "localhost:1", "127.0.0.1.evil.example", "", "[::1]"])
async def test_a_host_that_is_not_ours_is_refused(tmp_path: Path, host: str) -> None:  # row 47: DNS rebinding
    async with world(tmp_path, servers={}) as w:
        assert (await w.post({}, "x", host=host)).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost", "http://localhost", "file://"])
async def test_an_origin_that_is_not_ours_is_refused(tmp_path: Path, origin: str) -> None:  # row 47
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        assert (await w.raw_call(token, "spy__look", {}, headers={"origin": origin})).status_code == 403
        assert server.ran == []
        assert (await w.raw_call(token, "spy__look", {}, headers={"origin": w.config.public_url})).status_code == 200
