"""What clients read first: the metadata of the authorization server (RFC 8414) and of its resource (RFC 9728)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp_authz.oauth.software import ALGORITHMS, CONFIDENTIAL_METHODS, SOFTWARE_METHODS
from mcp_authz.oauth.token_types import TOKEN_EXCHANGE
from mcp_authz.rules import dpop
from mcp_authz.rules.token import MINIMAL_SCOPE


def server_metadata(issuer: str) -> dict[str, Any]:
    """Return what every authorization server of ours says of itself (RFC 8414 section 2).

    Stock clients refuse metadata without `authorization_endpoint`, also when they never go there.
    """
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "revocation_endpoint": f"{issuer}/revoke",
        "introspection_endpoint": f"{issuer}/introspect",
        "jwks_uri": f"{issuer}/jwks.json",
        "scopes_supported": [MINIMAL_SCOPE],  # the rest is asked for when a call needs it
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials", TOKEN_EXCHANGE],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,  # RFC 9207 section 3
        **_authentication("token", SOFTWARE_METHODS),
        **_authentication("revocation", SOFTWARE_METHODS),
        **_authentication("introspection", CONFIDENTIAL_METHODS),
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),  # RFC 9449 section 5.1
    }


def resource_metadata(issuer: str, resource: str) -> dict[str, Any]:
    """Return what the protected resource says of itself (RFC 9728 section 2)."""
    return {
        "resource": resource,
        "authorization_servers": [issuer],
        "scopes_supported": [MINIMAL_SCOPE],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),
        "dpop_bound_access_tokens_required": False,  # a tool may need one all the same
    }


def _authentication(endpoint: str, methods: Sequence[str]) -> dict[str, Any]:
    """How clients authenticate at an endpoint."""
    return {
        f"{endpoint}_endpoint_auth_methods_supported": list(methods),
        f"{endpoint}_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
    }
