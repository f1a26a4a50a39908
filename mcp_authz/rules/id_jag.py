"""Identity assertion grants: what a company's provider says of a person to this gateway, and when it is believed.

The form is that of draft-ietf-oauth-identity-assertion-authz-grant section 3 (on RFC 7523), as narrowed by MCP's
extension `io.modelcontextprotocol/enterprise-managed-authorization`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import ScopeError, SignatureRefused
from mcp_authz.principals import Authentication, Thumbprint
from mcp_authz.rules import jose
from mcp_authz.rules.assertion_keys import AssertionKeys, read_signed, require_key
from mcp_authz.rules.scope import Scope, parse_scopes

TYP: Final = "oauth-id-jag+jwt"

_UNSUPPORTED: Final = ("act", "authorization_details")
"""Claims that say that somebody else acts, or that less is given: to read past them would give more than was meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an assertion must say of where it is from, for whom, and by which client it may be used."""

    issuer: str  # of the provider
    audience: str  # our own issuer identifier
    resource: str  # the one that we issue tokens for
    client: str  # as the provider calls the client that has proved itself
    tenant: str | None  # of the provider, where it has many


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityAssertion:
    """An assertion whose signature, type, issuer, audience, client and times have been checked."""

    id: str  # `jti`: it counts once
    issuer: str
    subject: str  # `sub`
    scope: frozenset[Scope] | None  # None: the provider does not say
    names_resource: bool
    authentication: Authentication | None  # None: the provider does not say when the person signed in
    confirmation: Thumbprint | None  # the key whose proof must come with it
    issued_at: datetime
    expires_at: datetime
    claims: Mapping[str, Any] = field(repr=False)  # all of them: who the person is


def read_assertion(text: str, *, keys: AssertionKeys, expected: Expected, now: datetime) -> IdentityAssertion:
    """Return the assertion, once it is known to be the provider's, for us, for this client, and in time.

    Claims that are not known are ignored.

    Raises:
        SignatureRefused: it is not, or says something that would have to be honoured and cannot be.
    """
    unverified = read_signed(text)
    claims = unverified.verify(require_key(unverified, keys), typ=TYP)
    _require_meant(claims, expected)
    issued_at, expires_at = jose.require_times(
        claims, now=now, skew=limits.CLOCK_SKEW, max_lifetime=limits.IDENTITY_ASSERTION_LIFETIME
    )
    return IdentityAssertion(
        id=jose.require_text(claims, "jti", limits.ID_CHARACTERS),
        issuer=expected.issuer,
        subject=jose.require_text(claims, "sub", limits.ID_CHARACTERS),
        scope=_scope(claims),
        names_resource="resource" in claims,
        authentication=_authentication(claims, expected.issuer, now),
        confirmation=_confirmation(claims),
        issued_at=issued_at,
        expires_at=expires_at,
        claims=claims,
    )


def _require_meant(claims: Mapping[str, Any], expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise SignatureRefused("it is from another issuer")
    if claims.get("aud") not in (expected.audience, [expected.audience]):  # section 4.4.1: exactly one
        raise SignatureRefused("it is for another audience")
    if claims.get("client_id") != expected.client:
        raise SignatureRefused("it is for another client")
    if "resource" in claims and not _names(claims["resource"], expected.resource):
        raise SignatureRefused("it is for another resource")
    if claims.get("tenant") != expected.tenant:  # `sub` is unique within a tenant only (section 6.3)
        raise SignatureRefused("it is of another tenant of the provider")
    for name in _UNSUPPORTED:
        if name in claims:
            raise SignatureRefused(f"it has the claim `{name}`, which cannot be honoured here")


def _names(resource: object, ours: str) -> bool:
    """Whether this names our resource; several may be named, and ours is all that we give (RFC 8707 section 2)."""
    return resource == ours or (isinstance(resource, list) and ours in resource)


def _scope(claims: Mapping[str, Any]) -> frozenset[Scope] | None:
    if "scope" not in claims:
        return None
    value = claims["scope"]
    if not isinstance(value, str) or len(value) > limits.TOKEN_BYTES:
        raise SignatureRefused("claim `scope` is not text of a sensible length")
    try:
        return parse_scopes(value)
    except ScopeError as error:
        raise SignatureRefused(f"claim `scope` cannot be read: {error}") from None


def _authentication(claims: Mapping[str, Any], issuer: str, now: datetime) -> Authentication | None:
    """How and when the person signed in at the provider; `iat` says nothing of that."""
    amr = claims.get("amr", [])
    if not isinstance(amr, list) or len(amr) > limits.AMR or not all(isinstance(one, str) for one in amr):
        raise SignatureRefused("claim `amr` is not a short list of words")
    if any(len(one) > limits.AMR_CHARACTERS for one in amr):
        raise SignatureRefused("claim `amr` has a word that is too long")
    if "auth_time" not in claims:
        return None
    at = jose.require_time(claims, "auth_time")
    if at > now + limits.CLOCK_SKEW:
        raise SignatureRefused("the person signed in in the future; compare the clocks")
    return Authentication(at=min(at, now), amr=tuple(amr), issuer=issuer)


def _confirmation(claims: Mapping[str, Any]) -> Thumbprint | None:
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or confirmation.keys() != {"jkt"}:
        raise SignatureRefused("it is bound to a key in a way that cannot be checked here")
    return Thumbprint(jose.require_text(confirmation, "jkt"))
