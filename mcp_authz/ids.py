"""Identifiers nobody can guess: a letter that names the kind, and 128 random bits."""

from __future__ import annotations

import base64
import secrets


def new_id(kind: str) -> str:
    """Return a fresh id such as `h_x5nq...`: the kind, an underscore, 26 letters and digits (128 bits, base32)."""
    return f"{kind}_{base64.b32encode(secrets.token_bytes(16)).decode().rstrip('=').lower()}"
