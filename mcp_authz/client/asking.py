"""Asking an authorization server for a token or a chain: which forms are sent, signed and bound, what answers say.

RFC 6749 section 4.4 and RFC 8693 for the grants, RFC 7523 for the client's assertion, RFC 9449 section 5 for the
proof that binds a token to the agent's key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2

from mcp_authz import limits
from mcp_authz.client.door import Door, NoAnswer, SignInRefused
from mcp_authz.client.granted import Granted, read_granted
from mcp_authz.client.possession import USE_NONCE, Possession
from mcp_authz.client.talk import Ask, Talk, json_object
from mcp_authz.ids import new_id
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.signed_link import parse_chain, read_unverified

Clock = Callable[[], datetime]

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SECONDS: Final = 60  # how long the assertion lives; it is used at once
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - RFC 8693 section 3
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_SKEW: Final = limits.CLOCK_SKEW.total_seconds()
_ASK: Final = "ask who delegated it for a new one"


def now() -> datetime:
    """Return the time by this machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """Who asks, what for, and at what time it is: an agent with its key, at the door of one gateway."""

    name: str
    key: PrivateKey = field(repr=False)
    door: Door
    resource: str | None = None  # the gateway's URL, so that the server gives no token for another one (RFC 8707)
    clock: Clock = now
    possession: Possession | None = field(default_factory=Possession)  # None asks for a token that is not bound
    takes_unbound: bool = False  # a gateway of before binds none


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


def asserted(who: Applicant, more: Mapping[str, str]) -> dict[str, str]:
    """The form members that prove, once and for a minute, that the agent's key is here (RFC 7523 section 3)."""
    at = int(who.clock().timestamp())
    claims = {"iss": who.name, "sub": who.name, "aud": who.door.issuer, "iat": at, "exp": at + _SECONDS}
    signed = jose.sign({**claims, "jti": new_id("a"), **more}, typ="JWT", key=who.key)
    return {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": signed}


def _asked(who: Applicant, form: Mapping[str, str], claims: Mapping[str, str]) -> Talk[dict[str, Any]]:
    for _ in range(2):
        answer = yield _posted(who, form, claims)
        heard = who.possession is not None and who.possession.heard(who.door.token_url, answer.headers)
        if not heard or (json_object(answer) or {}).get("error") != USE_NONCE:  # RFC 9449 section 8
            break
    return _body(who, form, answer)


def _posted(who: Applicant, form: Mapping[str, str], claims: Mapping[str, str]) -> Ask:
    whole = {**form, **asserted(who, claims), **({} if who.resource is None else {"resource": who.resource})}
    headers = {}
    if who.possession is not None:  # for the URL that is published, however HTTP gets there
        headers["dpop"] = who.possession.proof(who.key, "POST", who.door.token_url, at=who.clock())
    return Ask(url=who.door.token_endpoint, form=whole, headers=headers)


def _body(who: Applicant, form: Mapping[str, str], answer: httpx2.Response) -> dict[str, Any]:
    body = json_object(answer)
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
        return f"the gateway does not let agent `{agent}` sign in; ask the operator: {advice} ({error}: {description})"
    return f"the gateway gave agent `{agent}` no token ({error}: {description})"


def _granted(who: Applicant, body: Mapping[str, Any]) -> Granted:
    granted = read_granted(body, who.key, at=who.clock())
    if not granted.is_bound and not who.takes_unbound:  # RFC 9449 section 5: anybody could use it
        raise SignInRefused(f"the gateway at {who.door.issuer} gave a token that is not bound to the agent's key")
    return granted


def _scoped(form: Mapping[str, str], scope: str | None) -> Mapping[str, str]:
    return form if scope is None else {**form, "scope": scope}
