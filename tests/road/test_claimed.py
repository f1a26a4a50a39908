"""What a caller claims is on record as claimed, decides nothing, and names nobody; its address is there too."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from pydantic import ValidationError

from mcp_authz.config_policy import AuditConfig
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.claimed import INTENT
from mcp_authz.rules.sentence import sentence
from tests.attacks.attacker import handshake, spy, tool
from tests.road.places import BOTH
from tests.road.test_offers import bookshelf
from tests.world import world


async def test_an_intent_is_recorded_as_claimed_and_changes_nothing(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"), tool("other"))
    tools = {name: {"hazard": "read", "scopes": [f"spy:{name}"]} for name in ("look", "other")}
    audit = {"proxies": ["127.0.0.1"]}
    async with world(tmp_path, servers={"spy": server.config(tools=tools)}, audit=audit) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        for name in ("look", "other"):
            meta = {INTENT: "user:mallory", "com.example/kept": "kept"}
            headers = {"x_forwarded_for": "198.51.100.1, 203.0.113.9"}
            await w.raw_call(token, f"spy__{name}", {"user:mallory": 1}, meta=meta, headers=headers)
        permitted, denied = await w.records("decision")
        assert (permitted.event.fields["decision"], denied.event.fields["decision"]) == ("permit", "deny")
        for record in (permitted, denied):
            fields = record.event.fields
            assert (fields["claimed_intent"], fields["claimed_client"]) == ("user:mallory", "test 1")
            assert (fields["method"], fields["peer"]) == ("tools/call", "203.0.113.9")
            assert sentence(record.event).endswith('; it claims: "user:mallory"')
            assert not Filter(person="mallory").has(record.event) and Filter(text="it claims").has(record.event)
        assert b"com.example/kept" in server.heard and INTENT.encode() not in server.heard


@BOTH
async def test_the_record_of_whatever_is_asked_for_says_by_which_method_and_from_where(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path, servers={"lib": bookshelf()}) as w:
        reader = await w.ready("reader", "lib:resources lib:prompts")
        async with w.client(reader, mode) as client:
            await client.read_resource("book://one")
            await client.get_prompt("lib__review", {"title": "Emma"})
        permitted = [fields for fields in await w.decisions() if fields["decision"] == "permit"]
        assert [fields["method"] for fields in permitted] == ["resources/read", "prompts/get"]
        assert {fields["peer"] for fields in permitted} == {"127.0.0.1"}  # nobody is a proxy here


async def test_what_a_client_of_the_handshake_era_calls_itself_is_on_record_with_its_calls(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    config = server.config(tools={"look": {"hazard": "read", "scopes": ["spy:look"]}})
    async with world(tmp_path, servers={"spy": config}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        async with handshake(w, token) as session:
            await session.call("spy__look", {})
            await session.call("spy__nothing", {})
        permitted, denied = await w.decisions()
        assert permitted["claimed_client"] == denied["claimed_client"] == "attacker 1"
        (call,) = [line for line in server.heard.splitlines() if b"tools/call" in line]
        assert b"attacker" not in call, "the tool server is called by the gateway, and is told so"


async def test_sign_ins_and_refusals_are_of_whom_a_known_proxy_names(tmp_path: Path) -> None:
    async with world(tmp_path, audit={"proxies": ["127.0.0.1"]}) as w:
        await w.ready("coder", "deploy")
        coder = await w.agent("other", ceiling="deploy")
        form = {"grant_type": "client_credentials", "client_assertion": w.assertion(coder)}
        form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        # Whatever stands before what the proxy itself wrote is anybody's word.
        async with httpx2.AsyncClient(headers={"x-forwarded-for": "198.51.100.1, 203.0.113.9"}) as http:
            assert (await http.post(f"{w.config.public_url}/token", data=form)).status_code == 200
            assert (await http.post(f"{w.config.public_url}/token", data={})).status_code in {400, 401}
            assert (await http.post(w.url, json={})).status_code >= 400
            assert (await http.get(f"{w.config.public_url}/administration/agents")).status_code == 401
            assert (await http.get(f"{w.config.public_url}/metrics")).status_code == 404, "that is not this machine"
        (signed_in,) = await w.records("sign-in")
        assert signed_in.event.fields["peer"] == "203.0.113.9"
        await w.app._write_refusals()
        assert {record.event.fields["source"] for record in await w.records("refusals")} == {"203.0.113.9"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"proxies": ["10.0.0.1/8"]},
        {"proxies": ["example.com"]},
        {"arguments": "all"},
        {"redact": {"patterns": ["("]}},
        {"redact": {"patterns": ["a*"]}},
        {"redact": {"fields": [""]}},
        {"redact": {"field": ["x"]}},
    ],
)
def test_what_cannot_be_kept_to_is_no_setting(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AuditConfig(**wrong)  # type: ignore[arg-type]
    assert AuditConfig(redact={"defaults": False}).redact.redaction.patterns == ()  # type: ignore[arg-type]
