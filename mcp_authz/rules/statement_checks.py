"""One verdict of a bundle against its signed statement: who signed, over which call and display, and by what proof."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_authz import limits
from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.model import HeldCall
from mcp_authz.rules import jose, standing_approval, verdict
from mcp_authz.rules.canonical import canonical, digest
from mcp_authz.rules.keys import PublicKey, b64url, unb64url
from mcp_authz.rules.standing_approval import fits, parse_pattern
from mcp_authz.rules.verdict import PasskeyProof
from mcp_authz.rules.verdict_bundle import read_time

PasskeyCheck = Callable[[PasskeyProof, bytes, bytes], None]
"""Whether this public key (COSE_Key) signed this challenge, its user verified; raises SignatureRefused if not."""

_BY_GATEWAY = frozenset({"client", "client-other", "signed-in", "passkey"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A verdict as the bundle has it, and what its statement has to be over."""

    held: HeldCall
    said: Mapping[str, Any]
    act_s256: str
    shown_s256: str
    keys: Mapping[str, PublicKey]  # of whoever is said to have signed, by thumbprint
    passkeys: Mapping[bytes, bytes]


def check_statement(it: Statement, passkey: PasskeyCheck) -> tuple[str, ...]:
    """Return what could not be verified of this verdict; everything else of it is as the statement says.

    Raises:
        SignatureRefused, InputError: it is not.
    """
    unverified = jose.read(str(it.said["statement"]))
    key = it.keys.get(str(unverified.header.get("kid")))
    if key is None:
        raise SignatureRefused("it is not signed by a key of whoever is said to have signed it")
    standing = it.said["standing"]
    claims = unverified.verify(key, typ=verdict.TYP if standing is None else standing_approval.TYP)
    _require_said(it, claims)
    open_ = _require_standing(it, claims) if standing is not None else _require_call(it, claims)
    return (*open_, *_require_proof(it, claims, passkey))


def _require_said(it: Statement, claims: Mapping[str, Any]) -> None:
    said = it.said
    same = {
        "sub": f"user:{said['person']}",
        "verdict": said["verdict"],
        "assurance": said["assurance"],
        "reason": said["reason"],
    }
    for name, value in same.items():
        if claims.get(name) != value:
            raise SignatureRefused(f"`{name}` is not what was signed")
    if canonical(claims.get("terms", {})) != canonical(said["terms"]):
        raise SignatureRefused("`terms` are not what was signed")
    given, skew = read_time(said["given_at"]).timestamp(), limits.CLOCK_SKEW.total_seconds() + 1
    if abs(given - int(claims["iat"])) > skew:
        raise SignatureRefused("`given_at` is not when it was signed")
    if said["standing"] is None and not it.held.asked_at.timestamp() <= given <= it.held.expires_at.timestamp():
        raise SignatureRefused("the call did not wait when it was signed")
    if said["signed_by"] not in {"approver", "gateway"}:
        raise SignatureRefused("`signed_by` is unknown")
    if said["signed_by"] == "approver" and said["assurance"] != "signed-in":
        raise SignatureRefused("a key of the approver's own shows `signed-in`, no more and no less")
    if said["assurance"] not in _BY_GATEWAY:
        raise SignatureRefused("`assurance` is unknown")


def _require_call(it: Statement, claims: Mapping[str, Any]) -> tuple[str, ...]:
    if claims.get("hold") != it.held.id:
        raise SignatureRefused("it is about another hold")
    if claims.get("shown_s256") != it.shown_s256:
        raise SignatureRefused("what was displayed then is not the displayed text")
    if not it.held.bound:
        return (f"that {it.said['person']} was asked about this action: its statement was not kept",)
    if claims.get("act_s256") != it.act_s256:
        raise SignatureRefused("the action is not the one that was signed")
    return ()


def _require_standing(it: Statement, claims: Mapping[str, Any]) -> tuple[str, ...]:
    """A standing approval is of the call that it was given for, and of those that fit its pattern."""
    standing = it.said["standing"]
    if claims.get("standing") != standing["id"] or claims.get("pattern_s256") != b64url(digest(standing["pattern"])):
        raise SignatureRefused("the pattern is not the one that was signed")
    if not fits(parse_pattern(standing["pattern"]), {**it.held.bound, "arguments": it.held.arguments}):
        raise SignatureRefused("the call does not fit the pattern")
    if it.held.asked_at.timestamp() > int(claims["exp"]):
        raise SignatureRefused("the standing approval had ended when the call was made")
    mine = {rule["name"] for rule in claims["rules"]}
    if not mine.issuperset(it.said["meets"]):
        raise SignatureRefused("it was given for other rules")
    if claims.get("hold") == it.held.id:
        return _require_call(it, claims)
    return (f"how many calls used standing approval {standing['id']} before, and what was displayed when it was given",)


def _require_proof(it: Statement, claims: Mapping[str, Any], passkey: PasskeyCheck) -> tuple[str, ...]:
    """How the gateway knew, where it is who signs."""
    person, proof = it.said["person"], claims.get("proof", {})
    if it.said["assurance"] == "passkey":
        shown = read_proof(proof)
        public = it.passkeys.get(shown.credential)
        if public is None:
            raise SignatureRefused("the passkey's public key is not in the bundle")
        challenge = challenge_of(claims, standing=it.said["standing"] is not None, nonce=shown.nonce)
        verdict.require_challenge(shown, challenge)
        passkey(shown, public, challenge)
        return (f"that the passkey is {person}'s is the gateway's word",)
    if it.said["signed_by"] == "approver":
        return ()
    return (f"that {person} answered ({it.said['assurance']}) is the gateway's word",)


def read_proof(proof: Any) -> PasskeyProof:
    """Return the passkey's answer that the claim `proof` has.

    Raises:
        SignatureRefused: it has none.
    """
    try:
        if proof["type"] != "webauthn":
            raise InputError("it is of another type")
        names = ("credential", "authenticator_data", "client_data", "signature", "nonce")
        return PasskeyProof(**{name: unb64url(proof[name]) for name in names})
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise SignatureRefused(f"there is no answer of a passkey: {error}") from None


def challenge_of(claims: Mapping[str, Any], *, standing: bool, nonce: bytes) -> bytes:
    """What the passkey was asked, made again of what the statement says (`rules.verdict.approval_challenge`)."""
    if not standing:
        names = ("sub", "hold", "act_s256", "shown_s256", "verdict", "reason")
        asked = {**{name: claims[name] for name in names}, "terms": claims.get("terms", {})}
        prefix = verdict.CHALLENGE
    else:
        asked = {name: value for name, value in claims.items() if name not in {"assurance", "iat", "proof"}}
        prefix = standing_approval.CHALLENGE
    return hashlib.sha256(prefix + canonical({**asked, "nonce": b64url(nonce)})).digest()
