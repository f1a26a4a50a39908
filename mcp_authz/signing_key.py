"""The keys that the gateway itself signs with, for each use, and how one follows another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from mcp_authz import limits
from mcp_authz.principals import Thumbprint

KeyUse = Literal["issuer", "context", "checkpoint"]
"""What a key signs: `issuer` access tokens and the roots of chains, `context` what tool servers are told of a call,
`checkpoint` where the audit log ends.
"""

USES: Final[tuple[KeyUse, ...]] = ("issuer", "context", "checkpoint")

OVERLAP: Final[dict[KeyUse, timedelta]] = {
    "issuer": limits.ROOT_KEY_OVERLAP,
    "context": limits.CONTEXT_KEY_OVERLAP,
    "checkpoint": timedelta(),  # whoever verifies a checkpoint has the public keys of all times
}
"""How long what a key signed can still count after another one signs in its place."""

KeyState = Literal["next", "signing", "replaced", "retired", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key of the gateway: published from `made_at` on, signing from `signs_from` until the next one does."""

    kid: Thumbprint
    use: KeyUse
    made_at: datetime
    signs_from: datetime
    retires_at: datetime | None = None  # from then on nothing that it signed counts
    status: Literal["active", "revoked"] = "active"
    seed: bytes | None = field(repr=False)  # None: it is over, and its private half deleted
    public: bytes | None = field(default=None, compare=False)  # 32 bytes; None: it was over before they were kept

    def counts(self, at: datetime) -> bool:
        """Whether anything that it signed may count at this time."""
        return self.status == "active" and self.seed is not None and (self.retires_at is None or at < self.retires_at)


def signer(keys: Iterable[SigningKey], at: datetime) -> SigningKey | None:
    """Return the key of one use that signs at this time: of those that count and may sign, the newest.

    Where the clock was set back to before the first one, that one.
    """
    counting = sorted((key for key in keys if key.counts(at)), key=_order)
    able = [key for key in counting if key.signs_from <= at]
    return able[-1] if able else next(iter(counting), None)


def replaced_at(key: SigningKey, keys: Iterable[SigningKey]) -> datetime | None:
    """Return when another key began, or begins, to sign in the place of this one."""
    later = (other for other in keys if other.status == "active" and _order(other) > _order(key))
    return min((other.signs_from for other in later), default=None)


def state(key: SigningKey, keys: Iterable[SigningKey], at: datetime) -> KeyState:
    """Return how the key stands among those of its use."""
    if key.status == "revoked":
        return "revoked"
    if not key.counts(at):
        return "retired"
    if at < key.signs_from:
        return "next"
    return "signing" if signer(keys, at) == key else "replaced"


def _order(key: SigningKey) -> tuple[datetime, datetime, str]:
    return key.signs_from, key.made_at, key.kid
