"""Identifiers nobody can guess: a letter that names the kind, and 130 random bits."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Final

from mcp_authz.principals import LinkId
from mcp_authz.rules import link_id

_CHARACTERS: Final = 26
_BASE32: Final = b"abcdefghijklmnopqrstuvwxyz234567" * 8  # each byte stands for the character of its last five bits


def new_id(kind: str) -> str:
    """Return a fresh id such as `h_x5nq...`: the kind, an underscore, 26 letters and digits (130 bits, base32)."""
    return f"{kind}_{secrets.token_bytes(_CHARACTERS).translate(_BASE32).decode()}"


def new_uuid7(at: datetime) -> str:
    """Return a fresh UUIDv7: the time, and 74 random bits (RFC 9562 section 5.7)."""
    return link_id.uuid7(at, secrets.token_bytes(10))


def new_link(at: datetime) -> LinkId:
    """Return the id of a new link, which can be signed."""
    return link_id.link_id(new_uuid7(at))
