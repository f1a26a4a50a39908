"""What a request to administer asks for: the parameters of its query, or the members of its JSON object."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request

from mcp_authz import limits
from mcp_authz.administration import Actor
from mcp_authz.errors import InputError
from mcp_authz.protocol.json_body import bounded_body, require_json
from mcp_authz.rules import strict_json
from mcp_authz.rules.audit_query import number

MOST: Final = 500  # things of a list in one answer
_FEW: Final = 50  # of them, where the request does not say
_BODY: Final = 16 * 1024  # bytes

Answer = Callable[[Request, Actor], Awaitable[Mapping[str, Any]]]


def asked(request: Request, *known: str) -> tuple[dict[str, str], int]:
    """What the query asks for, and how many; `known` are all that there may be, where some are given.

    Raises:
        InputError: a parameter comes twice, or is unknown.
    """
    given = request.query_params.multi_items()
    said = {name: value for name, value in given if value}
    if len({name for name, _ in given}) < len(given):
        raise InputError("give each parameter once")
    limit = number("limit", said.pop("limit", None))
    if known and said.keys() - {*known}:
        raise InputError(f"the parameters here are limit, {', '.join(known)}")
    return said, min(limit or _FEW, MOST)


async def members(request: Request) -> Mapping[str, Any]:
    """The JSON object that a request has as its body.

    Raises:
        InputError: it has none, or none of this size.
    """
    require_json(request)
    return strict_json.parse_object(await bounded_body(request, most=_BODY), max_bytes=_BODY)


def exactly(said: Mapping[str, Any], *needed: str, maybe: tuple[str, ...] = ()) -> None:
    """The object has these members and no others.

    Raises:
        InputError: it has not.
    """
    if not said.keys() >= {*needed} or said.keys() - {*needed, *maybe}:
        wanted = f", and if wanted {', '.join(maybe)}" if maybe else ""
        raise InputError(f"give exactly {', '.join(needed) or 'an empty object'}{wanted}")


def text(said: Mapping[str, Any], name: str) -> str:
    """A member that is some text.

    Raises:
        InputError: it is not, or too long.
    """
    value = said[name]
    if not isinstance(value, str) or not 0 < len(value) <= limits.REASON:
        raise InputError(f"`{name}` is 1 to {limits.REASON} characters")
    return value


def flag(said: Mapping[str, Any], name: str) -> bool:
    """A member that is true or false, and false where it is not there.

    Raises:
        InputError: it is neither.
    """
    value = said.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"`{name}` is true or false")
    return value
