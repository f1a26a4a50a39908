"""A verdict bundle: one held call with every verdict on it, as one JSON object that verifies without the gateway.

docs/verdicts.md has the format, member by member. The gateway signs the whole; the verdicts are signed on their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mcp_authz.errors import InputError
from mcp_authz.model import ApprovalRule, Assurance, EndsWith, Hazard, HeldCall, HoldId, HoldState, ToolName, Verdict
from mcp_authz.principals import AgentName, Mode, PersonName, SessionId
from mcp_authz.rules import jose
from mcp_authz.rules.canonical import digest_b64url
from mcp_authz.rules.display import displayed
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.verdict import word

FORMAT: Final = "mcp-authz verdict bundle 1"
TYP: Final = "approval-bundle+jwt"
MEMBERS: Final = ("format", "gateway", "hold", "action", "displayed", "verdicts", "keys", "records", "signature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One verdict as it goes into a bundle, with what the gateway knew when it was given."""

    verdict: Verdict
    meets: tuple[str, ...]  # the rules that it counted for
    pattern: Mapping[str, Any] | None = None  # of the standing approval that it is of


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Every public key that it takes."""

    gateway: PublicKey
    approvers: Mapping[PersonName, tuple[PublicKey, ...]] = field(default_factory=dict)
    passkeys: Mapping[bytes, bytes] = field(default_factory=dict)  # credential id -> COSE_Key


def make_bundle(
    held: HeldCall,
    given: Sequence[Given],
    *,
    keys: Keys,
    gateway: str,
    records: Iterable[Mapping[str, Any]],
    key: PrivateKey,
    at: datetime,
) -> dict[str, Any]:
    """Return the bundle of this hold; `gateway` is its public URL, `key` the one that it signs verdicts with."""
    made = {
        "format": FORMAT,
        "gateway": gateway,
        "hold": _hold(held),
        "action": {**held.bound, "arguments": dict(held.arguments)},
        "displayed": displayed(held),
        "verdicts": [_verdict(one, keys) for one in given],
        "keys": {
            "gateway": jwk(keys.gateway),
            "approvers": {person: [jwk(key) for key in theirs] for person, theirs in keys.approvers.items()},
            "passkeys": {b64url(credential): b64url(public) for credential, public in keys.passkeys.items()},
        },
        "records": [dict(record) for record in records],
    }
    claims = {"hold": held.id, "s256": digest_b64url(made), "iat": int(at.timestamp())}
    return {**made, "signature": jose.sign(claims, typ=TYP, key=key, kid=key.public.thumbprint)}


def jwk(key: PublicKey) -> dict[str, str]:
    """The key as a member of a JWK Set (RFC 7517); its id is its thumbprint (RFC 7638)."""
    return {**key.jwk, "kid": key.thumbprint, "use": "sig", "alg": "EdDSA"}


def read_jwk(member: Mapping[str, Any]) -> PublicKey:
    """Return the key that `jwk` wrote.

    Raises:
        KeyRefused, InputError: it did not write this.
    """
    key = PublicKey.from_jwk(member)
    if dict(member) != jwk(key):
        raise InputError("a key of the bundle is not written as a key of verdicts is")
    return key


def _hold(held: HeldCall) -> dict[str, Any]:
    return {
        "id": held.id,
        "state": held.state.value,
        "tool": held.tool,
        "server": held.server,
        "hazard": held.hazard.value,
        "session": held.session,
        "purpose": held.purpose,
        "subject": held.subject,
        "owner": held.owner,
        "actor": held.actor,
        "chain": list(held.chain),
        "mode": held.mode.value,
        "interactive": held.interactive,
        "rules": [
            {
                "name": rule.name,
                "by": list(rule.by),
                "quorum": rule.quorum,
                "outside_chain": rule.outside_chain,
                "assurance": rule.assurance.label,
                "expires_seconds": int(rule.expires.total_seconds()),
                "reason": rule.reason,
            }
            for rule in held.rules
        ],
        "asked_at": timestamp(held.asked_at),
        "expires_at": timestamp(held.expires_at),
        "ends_with": held.ends_with,
        "ended_at": None if held.ended_at is None else timestamp(held.ended_at),
    }


def _verdict(given: Given, keys: Keys) -> dict[str, Any]:
    it = given.verdict
    return {
        "person": it.person,
        "verdict": word(it),
        "assurance": it.assurance.label,
        "reason": it.reason,
        "terms": dict(it.terms),
        "given_at": timestamp(it.given_at),
        "signed_by": "gateway" if it.signed_by == keys.gateway.thumbprint else "approver",
        "meets": list(given.meets),
        "standing": None if it.standing is None else {"id": it.standing, "pattern": given.pattern},
        "statement": it.statement,
    }


def read_hold(bundle: Mapping[str, Any]) -> HeldCall:
    """Return the held call that a bundle describes, without its verdicts; nothing of it is verified by that.

    Raises:
        InputError: a member is missing, or is no such value.
    """
    try:
        hold, action = bundle["hold"], bundle["action"]
        ends_with: EndsWith = hold["ends_with"]
        return HeldCall(
            id=HoldId(_text(hold["id"])),
            state=HoldState(hold["state"]),
            digest=b"",
            tool=ToolName(_text(hold["tool"])),
            server=_text(hold["server"]),
            arguments=dict(action["arguments"]),
            hazard=Hazard(hold["hazard"]),
            session=SessionId(_text(hold["session"])),
            purpose=_text(hold["purpose"]),
            subject=PersonName(_text(hold["subject"])),
            owner=PersonName(_text(hold["owner"])),
            actor=AgentName(_text(hold["actor"])),
            chain=tuple(AgentName(_text(name)) for name in hold["chain"]),
            interactive=bool(hold["interactive"]),
            rules=tuple(_rule(rule) for rule in hold["rules"]),
            asked_at=read_time(hold["asked_at"]),
            expires_at=read_time(hold["expires_at"]),
            ended_at=None if hold["ended_at"] is None else read_time(hold["ended_at"]),
            ends_with=ends_with,
            mode=Mode(hold["mode"]),
            bound={name: value for name, value in action.items() if name != "arguments"},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the bundle's hold cannot be read: {error}") from None


def _rule(rule: Mapping[str, Any]) -> ApprovalRule:
    return ApprovalRule(
        name=_text(rule["name"]),
        by=tuple(_text(by) for by in rule["by"]),
        quorum=int(rule["quorum"]),
        outside_chain=bool(rule["outside_chain"]),
        assurance=read_assurance(rule["assurance"]),
        expires=timedelta(seconds=rule["expires_seconds"]),
        reason=bool(rule["reason"]),
    )


def read_assurance(label: str) -> Assurance:
    """Return the assurance with this label.

    Raises:
        KeyError: there is none.
    """
    return {one.label: one for one in Assurance}[label]


def read_time(text: str) -> datetime:
    """Return the time that `rules.log.timestamp` wrote.

    Raises:
        ValueError: it did not write this.
    """
    at = datetime.fromisoformat(text).astimezone(UTC)
    if timestamp(at) != text:
        raise ValueError(f"`{text}` is no time of the log")
    return at


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value
