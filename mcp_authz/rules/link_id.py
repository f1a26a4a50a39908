"""The two spellings of a link's id: short and typed for people, a UUIDv7 in what is signed (RFC 9562 section 5.7).

The bytes are turned around for people, so that the random end of the UUID comes first and a few characters tell two
links apart; both spellings name the same 128 bits.
"""

from __future__ import annotations

import base64
import re
import uuid
from datetime import datetime
from typing import Final

from mcp_authz.errors import InputError
from mcp_authz.principals import LinkId

_OURS: Final = re.compile(r"l_[a-z2-7]{26}")
_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def uuid7(at: datetime, random: bytes) -> str:
    """Return the UUIDv7 of this time and these ten random bytes, in lower case."""
    millis = int(at.timestamp() * 1000)
    value = (millis << 80) | int.from_bytes(random[:10])
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def link_id(jti: str) -> LinkId:
    """Return the id by which the store and people know the link that is signed with this `jti`.

    Raises:
        InputError: it is no UUIDv7 in lower case.
    """
    if _UUID7.fullmatch(jti) is None:
        raise InputError("the id of a link is no UUIDv7 in lower case")
    turned = uuid.UUID(jti).bytes[::-1]
    return LinkId(f"l_{base64.b32encode(turned).decode().rstrip('=').lower()}")


def jti(link: str) -> str:
    """Return the id that is signed for this link.

    Raises:
        InputError: it is no id of a link that can be signed.
    """
    if _OURS.fullmatch(link) is not None:
        text = str(uuid.UUID(bytes=base64.b32decode(f"{link[2:].upper()}======")[::-1]))
        if _UUID7.fullmatch(text) is not None and link_id(text) == link:
            return text
    raise InputError("that is no id of a link that can be signed; a new session has one")
