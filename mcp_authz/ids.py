"""Identifiers nobody can guess: a letter that names the kind, and 128 random bits."""

from __future__ import annotations

import base64
import secrets
from datetime import datetime

from mcp_authz.principals import LinkId
from mcp_authz.rules import link_id


def new_id(kind: str) -> str:
    """Return a fresh id such as `h_x5nq...`: the kind, an underscore, 26 letters and digits (128 bits, base32)."""
    return f"{kind}_{base64.b32encode(secrets.token_bytes(16)).decode().rstrip('=').lower()}"


def new_uuid7(at: datetime) -> str:
    """Return a fresh UUIDv7: the time, and 74 random bits (RFC 9562 section 5.7)."""
    return link_id.uuid7(at, secrets.token_bytes(10))


def new_link(at: datetime) -> LinkId:
    """Return the id of a new link, which can be signed."""
    return link_id.link_id(new_uuid7(at))
