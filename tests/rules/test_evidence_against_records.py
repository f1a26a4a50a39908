"""Evidence that is well signed, beside records that say something else: whatever differs is found wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.rules import call_proof, jose, link_id, standing_approval, verdict
from mcp_authz.rules.evidence_checks import check_evidence
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.excerpt import Excerpted
from mcp_authz.rules.keys import PrivateKey, b64url
from mcp_authz.rules.link_id import uuid7
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import Given, Purpose, sign_root, verify_derived
from mcp_authz.rules.statement_checks import challenge_of
from mcp_authz.rules.verdict import PasskeyProof
from mcp_authz.rules.verdict_checks import Finding

CODER, ALICE, GATEWAY, OTHER = (PrivateKey.generate() for _ in range(4))
CREDENTIAL, PUBLIC, NONCE = b"credential", b"cose key", bytes(32)
LINK, ANOTHER = (link_id.link_id(f"0199f000-0000-7000-8000-00000000000{n}") for n in (1, 2))
NONE: dict[str, Any] = {"keys": [], "passkeys": {}, "links": [], "calls": [], "verdicts": [], "shown": []}

Records = tuple[Excerpted, ...]


def record(sequence: int, kind: str, **fields: Any) -> Excerpted:
    return Excerpted(sequence=sequence, kind=kind, body={"fields": fields}, checkpoint=None)


def altered(records: Records, kind: str, **other: Any) -> Records:
    """The records, and in those of this kind something else."""
    return tuple(
        replace(one, body={"fields": {**one.body["fields"], **other}}) if one.kind == kind else one for one in records
    )


def found(
    records: Records, *keys: PrivateKey, asked: list[bytes] | None = None, **evidence: Any
) -> tuple[Finding, ...]:
    def check(proof: PasskeyProof, public: bytes, challenge: bytes) -> None:
        if (proof.signature, public) != (b"signed", PUBLIC):
            raise SignatureRefused("the passkey did not sign this")
        if asked is not None:
            asked.append(challenge)

    return check_evidence(records, {**NONE, **evidence, "keys": [key.public.jwk for key in keys]}, check)


def verdicts_of(findings: tuple[Finding, ...]) -> list[str]:
    return [one.verdict for one in findings]


CALL = jose.sign(
    {"jti": "p_1", "iat": 1, "aat_id": link_id.jti(LINK), "aat_tool": "acme__deploy", "aat_aud": "x", "hta": {}},
    typ=call_proof.TYP,
    key=CODER,
)
CALLED: Records = (
    record(1, "enrolment", agent="agent:coder", key=CODER.public.thumbprint),
    record(
        2,
        "decision",
        actor="agent:coder",
        key=CODER.public.thumbprint,
        link=LINK,
        method="tools/call",
        proof_digest=name_of(CALL),
        proof_id="p_1",
        tool="acme__deploy",
    ),
)


def test_a_signed_call_is_of_the_call_that_its_record_has() -> None:
    signed, whose = found(CALLED, CODER, calls=[CALL])
    assert signed.verdict == whose.verdict == "verified" and "this key is coder's" in whose.text


@pytest.mark.parametrize(
    "other",
    [{"proof_id": "p_2"}, {"link": ANOTHER}, {"tool": "acme__erase"}, {"key": OTHER.public.thumbprint}],
    ids=lambda it: next(iter(it)),
)
def test_a_signed_call_beside_the_record_of_another_is_wrong(other: dict[str, Any]) -> None:
    assert "wrong" in verdicts_of(found(altered(CALLED, "decision", **other), CODER, OTHER, calls=[CALL])[:1])


def test_a_signed_call_that_no_record_names_is_wrong_and_one_that_is_not_there_is_left_open() -> None:
    elsewhere = altered(CALLED, "decision", proof_digest=name_of("another"))
    assert verdicts_of(found(elsewhere, CODER, calls=[CALL])) == ["wrong", "open", "wrong"]
    assert verdicts_of(found(CALLED)) == ["open"]


def test_a_key_that_a_record_gives_to_somebody_else_is_not_taken_for_the_callers() -> None:
    _, whose = found(altered(CALLED, "enrolment", agent="agent:other"), CODER, calls=[CALL])
    assert whose.verdict == "open" and "no record in the bundle says so" in whose.text


def statement(key: PrivateKey, *, typ: str = verdict.TYP, **other: Any) -> str:
    claims = {
        "sub": "user:alice",
        "hold": "h_1",
        "act_s256": "a",
        "shown_s256": "s",
        "verdict": "approve",
        "assurance": "signed-in",
        "reason": "looked at it",
        "iat": 1,
        **other,
    }
    return jose.sign(claims, typ=typ, key=key, kid=key.public.thumbprint)


def answered(text: str, key: PrivateKey, **other: Any) -> Records:
    """The records of an answer that this statement is of."""
    said = {"person": "user:alice", "verdict": "approve", "assurance": "signed-in", "reason": "looked at it"}
    return (
        record(1, "enrolment", person="user:alice", key=ALICE.public.thumbprint),
        record(
            2,
            "approval",
            **{**said, "hold": "h_1", "statement": name_of(text), "signed_by": key.public.thumbprint, **other},
        ),
    )


OWN = statement(ALICE)


def test_a_verdict_is_of_the_answer_that_its_record_has() -> None:
    signed, whose = found(answered(OWN, ALICE), ALICE, verdicts=[OWN])
    assert signed.verdict == whose.verdict == "verified" and "alice's own key signed that they approved" in signed.text


@pytest.mark.parametrize(
    "other",
    [
        {"person": "user:bob"},
        {"verdict": "deny"},
        {"assurance": "passkey"},
        {"reason": "did not look"},
        {"reason": ["[redacted]"]},
        {"hold": "h_2"},
        {"signed_by": OTHER.public.thumbprint},
        {"standing": "a_1"},
    ],
    ids=lambda it: f"{it}"[:12],
)
def test_a_verdict_beside_the_record_of_another_answer_is_wrong(other: dict[str, Any]) -> None:
    assert verdicts_of(found(answered(OWN, ALICE, **other), ALICE, OTHER, verdicts=[OWN]))[0] == "wrong"


def test_a_reason_may_have_less_in_its_record_than_was_signed() -> None:
    records = answered(OWN, ALICE, reason="looked at [redacted]")
    assert "wrong" not in verdicts_of(found(records, ALICE, verdicts=[OWN]))


def test_a_standing_approval_is_signed_as_one_and_may_be_of_another_hold() -> None:
    given = statement(ALICE, typ=standing_approval.TYP, hold="h_0")
    records = answered(given, ALICE, standing="a_1")
    assert "wrong" not in verdicts_of(found(records, ALICE, verdicts=[given]))
    plain = answered(statement(ALICE, hold="h_0"), ALICE, standing="a_1")
    assert "wrong" in verdicts_of(found(plain, ALICE, verdicts=[statement(ALICE, hold="h_0")]))


def test_what_the_gateway_signed_for_somebody_stays_its_word() -> None:
    for assurance in ("client", "client-other"):
        text = statement(GATEWAY, assurance=assurance)
        records = answered(text, GATEWAY, assurance=assurance)
        for use, shown in (("verdict", "verified"), ("context", "open")):
            key = record(3, "administration", use=use, key=GATEWAY.public.thumbprint)
            signed, whose, word = found((*records, key), GATEWAY, verdicts=[text])
            assert whose.verdict == shown and "that the key of the verdict is the gateway's" in whose.text
        assert "the gateway signed that alice approved" in signed.text
        assert word.verdict == "open" and f"that alice answered ({assurance}) is the gateway's word" in word.text


def with_passkey(*, challenge: bytes | None = None, signature: bytes = b"signed") -> str:
    claims = {"sub": "user:alice", "hold": "h_1", "act_s256": "a", "shown_s256": "s", "verdict": "approve"}
    asked = challenge_of({**claims, "reason": "looked at it"}, standing=False, nonce=NONCE)
    data = json.dumps({"challenge": b64url(challenge or asked)}).encode()
    proof = PasskeyProof(
        credential=CREDENTIAL, authenticator_data=b"a", client_data=data, signature=signature, nonce=NONCE
    )
    return statement(GATEWAY, assurance="passkey", proof=proof.to_json())


def registered(text: str, **other: Any) -> Records:
    digest = hashlib.sha256(PUBLIC).hexdigest()
    whose = {"person": "user:alice", "passkey": b64url(CREDENTIAL), "digest": digest, **other}
    return (*answered(text, GATEWAY, assurance="passkey"), record(3, "enrolment", **whose))


PASSKEYS = {b64url(CREDENTIAL): b64url(PUBLIC)}


def test_a_passkey_signed_exactly_what_the_statement_says() -> None:
    text, asked = with_passkey(), list[bytes]()
    signed, whose = found(registered(text), GATEWAY, asked=asked, verdicts=[text], passkeys=PASSKEYS)
    assert signed.verdict == whose.verdict == "verified" and "says that this passkey is alice's" in whose.text
    assert len(asked) == 1


@pytest.mark.parametrize(
    "text", [with_passkey(challenge=b"another"), with_passkey(signature=b"forged")], ids=["challenge", "signature"]
)
def test_a_passkeys_answer_to_something_else_is_wrong(text: str) -> None:
    assert "wrong" in verdicts_of(found(registered(text), GATEWAY, verdicts=[text], passkeys=PASSKEYS))


@pytest.mark.parametrize("other", [{"person": "user:bob"}, {"digest": "0" * 64}], ids=str)
def test_a_passkey_that_a_record_has_otherwise_is_wrong(other: dict[str, Any]) -> None:
    text = with_passkey()
    assert "wrong" in verdicts_of(found(registered(text, **other), GATEWAY, verdicts=[text], passkeys=PASSKEYS))


def test_a_passkey_or_a_key_that_nothing_is_signed_by_is_wrong() -> None:
    assert verdicts_of(found(answered(OWN, ALICE), ALICE, verdicts=[OWN], passkeys=PASSKEYS))[-1] == "wrong"
    assert verdicts_of(found(answered(OWN, ALICE), ALICE, OTHER, verdicts=[OWN]))[-1] == "wrong"


def test_a_key_that_is_there_twice_is_no_evidence() -> None:
    with pytest.raises(InputError, match="twice"):
        found(answered(OWN, ALICE), ALICE, ALICE, verdicts=[OWN])


def test_the_first_link_is_the_gateways_by_the_record_of_a_key_that_issues_and_of_no_other() -> None:
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)
    given = Given(
        id=uuid7(at, bytes(10)),
        holder=CODER.public,
        scope=parse_scopes("deploy"),
        tools=None,
        max_depth=1,
        issued_at=at,
        expires_at=at + timedelta(hours=1),
    )
    purpose = Purpose(subject="user:alice", subject_issuer="https://authz.example.com", session="s_1", purpose="test")
    chain = [sign_root(given, purpose, issuer="https://authz.example.com", key=GATEWAY)]
    made = record(1, "delegation", statement=verify_derived(chain)[-1].digest.hex())
    for use, verdict_ in (("issuer", "verified"), ("context", "open")):
        key = record(2, "administration", use=use, key=GATEWAY.public.thumbprint)
        _, whose = found((made, key), GATEWAY, links=[chain])
        assert whose.verdict == verdict_ and "the key of the first link is the gateway's" in whose.text


def test_what_was_shown_belongs_to_a_call_and_to_answers_that_records_are_of() -> None:
    def wrong(hold: str, said: str) -> str:
        bundle = {"hold": {"id": hold}, "verdicts": [{"statement": said}], "keys": {"gateway": {"kid": "x"}}}
        findings = found(answered(OWN, ALICE), ALICE, verdicts=[OWN], shown=[bundle])
        return next(one.text for one in findings if one.verdict == "wrong")

    assert "of a call that no record is of" in wrong("h_2", OWN)
    assert "a verdict that no record is of" in wrong("h_1", statement(ALICE, reason="another"))
