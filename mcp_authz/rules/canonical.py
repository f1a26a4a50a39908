"""The canonical form of a JSON value (RFC 8785) and its digest; the only door to rfc8785."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from mcp_authz.errors import InputError
from mcp_authz.rules.keys import b64url


def canonical(value: Any) -> bytes:
    """Return the one byte string that stands for `value`; equal JSON values have equal bytes, others differ.

    Raises:
        InputError: the value is not JSON, or has an integer, float or text without a canonical form.
    """
    try:
        return rfc8785.dumps(value)
    except (ValueError, RecursionError):  # a lone surrogate in a key is a plain UnicodeEncodeError
        raise InputError("the value has no canonical JSON form") from None


def digest(value: Any) -> bytes:
    """Return the SHA-256 of the canonical form, 32 bytes."""
    return hashlib.sha256(canonical(value)).digest()


def digest_b64url(value: Any) -> str:
    """Return the SHA-256 of the canonical form as base64url without padding."""
    return b64url(digest(value))
