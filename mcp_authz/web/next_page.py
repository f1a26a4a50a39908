"""Which page a browser goes on to after somebody has signed in: one of ours, and nothing that could lead elsewhere."""

from __future__ import annotations

import re
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import InputError

HOME: Final = "/holds"
_PAGES: Final = (
    *("holds", "passkeys", "access", "authorize", "sessions", "agents", "agent", "audit", "stop"),
    *("tools", "tool", "people", "person"),
)

# One spelling each: browsers take a backslash for a slash, drop line breaks, and read `//` as another host.
_QUERY: Final = "[!-~]*"  # printable ASCII without blanks
_NEVER: Final = frozenset('"\\<>#')
_OURS: Final = re.compile(rf"/(?:{'|'.join(_PAGES)})(?:/[A-Za-z0-9._~%-]+)*(?:\?{_QUERY})?")


def next_page(text: str) -> str:
    """Return `text` as the path, with its query, of a page of ours; `/holds` for an empty one.

    Raises:
        InputError: it is no page of ours, or too long to be remembered meanwhile.
    """
    if text in {"", "/"}:
        return HOME
    if len(text) > limits.NEXT_PAGE:
        raise InputError(f"the address of this page is too long to come back to; sign in at {HOME}, then open it again")
    if (
        not _OURS.fullmatch(text)
        or set(text) & _NEVER
        or any(part in {".", ".."} for part in text.partition("?")[0].split("/"))
    ):
        raise InputError("there is no such page here to come back to")
    return text
