"""The body of a request that has to be JSON: whole, in time, and no longer than it may be."""

from __future__ import annotations

import anyio
from starlette.requests import ClientDisconnect, Request

from mcp_authz import limits
from mcp_authz.errors import InputError


def require_json(request: Request) -> None:
    """The request says that its body is JSON.

    Raises:
        InputError: it does not.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InputError("send JSON, with content-type: application/json")


async def bounded_body(request: Request, *, most: int) -> bytes:
    """Return the body, of at most so many bytes.

    Raises:
        InputError: it is longer, or did not arrive in time.
    """
    body = bytearray()
    try:
        with anyio.fail_after(limits.SMALL_BODY_TIME.total_seconds()):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise InputError(f"the body is longer than {most} bytes")
    except (TimeoutError, ClientDisconnect):
        raise InputError("the body did not arrive whole") from None
    return bytes(body)
