"""Where others find the keys of context tokens, verdicts and checkpoints; the issuer's JWKS is for tokens alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz.rules.context_token import JWKS_PATH
from mcp_authz.rules.strict_json import dump

APPROVAL_KEYS: Final = "/approval-keys"
CHECKPOINT_KEYS: Final = "/checkpoint-keys"


def context_keys_route(jwks: Callable[[], Mapping[str, Any]]) -> Route:
    """Return the route at which tool servers find this JWK Set, as it is at each request."""
    return _published(JWKS_PATH, jwks)


def approval_keys_route(jwks: Callable[[], Mapping[str, Any]]) -> Route:
    """Return the route at which whoever verifies verdicts finds this JWK Set."""
    return _published(APPROVAL_KEYS, jwks)


def checkpoint_keys_route(jwks: Callable[[], Mapping[str, Any]]) -> Route:
    """Return the route at which whoever verifies checkpoints finds the keys that sign them now, and soon."""
    return _published(CHECKPOINT_KEYS, jwks)


def _published(path: str, jwks: Callable[[], Mapping[str, Any]]) -> Route:
    async def answer(_: Request) -> Response:
        headers = {"Cache-Control": "public, max-age=300"}
        return Response(dump(dict(jwks())), media_type="application/json", headers=headers)

    return Route(path, answer, methods=["GET"])
