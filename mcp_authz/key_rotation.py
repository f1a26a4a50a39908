"""Giving the gateway another key to sign with: after an overlap, or at once when the old one may be known to others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from mcp_authz import limits
from mcp_authz.live_keys import new_seed
from mcp_authz.principals import Thumbprint
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.signing_key import OVERLAP, USES, KeyUse, SigningKey, state
from mcp_authz.store.ports import Clock, Event, Store


class KeyRotation:
    """Makes signing keys; gateways that run on the same store follow by themselves."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def keys(self, use: KeyUse) -> tuple[SigningKey, ...]:
        """Return every key of this use, oldest first; the first call makes one."""
        return await self._store.begin_signing(use, new_seed)

    async def rotate(self, use: KeyUse, *, by: str, reason: str = "") -> SigningKey:
        """Return the new key: published now, signing when every reader of published keys has had time to see it.

        What was signed before counts until it ends by itself.

        Raises:
            Conflict: a key that was made before does not sign yet.
        """
        await self.keys(use)
        now = self._clock()
        new = _made(use, now, signs_from=now + limits.KEY_PUBLISHED)
        retires_at = new.signs_from + OVERLAP[use]
        summary = f"a new {use} key signs from {new.signs_from:%Y-%m-%d %H:%M:%S} UTC on"
        await self._store.rotate_signing_key(
            new, _event_for(new, f"{by} rotated: {summary}", by, reason, retires_at), retire_others_at=retires_at
        )
        return new

    async def replace(self, use: KeyUse, *, by: str, reason: str = "") -> SigningKey:
        """Return the new key, which signs from now on; nothing that another one signed counts any more."""
        await self.keys(use)
        now = self._clock()
        new = _made(use, now, signs_from=now)
        summary = f"{by} replaced the {use} key at once: what it signed does not count any more"
        await self._store.replace_signing_keys(new, _event_for(new, summary, by, reason, now))
        return new


async def signing_keys(store: Store, clock: Clock) -> tuple[tuple[SigningKey, str], ...]:
    """Each key that the gateway has for signing, and how it stands."""
    rotation = KeyRotation(store, clock)
    known = [await rotation.keys(use) for use in USES]
    now = clock()
    return tuple((key, state(key, keys, now)) for keys in known for key in keys)


def _made(use: KeyUse, at: datetime, *, signs_from: datetime) -> SigningKey:
    seed = new_seed()
    kid = Thumbprint(PrivateKey.from_seed(seed).public.thumbprint)
    return SigningKey(kid=kid, use=use, made_at=at, signs_from=signs_from, seed=seed)


def _event_for(
    new: SigningKey, summary: str, by: str, reason: str, retires_at: datetime
) -> Callable[[Sequence[SigningKey]], Event]:
    def event(before: Sequence[SigningKey]) -> Event:
        fields = {
            "summary": summary,
            "by": by,
            "use": new.use,
            "key": new.kid,
            "signs_from": new.signs_from.isoformat(),
            "replaces": [key.kid for key in before],
            "replaced_count_until": retires_at.isoformat(),
            **({"reason": reason} if reason else {}),
        }
        return Event(kind="administration", at=new.made_at, fields=fields)

    return event
