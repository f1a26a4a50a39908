"""Context tokens: whatever of the call, the server, the signer or the moment is another, the token says nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import SignatureRefused
from mcp_authz.model import Assurance
from mcp_authz.principals import Mode
from mcp_authz.rules import jose
from mcp_authz.rules.context_token import (
    TYP,
    Approved,
    CallContext,
    Expected,
    pairwise,
    read_context,
    sign_context,
)
from mcp_authz.rules.keys import PrivateKey

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KEY, OTHER = PrivateKey.from_seed(b"\x01" * 32), PrivateKey.from_seed(b"\x02" * 32)
ISSUER, AUDIENCE, SALT = "https://authz.example.com", "billing", bytes(range(16))
ARGUMENTS = {"account": "a-17", "amount": 12.5, "reason": "späte Lieferung"}
CONTEXT = CallContext(
    id="x_1",
    call="c_1",
    subject=pairwise("user:alice", audience=AUDIENCE, key=b"\x02" * 32),
    actors=("agent:coder", "agent:planner"),
    session=pairwise("session:s_1", audience=AUDIENCE, key=b"\x02" * 32),
    mode=Mode.DELEGATED,
    tool="refund",
    approval=Approved(hold="h_1", assurance=Assurance.PASSKEY),
    issued_at=NOW,
    expires_at=NOW + timedelta(minutes=1),
)
EXPECTED = Expected(issuer=ISSUER, audience=AUDIENCE, tool="refund", arguments=ARGUMENTS)
PAGE = (Path(__file__).parent.parent.parent / "docs" / "context-token.md").read_text()


def sign(context: CallContext = CONTEXT, arguments: Any = ARGUMENTS, key: PrivateKey = KEY) -> str:
    return sign_context(context, issuer=ISSUER, audience=AUDIENCE, arguments=arguments, salt=SALT, key=key)


def read(token: str, expected: Expected = EXPECTED, *, now: datetime = NOW) -> CallContext:
    return read_context(jose.read(token), KEY.public, expected, now=now)


def claims() -> dict[str, Any]:
    return jose.read(sign()).claims


def test_what_is_signed_is_read_again() -> None:
    assert read(sign()) == CONTEXT
    bare = replace(CONTEXT, approval=None, actors=("agent:coder",), mode=Mode.OWN, subject="agent:coder")
    assert read(sign(bare)) == bare


def test_the_token_on_the_page_is_this_one_byte_for_byte() -> None:
    page = json.loads(PAGE.split("```json\n", 1)[1].split("```", 1)[0])
    assert "".join(page["token"]) == sign()
    assert page["jwks"]["keys"][0]["x"] == KEY.public.jwk["x"]
    assert page["jwks"]["keys"][0]["kid"] == jose.read(sign()).kid
    assert (page["iss"], page["aud"], page["tool"], page["arguments"]) == (ISSUER, AUDIENCE, "refund", ARGUMENTS)
    assert (page["subject"], tuple(page["actors"]), page["at"]) == (CONTEXT.subject, CONTEXT.actors, NOW.timestamp())


def test_the_page_names_exactly_the_claims_there_are() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in row.replace("`", "").replace(",", "").split()} == claims().keys()


def test_a_person_is_the_same_at_one_audience_and_another_at_another() -> None:
    here = pairwise("alice", audience="billing", key=b"k")
    assert here == pairwise("alice", audience="billing", key=b"k")
    others = {
        pairwise("alice", audience="crm", key=b"k"),
        pairwise("bob", audience="billing", key=b"k"),
        pairwise("alice", audience="billing", key=b"l"),
        pairwise("galice", audience="billin", key=b"k"),
    }
    assert len(others) == 4 and here not in others


def test_where_only_the_person_is_to_be_seen_no_agent_is() -> None:
    token = sign(replace(CONTEXT, mode=Mode.IMPERSONATED, actors=()))
    assert "act" not in jose.read(token).claims and b"agent:" not in jose.read(token).signing_input
    assert read(token).actor is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"issuer": "https://other.example"}, "gateway"),
        ({"audience": "crm"}, "audience"),
        ({"tool": "delete"}, "tool"),
        ({"arguments": {}}, "arguments"),
        ({"arguments": {**ARGUMENTS, "amount": 12.6}}, "arguments"),
        ({"arguments": {**ARGUMENTS, "more": None}}, "arguments"),
        ({"arguments": {"amount": float("nan")}}, "read"),
    ],
)
def test_a_token_is_for_this_call_only(change: dict[str, Any], why: str) -> None:
    with pytest.raises(SignatureRefused, match=why):
        read(sign(), replace(EXPECTED, **change))


def test_arguments_in_another_order_or_spelling_are_the_same_arguments() -> None:
    assert read(sign(arguments={"b": 1, "a": 2.0}), replace(EXPECTED, arguments={"a": 2, "b": 1.0}))


@given(st.dictionaries(st.text(max_size=4), st.integers(0, 9) | st.text(max_size=4), max_size=3))
def test_any_other_arguments_are_refused(arguments: dict[str, Any]) -> None:
    token = sign(arguments={"a": 1})
    if arguments == {"a": 1}:
        assert read(token, replace(EXPECTED, arguments=arguments))
    else:
        with pytest.raises(SignatureRefused):
            read(token, replace(EXPECTED, arguments=arguments))


@pytest.mark.parametrize(
    "change",
    [
        {"sub": None},
        {"sub": ""},
        {"aud": [AUDIENCE]},
        {"jti": None},
        {"session": None},
        {"call": 1},
        {"mode": "nobody"},
        {"mode": "impersonated"},  # with actors
        {"act": None},  # without, in mode `delegated`
        {"act": "agent:coder"},
        {"act": {"act": {"sub": "agent:coder"}}},
        {"args_salt": ""},
        {"args_salt": "AAECAwQFBgcICQoLDA0ODw=="},
        {"args_s256": None},
        {"approval": True},
        {"approval": {"hold": "h_1", "assurance": "total"}},
        {"approval": {"assurance": "passkey"}},
        {"approval": {"hold": "h_1", "assurance": ["passkey"]}},
        {"exp": int(NOW.timestamp()) + 61},
        {"exp": None},
    ],
)
def test_what_is_malformed_is_refused_also_when_it_is_signed(change: dict[str, Any]) -> None:
    said = {name: value for name, value in {**claims(), **change}.items() if value is not None}
    with pytest.raises(SignatureRefused):
        read(jose.sign(said, typ=TYP, key=KEY, kid=KEY.public.thumbprint))


def test_a_claim_of_a_later_version_is_passed_over() -> None:
    assert read(jose.sign({**claims(), "later": 1}, typ=TYP, key=KEY)) == CONTEXT


def test_a_chain_without_end_is_refused() -> None:
    act: dict[str, Any] = {"sub": "agent:a"}
    for _ in range(8):
        act = {"sub": "agent:a", "act": act}
    with pytest.raises(SignatureRefused, match="at most 8"):
        read(jose.sign({**claims(), "act": act}, typ=TYP, key=KEY))


def test_a_token_by_another_key_or_of_another_type_is_refused() -> None:
    with pytest.raises(SignatureRefused):
        read(sign(key=OTHER))
    for typ in ("at+jwt", "aat+jwt", "JWT"):
        with pytest.raises(SignatureRefused, match="typ"):
            read(jose.sign(claims(), typ=typ, key=KEY))


@pytest.mark.parametrize(("seconds", "good"), [(-31, False), (-30, True), (0, True), (89, True), (90, False)])
def test_a_token_is_of_this_minute(seconds: int, good: bool) -> None:
    if good:
        assert read(sign(), now=NOW + timedelta(seconds=seconds))
    else:
        with pytest.raises(SignatureRefused, match=r"future|expired"):
            read(sign(), now=NOW + timedelta(seconds=seconds))
