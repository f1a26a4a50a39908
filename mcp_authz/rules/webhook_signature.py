"""Signatures of webhook messages, as the Standard Webhooks specification has them (`v1`: HMAC-SHA256)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.rules.keys import equal

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
_PREFIX: Final = "whsec_"
_SHORTEST, _LONGEST = 24, 64  # bytes of a secret
_SIGNATURES: Final = 8  # in one header: more than one while a secret is replaced
_IDS: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,11}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSecret:
    """What both sides of a webhook know, and nobody else."""

    key: bytes = field(repr=False)

    def __repr__(self) -> str:
        return "<redacted>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message of which it is known who sent it, and that it was sent just now."""

    id: str
    sent_at: datetime


def make_secret(random: bytes) -> str:
    """Return these random bytes as a secret is written: `whsec_` and base64."""
    return _PREFIX + base64.b64encode(random).decode()


def read_secret(text: str) -> WebhookSecret:
    """Return the secret that is written here.

    Raises:
        InputError: it is not `whsec_` and the base64 of 24 to 64 bytes; the message does not repeat it.
    """
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise InputError(f"it is not `{_PREFIX}` and base64 of {_SHORTEST} to {_LONGEST} bytes")
    return WebhookSecret(key=key)


def signed_headers(secret: WebhookSecret, *, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers by which a receiver knows who sent this body, and when."""
    seconds = str(int(at.timestamp()))
    return {ID: message_id, TIMESTAMP: seconds, SIGNATURE: f"v1,{_mac(secret, message_id, seconds, body)}"}


def require_signature(secret: WebhookSecret, headers: Mapping[str, str], body: bytes, now: datetime) -> Received:
    """Return what the headers say, once they are known to be of who knows the secret, of this body, and of just now.

    Raises:
        SignatureRefused: they are not.
    """
    message_id, seconds = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not _IDS.fullmatch(message_id) or not _SECONDS.fullmatch(seconds):
        raise SignatureRefused(f"`{ID}` or `{TIMESTAMP}` is missing, or not what it should be")
    made = f"v1,{_mac(secret, message_id, seconds, body)}".encode()
    given = headers.get(SIGNATURE, "").split(" ")[:_SIGNATURES]
    if not any(equal(one.encode(), made) for one in given):
        raise SignatureRefused("no signature of it is made with the secret of this webhook")
    if abs(now.timestamp() - int(seconds)) > limits.WEBHOOK_AGE.total_seconds():
        raise SignatureRefused("it was not sent just now; check the clock and sign again")
    return Received(id=message_id, sent_at=datetime.fromtimestamp(int(seconds), UTC))


def _mac(secret: WebhookSecret, message_id: str, seconds: str, body: bytes) -> str:
    signed = f"{message_id}.{seconds}.".encode() + body
    return base64.b64encode(hmac.digest(secret.key, signed, hashlib.sha256)).decode()
