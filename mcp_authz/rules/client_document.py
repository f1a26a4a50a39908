"""What an OAuth client says of itself: in the document that its id leads to, or when it registers itself.

The members are those of RFC 7591 section 2; for documents the rules of draft-ietf-oauth-client-id-metadata-document
(sections 4 and 8) and of MCP's client registration come on top. Members that are not known are passed over.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from mcp_authz import limits
from mcp_authz.authorization import ClientMethod
from mcp_authz.errors import InputError, KeyRefused
from mcp_authz.rules import strict_json
from mcp_authz.rules.client_metadata import require_url
from mcp_authz.rules.es256 import P256Key
from mcp_authz.rules.hidden_text import without_hidden
from mcp_authz.rules.keys import PRIVATE_MEMBERS, PublicKey
from mcp_authz.rules.redirect_uri import require_registrable
from mcp_authz.rules.rsa import RsaKey
from mcp_authz.rules.strict_json import JsonObject

KEYS: Final = 8  # of one client; those of a key set beyond are no help
HANDLE: Final = 24  # characters; agents are named `HANDLE@PERSON`
UNNAMED: Final = "a client without a name"
SECRET_METHODS: Final = ("client_secret_basic", "client_secret_post")

_DOCUMENT_METHODS: Final = ("none", "private_key_jwt")
_METHODS: Final = (*_DOCUMENT_METHODS, *SECRET_METHODS)
_MEMBERS: Final = ("kty", "crv", "x", "y", "n", "e", "kid", "alg", "use")
_MEMBER: Final = 1_024  # characters; an RSA modulus of 4096 bits has 683
_OTHERS: Final = re.compile(r"[^a-z0-9]+")
_RESERVED: Final = frozenset({"cli"})  # of the command line itself


class RedirectRefused(InputError):
    """A client's redirect URI that no answer may go to (`invalid_redirect_uri` of RFC 7591 section 3.2.2)."""

    code = "invalid_redirect_uri"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMetadata:
    """What a client says of itself, in the form that this gateway can use; none of it is proved."""

    name: str
    redirect_uris: tuple[str, ...]
    method: ClientMethod
    jwks: Mapping[str, Any] | None = None  # with `private_key_jwt`: these keys,
    jwks_uri: str | None = None  # or the one URL where they are


def read_document(raw: bytes, *, url: str, schemes: Collection[str]) -> ClientMetadata:
    """Return what the document that was fetched from `url` says of the client whose id that is.

    Where its answers go need not be on its own host, as many run on the person's computer: the page shows both.

    Raises:
        InputError: it is no such document, another client's, or has a secret.
    """
    body = strict_json.parse_object(raw, max_bytes=limits.METADATA_BYTES)
    if body.get("client_id") != url:
        raise InputError(f"the document says that it is `{_shown(body.get('client_id'))}`, and not `{url}`")
    if not {"client_secret", "client_secret_expires_at"}.isdisjoint(body):
        raise InputError("the document has a secret, which everybody can read")
    if not isinstance(body.get("client_name"), str):
        raise InputError("the document has no `client_name`")
    return _metadata(body, schemes, methods=_DOCUMENT_METHODS, default="none")


def read_registration(body: JsonObject, *, schemes: Collection[str]) -> ClientMetadata:
    """Return what a client that registers itself asks for (RFC 7591 section 2); its keys come by value.

    Raises:
        RedirectRefused: a redirect URI is none that answers may go to.
        InputError: something else that this gateway cannot do.
    """
    if "software_statement" in body:
        raise InputError("software statements are not supported")
    if "jwks_uri" in body:
        raise InputError("send the keys themselves as `jwks`; `jwks_uri` is not read here")
    return _metadata(body, schemes, methods=_METHODS, default="client_secret_basic")


def read_jwks(raw: bytes) -> Mapping[str, Any]:
    """Return the public keys of a JWK set that was fetched, those of them that are of use here.

    Raises:
        InputError: it is no JWK set, or has none.
    """
    return require_jwks(strict_json.parse_object(raw, max_bytes=limits.METADATA_BYTES))


def require_jwks(jwks: object) -> Mapping[str, Any]:
    """Return the public keys of this JWK set that sign by an algorithm known here, with their needed members only.

    Raises:
        InputError: it is no JWK set, has none, too many, or a private one.
    """
    members = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise InputError("the JWK set has no list `keys`")
    if any(not PRIVATE_MEMBERS.isdisjoint(member) for member in members):
        raise InputError("the JWK set has a private key; nobody but its holder may know that")
    usable = [_plain(member) for member in members if _is_usable(member)]
    if not 1 <= len(usable) <= KEYS:
        raise InputError(f"the JWK set must have 1 to {KEYS} keys of Ed25519, P-256 or RSA; it has {len(usable)}")
    return {"keys": usable}


def shown_name(text: str) -> str:
    """Return how a client calls itself, without what is hidden in it, on one line and not too long."""
    words = " ".join(without_hidden(text).split())
    return words[: limits.CLIENT_NAME].rstrip() or UNNAMED


def handles(name: str, client_id: str) -> Iterator[str]:
    """The short names that the client may be given, the best one first: `cursor`, `cursor-2` ... `cursor-9f3a`.

    They have only what is plain Latin in its name: letters that look alike, and hidden ones, are no part of them.
    """
    plain = unicodedata.normalize("NFKD", without_hidden(name)).encode("ascii", "ignore").decode().lower()
    base = _OTHERS.sub("-", plain).strip("-")[:HANDLE].strip("-") or "client"
    if base not in _RESERVED:
        yield base
    digest = hashlib.sha256(client_id.encode()).hexdigest()
    for ending in ("2", "3", digest[:4], digest[:12]):
        yield f"{base[: HANDLE - 1 - len(ending)].rstrip('-')}-{ending}"


def _metadata(body: JsonObject, schemes: Collection[str], *, methods: Collection[str], default: str) -> ClientMetadata:
    _require_codes(body)
    name = body.get("client_name", UNNAMED)
    if not isinstance(name, str):
        raise InputError("`client_name` is no text")
    method = body.get("token_endpoint_auth_method", default)
    if method not in methods:
        raise InputError(f"`token_endpoint_auth_method` must be one of {', '.join(methods)}; not `{_shown(method)}`")
    jwks, jwks_uri = _keys(body) if method == "private_key_jwt" else (None, None)
    return ClientMetadata(
        name=shown_name(name),
        redirect_uris=require_redirect_uris(body.get("redirect_uris"), schemes),
        method=cast(ClientMethod, method),
        jwks=jwks,
        jwks_uri=jwks_uri,
    )


def require_redirect_uris(uris: object, schemes: Collection[str]) -> tuple[str, ...]:
    """Return the redirect URIs, known to be registrable, each of them once.

    Raises:
        RedirectRefused: there is none, there are too many, or one is none that answers may go to.
    """
    if not isinstance(uris, list | tuple) or not all(isinstance(uri, str) for uri in uris):
        raise RedirectRefused("`redirect_uris` must be a list of URIs")
    if not 1 <= len(uris) <= limits.REDIRECT_URIS:
        raise RedirectRefused(f"a client has 1 to {limits.REDIRECT_URIS} redirect URIs, and not {len(uris)}")
    try:
        return tuple(dict.fromkeys(require_registrable(uri, schemes) for uri in uris))
    except InputError as error:
        raise RedirectRefused(str(error)) from None


def _require_codes(body: JsonObject) -> None:
    """The client can do what people sign in by: the authorization code flow."""
    for member, needed in (("grant_types", "authorization_code"), ("response_types", "code")):
        values = body.get(member, [needed])
        if not isinstance(values, list) or needed not in values:
            raise InputError(f"`{member}` must have `{needed}`: people sign in to nothing else here")


def _keys(body: JsonObject) -> tuple[Mapping[str, Any] | None, str | None]:
    if ("jwks" in body) == ("jwks_uri" in body):
        raise InputError("with `private_key_jwt` there must be either `jwks` or `jwks_uri`")
    if "jwks" in body:
        return require_jwks(body["jwks"]), None
    uri = body["jwks_uri"]
    if not isinstance(uri, str):
        raise InputError("`jwks_uri` is no text")
    return None, require_url(uri)


def _is_usable(jwk: JsonObject) -> bool:
    try:
        match jwk.get("kty"):
            case "EC":
                P256Key.from_jwk(jwk)
            case "RSA":
                RsaKey.from_jwk(jwk)
            case _:
                PublicKey.from_jwk(jwk)
    except KeyRefused:
        return False
    return True


def _plain(jwk: JsonObject) -> JsonObject:
    return {name: jwk[name] for name in _MEMBERS if isinstance(jwk.get(name), str) and len(jwk[name]) <= _MEMBER}


def _shown(value: object) -> str:
    return str(value)[:128]
