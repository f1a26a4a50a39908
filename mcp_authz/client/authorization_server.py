"""From an MCP server that is protected to the authorization server that lets people in: RFC 9728, then RFC 8414.

As the MCP authorization specification of 2026-07-28 has it, with each well-known place that it names. What is found is
used only where it names exactly what led to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from mcp_authz.client.discovery import is_loopback, safe_url
from mcp_authz.client.door import NoAnswer, SignInRefused
from mcp_authz.client.talk import Ask, Talk, json_object
from mcp_authz.errors import InputError

_RESOURCE: Final = "oauth-protected-resource"
_SERVER: Final = "oauth-authorization-server"
_OPENID: Final = "openid-configuration"
_URI: Final = re.compile("[!-~]+")  # RFC 3986: what is shown at a terminal has nothing that it would obey


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An authorization server, as its own validated metadata says (RFC 8414 section 2)."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str | None = None
    registration_endpoint: str | None = None
    revocation_endpoint: str | None = None
    methods: frozenset[str] | None = None  # by which clients authenticate; None when it does not say
    scopes: frozenset[str] = frozenset()
    has_pkce: bool = False  # by S256
    names_itself: bool = False  # in each authorization response (RFC 9207)
    takes_documents: bool = False  # the URL of a client's metadata as its id
    proofs: frozenset[str] = frozenset()  # the algorithms of proofs of possession that it takes (RFC 9449)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a token is for, and who gives it."""

    resource: str  # exactly as it is published
    scopes: frozenset[str] | None  # that the resource suggests; None when it names none
    server: Server


Choice = Callable[[list[str]], str]
"""Which of a resource's authorization servers is asked, by their issuers."""


def target(url: str, metadata: str | None, choose: Choice) -> Talk[Target]:
    """The talk that finds who gives tokens for the MCP server at `url`; `metadata` is where a challenge says to look.

    Raises:
        NoAnswer: nobody says so.
        SignInRefused: what is said does not belong together, or cannot be trusted.
    """
    said = yield from _resource(url, metadata)
    resource = said.get("resource")
    if not isinstance(resource, str) or not _covers(resource, url):  # RFC 9728 section 3.3
        raise SignInRefused(f"{url} says that it is `{resource}`; if that is who you mean, use exactly that URL")
    issuers = [one for one in _texts(said, "authorization_servers") or () if _trusted(one, url)]
    if not issuers:
        raise SignInRefused(f"{url} names no authorization server that can be trusted")
    server = yield from _server(choose(issuers), url)
    return Target(resource=resource, scopes=_set(said, "scopes_supported"), server=server)


def _resource(url: str, metadata: str | None) -> Talk[dict[str, Any]]:
    parts = urlsplit(url)
    if metadata is not None and _origin(urlsplit(metadata)) != _origin(parts):
        raise SignInRefused(f"{url} refers to `{metadata}` for what it is, which is somewhere else")
    for where in [metadata] if metadata is not None else _well_known(parts, _RESOURCE):
        answer = yield Ask(url=where)
        if answer.status_code == 200 and (body := json_object(answer)) is not None:
            return body
    raise NoAnswer(f"{url} does not say who signs people in for it (RFC 9728)")


def _server(issuer: str, url: str) -> Talk[Server]:
    parts = urlsplit(issuer)
    places = [*list(_well_known(parts, _SERVER))[:1], *list(_well_known(parts, _OPENID))[:1]]
    if path := parts.path.rstrip("/"):
        places.append(f"{parts.scheme}://{parts.netloc}{path}/.well-known/{_OPENID}")
    for where in places:
        answer = yield Ask(url=where)
        if answer.status_code == 200 and (body := json_object(answer)) is not None:
            if body.get("issuer") != issuer:  # RFC 8414 section 3.3: nothing of it is used
                raise SignInRefused(f"the authorization server `{issuer}` says that it is another")
            return _read(body, issuer, url)
    raise NoAnswer(f"there is no authorization server at `{issuer}`, which {url} names")


def _read(body: dict[str, Any], issuer: str, url: str) -> Server:
    def endpoint(name: str) -> str | None:
        said = body.get(f"{name}_endpoint")
        if said is None:
            return None
        if not isinstance(said, str) or not _URI.fullmatch(said) or not _trusted(said.partition("?")[0], url):
            raise SignInRefused(f"the {name} endpoint of `{issuer}` cannot be trusted")
        return said

    token = endpoint("token")
    if token is None:
        raise SignInRefused(f"the authorization server `{issuer}` names no token endpoint")
    return Server(
        issuer=issuer,
        token_endpoint=token,
        authorization_endpoint=endpoint("authorization"),
        registration_endpoint=endpoint("registration"),
        revocation_endpoint=endpoint("revocation"),
        methods=_set(body, "token_endpoint_auth_methods_supported"),
        scopes=_set(body, "scopes_supported") or frozenset(),
        has_pkce="S256" in (_texts(body, "code_challenge_methods_supported") or ()),
        names_itself=body.get("authorization_response_iss_parameter_supported") is True,
        takes_documents=body.get("client_id_metadata_document_supported") is True,
        proofs=_set(body, "dpop_signing_alg_values_supported") or frozenset(),
    )


def _well_known(parts: SplitResult, kind: str) -> Iterator[str]:
    """With the path inserted, then at the root (RFC 9728 section 3.1, RFC 8414 section 3.1)."""
    origin = f"{parts.scheme}://{parts.netloc}"
    if path := parts.path.rstrip("/"):
        yield f"{origin}/.well-known/{kind}{path}"
    yield f"{origin}/.well-known/{kind}"


def _covers(resource: str, url: str) -> bool:
    """Whether the resource is the server at `url`, or all of its origin or of a path above it."""
    try:
        whole, part = urlsplit(resource), urlsplit(url)
        same = _origin(whole) == _origin(part)
    except ValueError:
        return False
    above, below = whole.path.rstrip("/"), part.path.rstrip("/")
    return same and not whole.query and not whole.fragment and f"{below}/".startswith(f"{above}/")


def _trusted(url: str, source: str) -> bool:
    """Whether nothing travels there in the open; a server elsewhere does not send us to this machine."""
    try:
        parts = safe_url(url)
    except InputError:
        return False
    return parts.scheme == "https" or is_loopback(urlsplit(source))


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    try:
        port = parts.port
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port or {"https": 443, "http": 80}.get(parts.scheme)


def _texts(body: dict[str, Any], name: str) -> list[str] | None:
    value = body.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else None


def _set(body: dict[str, Any], name: str) -> frozenset[str] | None:
    texts = _texts(body, name)
    return None if texts is None else frozenset(texts)
