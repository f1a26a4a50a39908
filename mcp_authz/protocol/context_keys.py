"""Where tool servers find the keys of context tokens; not in the issuer's JWKS, whose keys sign access tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz.rules.context_token import JWKS_PATH
from mcp_authz.rules.strict_json import dump


def context_keys_route(jwks: Callable[[], Mapping[str, Any]]) -> Route:
    """Return the route at which this JWK Set is published, as it is at each request."""

    async def answer(_: Request) -> Response:
        headers = {"Cache-Control": "public, max-age=300"}
        return Response(dump(dict(jwks())), media_type="application/json", headers=headers)

    return Route(JWKS_PATH, answer, methods=["GET"])
