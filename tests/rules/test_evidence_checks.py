"""Signed links in a bundle: by whose keys they are, and that no character of them can be changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from mcp_authz.rules.evidence_checks import MEMBERS, check_evidence
from mcp_authz.rules.excerpt import Excerpted
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.link_id import uuid7
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import Given, Purpose, derive, sign_root, verify_derived
from mcp_authz.rules.verdict_checks import Finding

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
GATEWAY, PLANNER, CODER = (PrivateKey.generate() for _ in range(3))
PURPOSE = Purpose(subject="user:alice", subject_issuer="https://authz.example.com", session="s_1", purpose="test")


def given(number: int, holder: PrivateKey) -> Given:
    return Given(
        id=uuid7(AT, bytes([number]) * 10),
        holder=holder.public,
        scope=parse_scopes("deploy"),
        tools=None,
        max_depth=2,
        issued_at=AT,
        expires_at=AT + timedelta(hours=1),
    )


ROOT = sign_root(given(1, PLANNER), PURPOSE, issuer="https://authz.example.com", key=GATEWAY)
CHAIN = [ROOT, derive([ROOT], given(2, CODER), key=PLANNER)]


def record(sequence: int, kind: str, **fields: Any) -> Excerpted:
    return Excerpted(sequence=sequence, kind=kind, body={"fields": fields}, checkpoint=None)


RECORDS = (
    record(1, "enrolment", agent="agent:planner", key=PLANNER.public.thumbprint),
    record(3, "administration", use="issuer", key=GATEWAY.public.thumbprint),
    record(2, "delegation", **{"from": "agent:planner"}, statement=verify_derived(CHAIN)[-1].digest.hex()),
)


def found(links: list[str], *keys: PrivateKey) -> tuple[Finding, ...]:
    evidence = {
        **{name: {} if name == "passkeys" else [] for name in MEMBERS},
        "links": [links],
        "keys": [key.public.jwk for key in keys],
    }
    return check_evidence(RECORDS, evidence, lambda *_: None)


def test_signed_links_are_verified_from_the_record_of_the_last_one_up_to_the_gateways_key() -> None:
    chain, gateway, whose = found(CHAIN, GATEWAY)
    assert chain.verdict == "verified" and chain.text.startswith("2 signed links, root to leaf")
    assert gateway.verdict == "verified" and "says that the key of the first link" in gateway.text
    assert whose.verdict == "verified" and "this key is planner's" in whose.text


def test_no_character_of_a_link_can_be_changed_and_no_link_or_key_be_another() -> None:
    for number, link in enumerate(CHAIN):
        for at in range(len(link)):
            other = f"{link[:at]}{'A' if link[at] != 'A' else 'B'}{link[at + 1 :]}"
            changed = [other if one == number else kept for one, kept in enumerate(CHAIN)]
            assert "wrong" in {one.verdict for one in found(changed, GATEWAY)}, (number, at)
    assert "wrong" in {one.verdict for one in found(CHAIN[:1], GATEWAY)}
    assert "wrong" in {one.verdict for one in found(CHAIN)}
    assert "wrong" in {one.verdict for one in found(CHAIN, GATEWAY, CODER)}  # what nothing is signed by
