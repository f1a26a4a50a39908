"""What an OpenID provider says of itself (OpenID Connect Discovery 1.0, RFC 8414), as far as it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from mcp_authz.errors import FetchRefused, InputError
from mcp_authz.rules import strict_json
from mcp_authz.web.provider_http import fetch_document

# Signatures that only the provider can make; with HS256 whoever knows the client secret could.
_ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Where a provider's endpoints are, and what it can do; nothing else of its document goes on."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    algorithms: tuple[str, ...]  # of ID tokens, asymmetric ones only
    names_itself: bool  # in the answer's `iss` (RFC 9207)
    secret_in_body: bool  # it takes a client's secret in the form alone
    read_at: datetime


async def read_metadata(issuer: str, now: datetime) -> Metadata:
    """Return what the provider's document says, once it is known to be this very provider's.

    Raises:
        FetchRefused: there is no such document, or it is another issuer's, or lacks what signing in takes.
    """
    answer = await fetch_document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if answer.status_code != 200:
        raise FetchRefused(f"`{issuer}` has no openid-configuration: it answers with HTTP {answer.status_code}")
    try:
        document = strict_json.parse_object(answer.content)
    except InputError:
        raise FetchRefused(f"`{issuer}` has no openid-configuration that could be read") from None
    # OpenID Connect Discovery section 4.3: another issuer's document is no document of this one.
    if document.get("issuer") != issuer:
        raise FetchRefused(f"`{issuer}` says that it is another issuer; `issuer` in [sign_in.provider] must be exact")
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return Metadata(
        issuer=issuer,
        authorization_endpoint=_endpoint(document, "authorization_endpoint", issuer),
        token_endpoint=_endpoint(document, "token_endpoint", issuer),
        jwks_uri=_endpoint(document, "jwks_uri", issuer),
        userinfo_endpoint=_endpoint(document, "userinfo_endpoint", issuer) if "userinfo_endpoint" in document else None,
        algorithms=_algorithms(document, issuer),
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
        secret_in_body=isinstance(methods, list)
        and "client_secret_basic" not in methods
        and "client_secret_post" in methods,
        read_at=now,
    )


def _endpoint(document: Mapping[str, Any], name: str, issuer: str) -> str:
    url = document.get(name)
    parts = urlsplit(url) if isinstance(url, str) else None
    # Only an issuer on this machine may be without TLS, and then its endpoints are here too.
    here = urlsplit(issuer).scheme == "http" and parts is not None and parts.hostname == urlsplit(issuer).hostname
    if not isinstance(url, str) or parts is None or not (parts.scheme == "https" or here) or parts.fragment:
        raise FetchRefused(f"`{issuer}` has no usable `{name}`: an https URL is needed")
    return url


def _algorithms(document: Mapping[str, Any], issuer: str) -> tuple[str, ...]:
    told = document.get("id_token_signing_alg_values_supported", ["RS256"])
    found = tuple(one for one in _ALGORITHMS if isinstance(told, list) and one in told)
    if not found:
        raise FetchRefused(f"`{issuer}` signs ID tokens in no way that is known here")
    return found
