"""Where tool servers find the key of context tokens; not in the issuer's JWKS, whose keys sign access tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz.rules.context_token import JWKS_PATH
from mcp_authz.rules.strict_json import dump


def context_keys_route(jwks: Mapping[str, Any]) -> Route:
    """Return the route at which this JWK Set is published."""
    body = dump(dict(jwks))

    async def answer(_: Request) -> Response:
        return Response(body, media_type="application/json", headers={"Cache-Control": "public, max-age=300"})

    return Route(JWKS_PATH, answer, methods=["GET"])
