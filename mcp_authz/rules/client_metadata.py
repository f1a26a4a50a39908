"""Client id metadata documents: what an agent's client id says of it where it leads (its name, and its keys).

The form is that of draft-ietf-oauth-client-id-metadata-document; its members are those of RFC 7591 section 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from mcp_authz import limits
from mcp_authz.errors import InputError, KeyRefused
from mcp_authz.principals import AgentName, Key
from mcp_authz.rules import strict_json
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.strict_json import JsonObject

METHOD: Final = "private_key_jwt"
KEYS: Final = 2  # the one in use and the one that replaces it, as for every agent
_ALGORITHMS: Final = ("EdDSA", "Ed25519")
_GRANT_TYPES: Final = ("client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)+")


def client_id(issuer: str, agent: AgentName) -> str:
    """The URL by which everybody can know this agent of this gateway, and where its document is."""
    return f"{issuer}/agents/{agent}"


def showable(keys: Iterable[Key], at: datetime) -> tuple[Key, ...]:
    """Those by which somebody could still know their holder: active, and not past the end of their overlap."""
    return tuple(key for key in keys if key.status == "active" and (key.retires_at is None or at < key.retires_at))


def jwk_set(keys: Iterable[Key]) -> dict[str, Any]:
    """The keys as a JWK set (RFC 7517 section 5), each known by its thumbprint."""
    shown = (PublicKey.from_raw(key.raw) for key in keys)
    return {"keys": [{**key.jwk, "kid": key.thumbprint, "use": "sig", "alg": "EdDSA"} for key in shown]}


def document(issuer: str, agent: AgentName, keys: Sequence[Key]) -> dict[str, Any]:
    """The metadata document of an agent of this gateway: nothing of whose it is, or what it may do."""
    return {
        "client_id": client_id(issuer, agent),
        "client_name": agent,
        "grant_types": list(_GRANT_TYPES),
        "token_endpoint_auth_method": METHOD,
        "token_endpoint_auth_signing_alg": "EdDSA",
        "jwks": jwk_set(keys),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a document elsewhere says: the keys themselves, or the one URL where they are."""

    keys: tuple[PublicKey, ...] = ()
    jwks_uri: str | None = None


def require_url(url: str) -> str:
    """Return `url`, known to be one that can be fetched: https, a host's full name, one spelling.

    An address in any spelling (dotted, decimal, octal, in brackets) is no name, nor is one that ends with a dot.

    Raises:
        InputError: it is another kind of URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InputError(f"`{url}` is no URL") from None
    spelled = host if port is None else f"{host}:{port}"
    if len(url) > limits.METADATA_URL or parts.scheme != "https" or not _HOST.fullmatch(host) or port == 0:
        raise InputError(
            f"`{url}` must be https with the full name of a host, such as https://agents.example.com/coder"
        )
    if parts.netloc != spelled or url != f"https://{parts.netloc}{parts.path}":
        raise InputError(f"`{url}` must have no user, query or fragment, and its host in small letters")
    steps = parts.path.split("/")
    if not _PATH.fullmatch(parts.path) or parts.path == "/" or not {".", ".."}.isdisjoint(steps):
        raise InputError(f"`{url}` must have a path, without `.` and `..`")
    return url


def read_document(raw: bytes, *, url: str) -> Declared:
    """Return what the document that was fetched from `url` declares.

    Raises:
        InputError: it is no such document, or another client's.
        KeyRefused: it shows a key that is none, or too many.
    """
    body = strict_json.parse_object(raw, max_bytes=limits.METADATA_BYTES)
    if body.get("client_id") != url:
        raise InputError(f"the document says that it is `{str(body.get('client_id'))[:128]}`, and not `{url}`")
    if body.get("token_endpoint_auth_method") != METHOD:
        raise InputError(f"the document's `token_endpoint_auth_method` must be `{METHOD}`")
    if body.get("token_endpoint_auth_signing_alg", "EdDSA") not in _ALGORITHMS:
        raise InputError("the document's `token_endpoint_auth_signing_alg` must be `EdDSA`")
    if ("jwks" in body) == ("jwks_uri" in body):
        raise InputError("the document must have either `jwks` or `jwks_uri`")
    if "jwks" in body:
        return Declared(keys=_keys(body["jwks"]))
    uri = body["jwks_uri"]
    if not isinstance(uri, str):
        raise InputError("the document's `jwks_uri` is not text")
    return Declared(jwks_uri=require_url(uri))


def read_jwks(raw: bytes) -> tuple[PublicKey, ...]:
    """Return the keys of a JWK set: one or two, different ones, all of Ed25519.

    Raises:
        InputError: it is no JWK set.
        KeyRefused: it has none, too many, or one that is no key.
    """
    return _keys(strict_json.parse_object(raw, max_bytes=limits.METADATA_BYTES))


def _keys(jwks: object) -> tuple[PublicKey, ...]:
    members = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(members, list):
        raise InputError("the JWK set has no list `keys`")
    if not 1 <= len(members) <= KEYS:
        raise KeyRefused(f"the JWK set has {len(members)} keys; one is needed, two during a rotation")
    keys = tuple(PublicKey.from_jwk(_object(member)) for member in members)
    if len(set(keys)) != len(keys):
        raise KeyRefused("the JWK set has a key twice")
    return keys


def _object(member: object) -> JsonObject:
    if not isinstance(member, dict):
        raise KeyRefused("the JWK set has a key that is no JSON object")
    return member
