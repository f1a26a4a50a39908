"""The authorization code flow from the client's side: what a person is asked at, and which answer is the one to it.

OAuth 2.1 section 4.1 with PKCE by S256 (RFC 7636), `resource` (RFC 8707) and the issuer's name (RFC 9207).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from mcp_authz.client.authorization_server import Target
from mcp_authz.client.door import SignInRefused
from mcp_authz.rules.keys import b64url, equal

_ERROR: Final = re.compile("[a-z_]{1,64}")
_ANSWER: Final = 16 * 1024  # characters of an answer; a longer one is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One authorization request, and what its one answer is known by."""

    url: str = field(repr=False)  # where the person goes
    state: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect: str
    issuer: str  # of the validated metadata
    names_itself: bool


def asking(
    target: Target, client: str, redirect: str, scope: frozenset[str], *, key: str | None, max_age: int | None
) -> Asked:
    """Return a new authorization request; `key` is the thumbprint that the code is to be bound to.

    Raises:
        SignInRefused: the server has no authorization endpoint, or no PKCE by S256.
    """
    server = target.server
    if server.authorization_endpoint is None:
        raise SignInRefused(f"the authorization server `{server.issuer}` lets no people sign in")
    if not server.has_pkce:  # OAuth 2.1 section 4.1.1; MCP authorization: refuse to proceed
        raise SignInRefused(f"the authorization server `{server.issuer}` does not offer PKCE with S256")
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    said = {
        "response_type": "code",
        "client_id": client,
        "redirect_uri": redirect,
        "resource": target.resource,
        "state": state,
        "code_challenge": b64url(hashlib.sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
        "scope": " ".join(sorted(scope)),
        "dpop_jkt": key or "",  # RFC 9449 section 10
        "max_age": "" if max_age is None else str(max_age),  # RFC 9470 section 4
    }
    query = urlencode({name: value for name, value in said.items() if value})
    joint = "&" if "?" in server.authorization_endpoint else "?"
    return Asked(
        url=f"{server.authorization_endpoint}{joint}{query}",
        state=state,
        verifier=verifier,
        redirect=redirect,
        issuer=server.issuer,
        names_itself=server.names_itself,
    )


def is_answer(asked_state: str, url: str) -> bool:
    """Whether the URL that somebody was sent back to answers this request, and no other."""
    return equal(_members(url).get("state", "").encode(), asked_state.encode())


def code_of(asked: Asked, url: str) -> str:
    """Return the code in the answer, once it is known to come from the server that was asked.

    Nothing that the answer says is used or shown before that (RFC 9207 section 2.4).

    Raises:
        SignInRefused: it answers another request, is another server's, or says no.
    """
    if not is_answer(asked.state, url):
        raise SignInRefused("the answer is to another request than ours; sign in again")
    said = _members(url)
    issuer = said.get("iss")
    if issuer is None and asked.names_itself:
        raise SignInRefused(f"the answer does not say that it is from `{asked.issuer}`, which always says so")
    if issuer is not None and issuer != asked.issuer:  # character by character: nothing is normalized
        raise SignInRefused(f"the answer is from another authorization server than `{asked.issuer}`")
    if "error" in said:
        error = said["error"] if _ERROR.fullmatch(said["error"]) else "an error without a name"
        raise SignInRefused(f"nothing was agreed at `{asked.issuer}`: {error}")
    if not said.get("code"):
        raise SignInRefused(f"the answer of `{asked.issuer}` has no code")
    return said["code"]


def _members(url: str) -> dict[str, str]:
    """The members of the answer's query; none of what is said twice (RFC 6749 section 3.1)."""
    if len(url) > _ANSWER:
        return {}
    said = parse_qs(urlsplit(url).query, keep_blank_values=True)
    if any(len(values) > 1 for values in said.values()):
        return {}
    return {name: values[0] for name, values in said.items()}
