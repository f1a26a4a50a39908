"""What is taken out of records: secrets of known shapes and names, and never what the gateway itself made up."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.rules.record_redaction import DEFAULT, RecordRedaction
from mcp_authz.rules.redaction import read_redaction

redact = RecordRedaction(DEFAULT)
EVERYTHING = RecordRedaction(read_redaction([r"[0-9A-Za-z]+"], []))
SECRETS = [
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2" * 8,
    "glpat-" + "a1B2" * 5,
    "sk-" + "proj-a1B2" * 4,
    "sk_live_" + "a1B2" * 6,
    "AKIA" + "ABCDEFGHIJ234567",
    "xoxb-" + "123456789012-abcdef",
    "AIza" + "a1B2" * 9,
    "npm_" + "a1B2" * 9,
    "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwcyJ9.c2lnbmF0dXJl",
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBase64+/=\n-----END EC PRIVATE KEY-----",
    "Authorization: Bearer a1B2a1B2a1B2a1B2",
    "bearer a1B2a1B2a1B2a1B2",
    "postgres://me:hunter2@db.example.com/x",
    "password=hunter2",
    "DB_PASSWORD = hunter2",
    "x-api-key: hunter2",
    '{"github_token": "hunter2"}',
    '{"p\\u0061ssword": "hunter2"}',
    '{"a": "\\u0073k-abcdefghijklmnopqrstuvwx"}',
]
PLAIN = [
    "fix the build of acme/api: the token for staging is not there",
    "pr secret:read token:write",
    "https://example.com/a/b?page=2",
    "risk-averse tasks of the disk-cache-cleaner",
    "l_4kq2 0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "max_tokens=512",
    "Überweisung an ☃",
]


def holds(value: Any, secret: str) -> bool:
    return any(word in repr(value) for word in (secret, "hunter2", "a1B2a1B2", "cCAQEEI", "abcdefghijkl"))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_of_a_known_shape_is_in_no_text_of_a_record(secret: str) -> None:
    said = f"because {secret}"
    fields = {
        "purpose": said if not secret.startswith("{") else secret,
        "resource": {"path": secret, "deep": [{"er": secret}]},
        "arguments": [secret],
        "argument_values": {"x": secret},
        "observed": {"would": "deny", "detail": secret},
        "claimed_intent": secret,
        "tool": secret,
    }
    assert not holds(redact("decision", fields), secret)
    assert not holds(redact("anything", {"a member of tomorrow": secret}), secret)


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    fields = {"purpose": text, "resource": {"path": text}, "arguments": ["path", "token"], "summary": text}
    assert redact("decision", fields) is fields


def test_a_member_with_the_name_of_a_secret_loses_its_value_where_callers_make_up_the_names() -> None:
    given_ = {"argument_values": {"apiKey": "x", "GITHUB_TOKEN": 7, "a": {"client_secret": ["x"]}, "path": "/a"}}
    assert redact("decision", given_)["argument_values"] == {
        "apiKey": "[redacted]",
        "GITHUB_TOKEN": "[redacted]",
        "a": {"client_secret": "[redacted]"},
        "path": "/a",
    }
    assert redact("decision", {"token": "t_abc", "key": "k"}) == {"token": "t_abc", "key": "k"}


def test_an_operators_pattern_that_finds_everything_cuts_no_id_digest_or_code() -> None:
    fields = {
        "actor": "agent:coder", "subject": "user:alice", "chain": ["agent:a"], "link": "l_1", "links": ["l_1"],
        "token": "t_1", "key": "abc", "policy": "0f", "arguments_digest": "0f", "result_digest": "0f",
        "definition": "0f", "because": ["link:l_1"], "decision": "deny", "reason": "revoked", "hold": "h_1",
        "approval": {"hold": "h_1", "rules": ["two"], "assurance": "passkey", "by": ["user:bob"]},
        "server": "acme", "tool": "acme__x", "method": "tools/call", "trace": "0f", "peer": "192.0.2.1",
    }  # fmt: skip
    assert EVERYTHING("decision", fields) is fields
    pins = {"server": "a", "outcome": "first sight", "tools": {"x": "0f"}}
    assert EVERYTHING("pin", pins) is pins
    signed = {"kid": "0f", "text": "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwcyJ9.c2lnbmF0dXJl", "digest": "0f"}
    assert EVERYTHING("checkpoint", signed) is signed
    assert EVERYTHING("decision", {"tool": "asked", "purpose": "why"}) == {
        "tool": "[redacted]",
        "purpose": "[redacted]",
    }


@pytest.mark.parametrize("pattern", [r"\Aab", r"ab\z", "^ab$", r"\Qab", "(?i-s:AB)", "(?i)AB|CD"])
def test_an_operators_pattern_finds_in_each_text_what_it_finds_alone(pattern: str) -> None:
    also = RecordRedaction(read_redaction([pattern, "zz"], ["pin"]))
    fields = {"summary": "nothing here", "detail": "ab", "purpose": "x", "note": "xzzx", "resource": {"pin": 1}}
    assert also("policy", fields) == {
        "summary": "nothing here",
        "detail": "[redacted]",
        "purpose": "x",
        "note": "x[redacted]x",
        "resource": {"pin": "[redacted]"},
    }


@given(st.dictionaries(st.sampled_from(["summary", "resource", "x"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)))  # fmt: skip
def test_whatever_is_recorded_is_redacted_twice_as_it_is_once(fields: dict[str, Any]) -> None:
    once = redact("decision", fields)
    assert once.keys() == fields.keys() and redact("decision", once) == once


def test_what_is_drawn_as_nothing_hides_no_name_and_no_secret() -> None:
    fields = {
        "purpose": "pass\u200bword=hunter2",
        "detail": f"é ghp_{'a' * 9}\u2060{'b' * 29}",
        "resource": {"api\u00adkey": "hunter2", "é\u200b": "stays"},
    }
    assert redact("decision", fields) == {
        "purpose": "pass\u200bword=[redacted]",
        "detail": "é [redacted]",
        "resource": {"api\u00adkey": "[redacted]", "é\u200b": "stays"},
    }


def test_a_text_made_to_be_searched_for_long_is_withheld() -> None:
    many = " ".join(["ab"] * 100_000)
    began = time.monotonic()
    assert EVERYTHING("policy", {"summary": many})["summary"] == "[redacted]"
    assert time.monotonic() - began < 2
