"""Authorization requests: what a client asks for, read strictly, in two steps; and the URL that the answer goes to.

What is wrong before client and redirect URI are known is shown on a page: nothing is sent to an address that only the
request names. What is wrong after that goes to the client, as an error (RFC 6749 section 4.1.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlencode

from mcp_authz import limits
from mcp_authz.authorization import AuthorizationRequest
from mcp_authz.errors import AuthzError, InputError, ScopeError
from mcp_authz.principals import AgentName, ClientId, Thumbprint
from mcp_authz.rules.scope import Scope, parse_scopes
from mcp_authz.rules.token import MINIMAL_SCOPE

MAX_AGE: Final = 86_400  # seconds; a sign-in that is older has ended

_NOT_OURS: Final = frozenset(map(Scope, ("openid", "profile", "email", "address", "phone", "offline_access")))
_PROMPTS: Final = frozenset({"none", "login", "consent"})
_IGNORED_PROMPTS: Final = frozenset({"select_account", "create"})  # there is one account for each person
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits: an S256 challenge, or a JWK's thumbprint
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_QUERY: Final = re.compile(r"[\x21-\x7e]*")
_CLIENT_ID: Final = re.compile(rf"[\x20-\x7e]{{1,{limits.METADATA_URL}}}")  # RFC 6749 appendix A.1
_STATE: Final = re.compile(rf"[\x20-\x7e]{{1,{limits.STATE}}}")  # RFC 6749 appendix A.5
_SECONDS: Final = re.compile(r"0|[1-9][0-9]{0,5}")
_ACTOR: Final = re.compile(rf"agent:([a-z0-9][a-z0-9-]{{0,{limits.NAME - 1}}})")
_UNSAYABLE: Final = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")  # in `error_description`: RFC 6749 appendix A.8


class RequestRefused(AuthzError):
    """A request of a known client that is malformed or asks for what cannot be: the client hears of it."""

    code = "request_refused"

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error  # the code of RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6 or RFC 8707


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Who asks, and where the answer is to go, as the request says; whether that is so is not known yet."""

    client: ClientId
    redirect_uri: str | None
    state: str | None
    parameters: Mapping[str, str] = field(default_factory=dict)  # every one that has a value, by its name


def read_target(query: str) -> Target:
    """Return who asks and where the answer is to go, of a query (or a form) as it was sent.

    Raises:
        InputError: it is too long, malformed or no UTF-8, has a parameter twice, or no client; for a page to say.
    """
    parameters = _parameters(query)
    client, state = parameters.get("client_id", ""), parameters.get("state")
    if not _CLIENT_ID.fullmatch(client):
        raise InputError("the request does not say which client asks: `client_id` is missing or malformed")
    if state is not None and not _STATE.fullmatch(state):
        raise InputError(f"`state` must be at most {limits.STATE} printable ASCII characters")
    return Target(
        client=ClientId(client), redirect_uri=parameters.get("redirect_uri"), state=state, parameters=parameters
    )


def read_request(target: Target, *, redirect_uri: str, resource: str) -> AuthorizationRequest:
    """Return what the client asks for, known to be well-formed and meant for `resource`.

    `redirect_uri` is where the answer goes: one that the client has registered.

    Raises:
        RequestRefused: it is not; for the client to hear.
    """
    asked = target.parameters
    _require_a_code(asked)
    if asked.get("resource", resource) != resource:
        raise RequestRefused("invalid_target", f"tokens are given here for `{resource}` only; name it as `resource`")
    return AuthorizationRequest(
        client=target.client,
        redirect_uri=redirect_uri,
        challenge=_challenge(asked),
        state=target.state,
        scope=_scope(asked.get("scope", "")),
        prompt=_prompt(asked.get("prompt", "")),
        max_age=_max_age(asked.get("max_age")),
        confirmation=_confirmation(asked.get("dpop_jkt")),
        actor=_actor(asked.get("requested_actor")),
    )


def answer_url(
    redirect_uri: str,
    *,
    issuer: str,
    state: str | None,
    code: str | None = None,
    error: str | None = None,
    description: str | None = None,
) -> str:
    """The URL by which the client gets its answer, with `iss` (RFC 9207); the redirect URI stays as it is before it."""
    said = None if description is None else _UNSAYABLE.sub("'", description)[: limits.DETAIL_RECORDED]
    answer = {"code": code, "error": error, "error_description": said, "state": state, "iss": issuer}
    query = urlencode({name: value for name, value in answer.items() if value is not None}, quote_via=quote, safe="")
    if "?" not in redirect_uri:
        return f"{redirect_uri}?{query}"
    return f"{redirect_uri}{'' if redirect_uri.endswith(('?', '&')) else '&'}{query}"


def _parameters(query: str) -> dict[str, str]:
    """The parameters by name; one without a value is as if it were not there (RFC 6749 section 3.1)."""
    if len(query) > limits.AUTHORIZATION_QUERY:
        raise InputError(f"the request is longer than {limits.AUTHORIZATION_QUERY} bytes")
    if not _QUERY.fullmatch(query) or _PERCENT.search(query):
        raise InputError("the request has a character that is not encoded, or is encoded wrongly")
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        name = _decoded(name)
        if name in found:
            raise InputError(f"the request has the parameter `{name[:64]}` twice (RFC 6749 section 3.1)")
        found[name] = _decoded(value)
    return {name: value for name, value in found.items() if value}


def _decoded(text: str) -> str:
    try:
        value = unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise InputError("the request has a parameter that is not UTF-8") from None
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise InputError("the request has a parameter with a control character")
    return value


def _require_a_code(asked: Mapping[str, str]) -> None:
    """The answer is a code in a query, and every parameter stands in the request itself."""
    if "request" in asked:
        raise RequestRefused("request_not_supported", "requests as objects (`request`) are not supported")
    if "request_uri" in asked:
        raise RequestRefused("request_uri_not_supported", "requests by reference (`request_uri`) are not supported")
    if "response_type" not in asked:
        raise RequestRefused("invalid_request", "`response_type` is missing; it must be `code`")
    if asked["response_type"] != "code":
        raise RequestRefused("unsupported_response_type", "`response_type` must be `code`")
    if asked.get("response_mode", "query") != "query":
        raise RequestRefused("invalid_request", "`response_mode` must be `query`")


def _challenge(asked: Mapping[str, str]) -> str:
    """The PKCE challenge; there is no code without one (RFC 9700 section 2.1.1)."""
    if asked.get("code_challenge_method") != "S256":
        raise RequestRefused("invalid_request", "`code_challenge_method` must be `S256` (RFC 7636)")
    challenge = asked.get("code_challenge", "")
    if not _CHALLENGE.fullmatch(challenge):
        raise RequestRefused("invalid_request", "`code_challenge` must be 43 characters of base64url (RFC 7636)")
    return challenge


def _scope(text: str) -> frozenset[Scope] | None:
    try:
        asked = parse_scopes(text) - _NOT_OURS - {MINIMAL_SCOPE}
    except ScopeError as error:
        raise RequestRefused("invalid_scope", str(error)) from None
    return asked or None


def _prompt(text: str) -> frozenset[str]:
    values = frozenset(text.split(" ")) if text else frozenset()
    if unknown := values - _PROMPTS - _IGNORED_PROMPTS:
        raise RequestRefused("invalid_request", f"`prompt` has an unknown value `{min(unknown)[:64]}`")
    if "none" in values and len(values) > 1:
        raise RequestRefused("invalid_request", "`prompt` has `none` beside another value")
    return values & _PROMPTS


def _max_age(text: str | None) -> timedelta | None:
    if text is None:
        return None
    if not _SECONDS.fullmatch(text) or int(text) > MAX_AGE:
        raise RequestRefused("invalid_request", f"`max_age` must be a number of seconds from 0 to {MAX_AGE}")
    return timedelta(seconds=int(text))


def _confirmation(text: str | None) -> Thumbprint | None:
    if text is not None and not _CHALLENGE.fullmatch(text):
        raise RequestRefused("invalid_request", "`dpop_jkt` must be a JWK thumbprint of 43 characters (RFC 9449)")
    return None if text is None else Thumbprint(text)


def _actor(text: str | None) -> AgentName | None:
    if text is None:
        return None
    found = _ACTOR.fullmatch(text)
    if found is None:
        raise RequestRefused("invalid_request", "`requested_actor` must be `agent:NAME`")
    return AgentName(found[1])
