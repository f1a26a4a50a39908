"""The canonical form of a JSON value (RFC 8785) and its digest; the only door to rfc8785."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import rfc8785

from mcp_authz.errors import InputError
from mcp_authz.limits import JSON_INTEGER
from mcp_authz.rules.keys import b64url

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, check_circular=False, separators=(",", ":"))
_SCALARS: Final = frozenset({str, bool, type(None)})


def canonical(value: Any) -> bytes:
    """Return the one byte string that stands for `value`; equal JSON values have equal bytes, others differ.

    Raises:
        InputError: the value is not JSON, or has an integer, float or text without a canonical form.
    """
    try:
        # Python's own encoder writes a plain value in the same bytes, at a fraction of the time: a test compares them.
        return _ENCODER.encode(value).encode() if _is_plain(value) else rfc8785.dumps(value)
    except (ValueError, RecursionError):  # a lone surrogate in a key is a plain UnicodeEncodeError
        raise InputError("the value has no canonical JSON form") from None


def _is_plain(value: Any) -> bool:
    """Whether nothing in it is treated differently in RFC 8785: floats, large integers, keys that are not ASCII."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is int:
        return bool(-JSON_INTEGER <= value <= JSON_INTEGER)
    if kind is dict:
        for key, member in value.items():
            # RFC 8785 section 3.2.3 sorts by UTF-16 code units, Python by code points; for ASCII they agree
            if type(key) is not str or not key.isascii():
                return False
            if type(member) is not str and not _is_plain(member):
                return False
        return True
    return (kind is list or kind is tuple) and all(map(_is_plain, value))


def digest(value: Any) -> bytes:
    """Return the SHA-256 of the canonical form, 32 bytes."""
    return hashlib.sha256(canonical(value)).digest()


def digest_b64url(value: Any) -> str:
    """Return the SHA-256 of the canonical form as base64url without padding."""
    return b64url(digest(value))
