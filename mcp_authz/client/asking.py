"""Asking an authorization server for a token or a chain: which forms are sent, signed and bound, what answers say.

RFC 6749 section 4.4 and RFC 8693 for the grants, RFC 7523 for the client's assertion, RFC 9449 section 5 for the
proof that binds a token to the agent's key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2

from mcp_authz import limits
from mcp_authz.client.sign_in import ASSERTION_TYPE, SECONDS, Door, NoAnswer, SignInRefused
from mcp_authz.client.talk import Ask, Talk
from mcp_authz.ids import new_id
from mcp_authz.rules import dpop, jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.signed_link import parse_chain, read_unverified

Clock = Callable[[], datetime]

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - RFC 8693 section 3
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_SKEW: Final = limits.CLOCK_SKEW.total_seconds()
_ASK: Final = "ask who delegated it for a new one"
NONCE: Final = "dpop-nonce"
USE_NONCE: Final = "use_dpop_nonce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """Who asks, what for, and at what time it is: an agent with its key, for one gateway, at its issuer."""

    name: str
    key: PrivateKey = field(repr=False)
    door: Door
    resource: str  # the gateway's URL; the server gives no token for another one (RFC 8707)
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A token response: an access token, and what it is for as far as the gateway says so."""

    access: str = field(repr=False)
    kind: str  # `DPoP` or `Bearer`
    began_at: datetime
    ends_at: datetime
    scope: frozenset[str]
    session: str | None = None
    subject: str | None = None
    link: str | None = None


def own_session(who: Applicant, claims: Mapping[str, str], scope: str | None) -> Talk[Granted]:
    """The talk that signs in with the agent's own key; `claims` say which session is meant.

    Raises:
        SignInRefused: the gateway does not let the agent in.
        NoAnswer: what answers is no authorization server, or cannot answer now.
    """
    form = {"grant_type": "client_credentials"}
    return _granted(who, (yield from _asked(who, _scoped(form, scope), claims)))


def redeemed(who: Applicant, chain: str, scope: str | None) -> Talk[Granted]:
    """The talk that makes a token of a signed chain whose last link was given to this key.

    Raises:
        SignInRefused: the chain has ended, or the gateway does not take it, or not from this agent.
        NoAnswer: as above.
    """
    ended_at = read_unverified(parse_chain(chain))[-1].expires_at
    if who.clock() >= ended_at:
        raise SignInRefused(f"the chain of agent `{who.name}` ended at {ended_at:%Y-%m-%d %H:%M:%S} UTC; {_ASK}")
    form = {"grant_type": _EXCHANGE, "subject_token": chain, "subject_token_type": _JWT}
    return _granted(who, (yield from _asked(who, _scoped(form, scope), {})))


def signed_chain(who: Applicant, token: Granted) -> Talk[str]:
    """The talk that fetches the signed chain of the session which the agent's own token is for.

    Raises:
        SignInRefused: the token is for no session that could be delegated.
        NoAnswer: as above.
    """
    form = {
        "grant_type": _EXCHANGE,
        "subject_token": token.access,
        "subject_token_type": _ACCESS_TOKEN,
        "requested_token_type": _JWT,
    }
    return str((yield from _asked(who, form, {}))["access_token"])


def proof(who: Applicant, method: str, url: str, *, token: str | None = None, nonce: str | None = None) -> str:
    """Return a proof, good for one request, that the agent's key is here (RFC 9449 section 4.2)."""
    return dpop.make_proof(
        who.key, method=method, url=url, at=who.clock(), id=new_id("d"), access_token=token, nonce=nonce
    )


def _asked(who: Applicant, form: Mapping[str, str], claims: Mapping[str, str]) -> Talk[dict[str, Any]]:
    answer = yield _posted(who, form, claims, None)
    nonce = answer.headers.get(NONCE)
    if nonce is not None and _error(answer) == USE_NONCE:  # RFC 9449 section 8
        answer = yield _posted(who, form, claims, nonce)
    return _body(who, form, answer)


def _posted(who: Applicant, form: Mapping[str, str], claims: Mapping[str, str], nonce: str | None) -> Ask:
    url = who.door.token_url  # as it is published, however HTTP gets there
    signed = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": _assertion(who, claims)}
    return Ask(
        url=who.door.token_endpoint,
        form={**form, **signed, "resource": who.resource},
        headers={"dpop": proof(who, "POST", url, nonce=nonce)},
    )


def _assertion(who: Applicant, more: Mapping[str, str]) -> str:
    now = who.clock()
    claims = {
        "iss": who.name,
        "sub": who.name,
        "aud": who.door.issuer,
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + SECONDS,
        "jti": new_id("a"),
    }
    return jose.sign({**claims, **more}, typ="JWT", key=who.key)


def _body(who: Applicant, form: Mapping[str, str], answer: httpx2.Response) -> dict[str, Any]:
    body = _json(answer)
    if body is None or answer.status_code >= 500 or answer.status_code in range(300, 400):
        raise NoAnswer(f"the gateway at {who.door.issuer} cannot sign anybody in now")
    if answer.status_code != 200 or not isinstance(body.get("access_token"), str):
        error, description = str(body.get("error")), str(body.get("error_description") or "no reason")
        why = _why(who.name, error, description, by_chain=form.get("subject_token_type") == _JWT)
        raise SignInRefused(f"{why}{_clocks(who, answer)}")
    return body


def _clocks(who: Applicant, answer: httpx2.Response) -> str:
    """What is signed has to be of now: clocks that differ are said to, when something was refused."""
    try:
        ahead = who.clock() - parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError):
        return ""
    seconds = abs(int(ahead.total_seconds()))
    return f"; the clocks here and there differ by {seconds} seconds" if seconds > _SKEW else ""


def _why(agent: str, error: str, description: str, *, by_chain: bool) -> str:
    if by_chain:
        return f"the gateway does not take the chain of agent `{agent}` ({error}: {description}); {_ASK}"
    if error == "invalid_client":
        advice = f"`mcp-authz agent show {agent}` says whether it is enrolled, active and has this key"
        return f"the gateway does not let agent `{agent}` sign in; ask the operator: {advice}"
    return f"the gateway gave agent `{agent}` no token ({error}: {description})"


def _granted(who: Applicant, body: Mapping[str, Any]) -> Granted:
    now, kind, seconds = who.clock(), str(body.get("token_type", "")), body.get("expires_in")
    if kind.lower() != "dpop":  # RFC 9449 section 5: anybody could use one that is not bound
        raise SignInRefused(f"the gateway at {who.door.issuer} gave a token that is not bound to the agent's key")
    lasts = float(seconds) if isinstance(seconds, int | float) else 0.0
    return Granted(
        access=str(body["access_token"]),
        kind="DPoP",
        began_at=now,
        ends_at=now + timedelta(seconds=lasts),
        scope=frozenset(str(body.get("scope", "")).split()),
        session=_text(body.get("session")),
        subject=_text(body.get("subject")),
        link=_text(body.get("link")),
    )


def _scoped(form: Mapping[str, str], scope: str | None) -> Mapping[str, str]:
    return form if scope is None else {**form, "scope": scope}


def _error(answer: httpx2.Response) -> str | None:
    return _text((_json(answer) or {}).get("error"))


def _json(answer: httpx2.Response) -> dict[str, Any] | None:
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
