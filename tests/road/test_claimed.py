"""What a caller claims is on record as claimed, decides nothing, and names nobody; its address is there too."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mcp_authz.config_policy import AuditConfig
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.claimed import INTENT
from mcp_authz.rules.sentence import sentence
from tests.attacks.attacker import spy, tool
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
