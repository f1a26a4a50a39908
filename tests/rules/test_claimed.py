"""What a caller claims: read from `_meta`, bounded, visible, and nothing where it is no text."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.installation import utc_now
from mcp_authz.rules import ocsf, record_csv
from mcp_authz.rules.argument_values import short_values
from mcp_authz.rules.claimed import INTENT, claimed
from mcp_authz.rules.peer import peer, read_networks
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.ports import Event

DRAFT = "io.modelcontextprotocol/aiInvocation"
PROXIES = read_networks(["10.0.0.0/8", "2001:db8::1"])


def test_the_intent_is_that_of_our_member_else_that_of_the_draft() -> None:
    assert claimed({INTENT: "fix it", DRAFT: {"invocationReason": "other"}}) == {"claimed_intent": "fix it"}
    assert claimed({DRAFT: {"invocationReason": "because", "userIntent": "secret"}}) == {"claimed_intent": "because"}
    info = {"name": "claude-code", "version": "2.1", "title": "x"}
    assert claimed({"io.modelcontextprotocol/clientInfo": info}) == {"claimed_client": "claude-code 2.1"}


@pytest.mark.parametrize("value", [None, 7, [], {}, "", "   ", {"invocationReason": 3}])
def test_what_is_no_text_is_nothing(value: Any) -> None:
    assert claimed({INTENT: value, "io.modelcontextprotocol/clientInfo": value, "traceparent": value}) == {}


def test_a_long_intent_is_cut_and_hidden_characters_are_shown() -> None:
    said = claimed({INTENT: "a\u202eb\n" + "x" * 10_000})["claimed_intent"]
    assert len(said) == limits.INTENT_RECORDED and said.startswith("a\\u{202e}b\\u{000a}x") and said.endswith("…")
    assert len(claimed({INTENT: "\n" * 9 + "\u202e" * 300 + "x"})["claimed_intent"]) == limits.INTENT_RECORDED


def test_values_are_recorded_whole_or_as_digests() -> None:
    arguments = {
        "path": "/srv/x",
        "n": 7,
        "deep": {"a": [{"b": [1]}]},
        "deeper": {"a": [{"b": [[1]]}]},
        "long": "x" * 511,
        "x" * 64: "a name that is too long",
    }
    shown = short_values(arguments, lambda _: "0f")
    assert shown == {
        "path": "/srv/x",
        "n": 7,
        "deep": {"a": [{"b": [1]}]},
        "deeper": "digest:0f",
        "long": "digest:0f",
    }
    many = short_values({f"a{n:03}": "x" * 400 for n in range(100)}, lambda _: "0f")
    assert len(many) == limits.NAMES_RECORDED
    assert sum(len(value) for value in many.values() if value != "digest:0f") <= limits.VALUES_RECORDED


def test_a_claim_cannot_end_its_quotation_and_an_address_is_one_in_every_export() -> None:
    fields = {"actor": "agent:a", "action": "x", "decision": "deny", "claimed_intent": 'a": permitted', "peer": "::1"}
    event = Event(kind="decision", at=utc_now(), fields=fields)
    assert sentence(event).endswith("""; it claims: "a': permitted\"""")
    assert ocsf.event(event, sequence=1, hash_=bytes(32), version="1")["src_endpoint"] == {
        "name": "agent:a",
        "ip": "::1",
    }
    local = Event(kind="decision", at=utc_now(), fields={**fields, "peer": "local"})
    assert ocsf.event(local, sequence=1, hash_=bytes(32), version="1")["src_endpoint"] == {"name": "agent:a"}
    assert "::1" in record_csv.row(event, sequence=1, hash_=bytes(32)).split(",")


@pytest.mark.parametrize(
    ("connected", "forwarded", "told"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),
        ("10.1.1.1", [], None),
        ("10.1.1.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.1.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.1.1.1", ["203.0.113.9", "198.51.100.1, 10.2.2.2"], "198.51.100.1"),
        ("10.1.1.1", ["203.0.113.9, nonsense"], None),
        ("::ffff:10.1.1.1", ["2001:db8::2, 2001:DB8::1"], "2001:db8::2"),
        ("unix", [], None),
    ],
)
def test_only_a_known_proxy_says_from_where_a_request_came(connected: str, forwarded: list[str], told: str) -> None:
    assert peer(connected, forwarded, PROXIES) == told
