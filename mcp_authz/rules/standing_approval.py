"""A standing approval: by one signed statement a person approves a held call, and the next few that are like it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from mcp_authz import limits
from mcp_authz.errors import ConstraintError, InputError, SignatureRefused
from mcp_authz.model import ApprovalRule, Assurance, HeldCall, HoldId, StandingId
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose, session_request
from mcp_authz.rules.canonical import canonical, digest
from mcp_authz.rules.constraint import Constraint, Exact, OneOf, Under, Wildcard, parse_constraint
from mcp_authz.rules.constraint_kinds import literal, value_of
from mcp_authz.rules.display import displayed_digest, shown_name, visible
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, equal

TYP: Final = "standing-approval+jwt"
CHALLENGE: Final = b"mcp-authz standing approval challenge 1\x00"  # no answer to one call alone passes for this
_KINDS: Final = (Exact, OneOf, Under, Wildcard)
_SHORT: Final = 80  # characters of a value that stays the same; a longer one stands in the call above


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Calls that differ from one held call in nothing but the arguments that its approver freed.

    `bound` is what `rules.binding.action_statement` binds of a call, all but its arguments.
    """

    bound: Mapping[str, Any]
    arguments: Mapping[str, Constraint]  # every argument that the call has

    def to_json(self) -> dict[str, Any]:
        """The pattern as it is kept; `parse_pattern` reads it back."""
        arguments = {name: constraint.to_json() for name, constraint in self.arguments.items()}
        return {"bound": dict(self.bound), "arguments": arguments}


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingTerms:
    """What a person is asked to sign: how many calls of which pattern, until when, towards which rules."""

    id: StandingId
    hold: HoldId  # the call that it was made from, which it approves too
    person: PersonName
    pattern: Pattern
    rules: tuple[ApprovalRule, ...]
    most: int  # further calls
    expires_at: datetime  # whole seconds
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingApproval:
    """Signed terms, and how much of them is left."""

    terms: StandingTerms
    assurance: Assurance
    statement: str
    signed_by: str  # thumbprint of the key that signed: the person's, or the gateway's
    given_at: datetime
    passkey: bytes | None = None  # the credential that it was given with
    used: int = 0
    status: Literal["active", "revoked"] = "active"

    def is_over(self, at: datetime) -> bool:
        """Whether no call can use it at `at`, by what it says itself."""
        return self.status != "active" or self.used >= self.terms.most or at >= self.terms.expires_at


def make_pattern(action: Mapping[str, Any], freed: Mapping[str, Constraint]) -> Pattern:
    """Return the pattern of calls like the one with this action statement, whose `freed` arguments may differ.

    Raises:
        InputError: the call has no such argument, or its own value would not pass.
    """
    arguments: Mapping[str, Any] = action["arguments"]
    for name, constraint in freed.items():
        if name not in arguments:
            raise InputError(f"the call has no argument `{visible(name)}`; only what it has can be freed")
        if not isinstance(constraint, _KINDS):
            raise InputError(f"`{visible(name)}` can be the same, any, one of a list, or below a path")
        if not constraint.permits(arguments[name]):
            raise InputError(f"`{visible(name)}` must allow the value that this call has too")
    made = {name: freed.get(name) or Exact(value=literal(value)) for name, value in arguments.items()}
    pattern = Pattern(bound={name: value for name, value in action.items() if name != "arguments"}, arguments=made)
    if sum(len(_permitted(one)) for one in freed.values()) > limits.STANDING_SHOWN:
        raise InputError(f"the lists are longer than {limits.STANDING_SHOWN} characters; name fewer values")
    return pattern


def parse_pattern(kept: Mapping[str, Any]) -> Pattern:
    """Return the pattern that `Pattern.to_json` wrote.

    Raises:
        ConstraintError: it was not.
    """
    arguments = {name: parse_constraint(one) for name, one in kept["arguments"].items()}
    if not all(isinstance(one, _KINDS) for one in arguments.values()):
        raise ConstraintError("a standing approval has a constraint of a kind that it cannot have")
    return Pattern(bound=kept["bound"], arguments=arguments)


def read_freed(value: Any) -> Constraint:
    """Return what an argument may be by somebody's choice, as constraints are written.

    Raises:
        InputError: it is none that can be chosen.
    """
    try:
        constraint = parse_constraint(value)
    except ConstraintError as error:
        raise InputError(str(error)) from None
    if not isinstance(constraint, _KINDS):
        raise InputError("an argument can be the same, any, one of a list, or below a path")
    return constraint


def fits(pattern: Pattern, action: Mapping[str, Any]) -> bool:
    """Whether the call with this action statement is one that the pattern is about.

    A member that the pattern does not bind, or an argument that it does not have, fits nothing.
    """
    arguments = action.get("arguments")
    bound = {name: value for name, value in action.items() if name != "arguments"}
    if not isinstance(arguments, Mapping) or canonical(bound) != canonical(dict(pattern.bound)):
        return False
    if arguments.keys() != pattern.arguments.keys():
        return False
    return all(constraint.permits(arguments[name]) for name, constraint in pattern.arguments.items())


def captured(pattern: Pattern, approved: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that run: what stayed the same as it was captured and approved, the rest as it is asked.

    RFC 8785 calls 1 and 1.0 the same value; a tool server may see a difference that nobody was shown.
    """
    same = {name for name, constraint in pattern.arguments.items() if isinstance(constraint, Exact)}
    return {name: approved[name] if name in same else value for name, value in asked.items()}


def may_stand(held: HeldCall) -> bool:
    """Whether a standing approval can be made from this call: a request for a session is judged each time."""
    return held.tool != session_request.NAME and bool(held.session)


def counts_towards(terms: StandingTerms, rules: tuple[ApprovalRule, ...]) -> bool:
    """Whether its person has agreed to stand for these rules: a rule that was not shown to them is none of theirs."""
    return {rule.name for rule in rules} <= {rule.name for rule in terms.rules}


def sentence(terms: StandingTerms) -> str:
    """What is permitted, in one sentence with nothing hidden in it."""
    pattern, calls = terms.pattern, "call" if terms.most == 1 else f"{terms.most} calls"
    actor = str(pattern.bound["actor"]).removeprefix("agent:")
    tool = visible(f"{pattern.bound['server']}__{pattern.bound['tool']}")
    arguments = [f"{shown_name(name)} {_permitted(constraint)}" for name, constraint in pattern.arguments.items()]
    said = ", ".join(arguments or ["without arguments"])
    until = f"until {terms.expires_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f"the next {calls} of {tool} by {actor} in this session, {said}, {until}"


def _permitted(constraint: Constraint) -> str:
    match constraint:
        case Exact(value=value):
            shown = _shown(value)
            return f"exactly {shown}" if len(shown) <= _SHORT else "exactly as in this call"
        case OneOf(values=values):
            return f"one of {' or '.join(_shown(value) for value in sorted(values))}"
        case Under():
            return f"below {visible(json.dumps(constraint.to_json()['root'], ensure_ascii=False))}"
        case _:
            return "any"


def _shown(spelling: bytes) -> str:
    return visible(json.dumps(value_of(spelling), ensure_ascii=False))


def make_statement(
    terms: StandingTerms,
    held: HeldCall,
    *,
    assurance: Assurance,
    at: datetime,
    key: PrivateKey,
    proof: Mapping[str, Any] | None = None,
) -> str:
    """Return the compact JWS, `typ` `standing-approval+jwt`, by which `key` says what the person approved.

    No argument stands in it, only digests: it goes into the log. `proof` is as in `rules.verdict.make_statement`.
    """
    claims = {
        **_said(terms, held),
        "assurance": assurance.label,
        "iat": int(at.timestamp()),
        **({"proof": dict(proof)} if proof else {}),
    }
    return jose.sign(claims, typ=TYP, key=key, kid=key.public.thumbprint)


def read_statement(
    statement: str,
    *,
    terms: StandingTerms,
    held: HeldCall,
    assurance: Assurance,
    keys: Mapping[str, PublicKey],
    now: datetime | None,
) -> str:
    """Return the thumbprint of the key that signed, once these are known to be the terms that it signed.

    `held` is the call that they were made from; without `now` it may have been signed at any time, as when it is
    verified later.

    Raises:
        SignatureRefused: another type, key or person, other terms, another hold or display, or not signed just now.
    """
    unverified = jose.read(statement)
    key = keys.get(str(unverified.header.get("kid")))
    if key is None:
        raise SignatureRefused("standing approval is not signed by a key of the approver")
    claims = unverified.verify(key, typ=TYP)
    for name, value in {**_said(terms, held), "assurance": assurance.label}.items():
        if name not in claims or not equal(canonical(claims[name]), canonical(value)):
            raise SignatureRefused(f"standing approval is about something else: `{name}` differs")
    issued = claims.get("iat")
    if isinstance(issued, bool) or not isinstance(issued, int):
        raise SignatureRefused("standing approval does not say when it was given")
    if now is not None and abs(now.timestamp() - issued) > limits.CLOCK_SKEW.total_seconds():
        raise SignatureRefused("standing approval was not signed just now; check the clock and sign again")
    return key.thumbprint


def standing_challenge(terms: StandingTerms, held: HeldCall, *, nonce: bytes) -> bytes:
    """Return what a passkey signs by which the person gives exactly this: a SHA-256, 32 bytes."""
    return hashlib.sha256(CHALLENGE + canonical({**_said(terms, held), "nonce": b64url(nonce)})).digest()


def _said(terms: StandingTerms, held: HeldCall) -> dict[str, Any]:
    return {
        "sub": f"user:{terms.person}",
        "standing": terms.id,
        "verdict": "approve",
        "hold": held.id,
        "act_s256": b64url(held.digest),
        "shown_s256": b64url(displayed_digest(held)),
        "pattern_s256": b64url(digest(terms.pattern.to_json())),
        "permits_s256": b64url(hashlib.sha256(sentence(terms).encode()).digest()),
        "rules": [_rule(rule) for rule in terms.rules],
        "calls": terms.most,
        "exp": int(terms.expires_at.timestamp()),
        "reason": terms.reason,
    }


def _rule(rule: ApprovalRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "by": list(rule.by),
        "quorum": rule.quorum,
        "outside_chain": rule.outside_chain,
        "assurance": rule.assurance.label,
        "reason": rule.reason,
    }
