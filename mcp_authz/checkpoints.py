"""Checkpoints in use: where the log ends is signed now and then, and left where whoever can write the log cannot.

The record of a checkpoint is part of the log itself, and there before anybody else has it, so that numbering goes on
wherever the gateway is started.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel

from mcp_authz.checkpoint_delivery import Delivery, Sink
from mcp_authz.errors import StoreError
from mcp_authz.rules.checkpoint import FIRST, Checkpoint, Head, checkpoint_digest, sign_checkpoint
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.merkle import root
from mcp_authz.store.ports import Clock, Event, Record, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A checkpoint that was made, and which sinks have it."""

    checkpoint: Checkpoint
    text: str
    kept: tuple[str, ...]
    failed: tuple[str, ...]


class Checkpoints:
    """Makes checkpoints of one store."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        issuer: str,
        signing: Callable[[], PrivateKey],
        sinks: Sequence[Sink],
        epoch: int = 0,
    ) -> None:
        """`signing` returns the key that signs now; `epoch` is the store's, which stays as it is while it is open."""
        self._store = store
        self._clock = clock
        self._issuer = issuer
        self._signing = signing
        self._sinks = tuple(sinks)
        self._epoch = epoch
        self._delivery = Delivery(store, sinks)

    async def write(self) -> Written | None:
        """A checkpoint of the log as it is now is in every sink that takes it; None when nothing was written since.

        A sink that lacks older ones gets them first; one that takes none is tried again the next time, and on record.

        Raises:
            StoreError: the store cannot be read or written, or there is no key to sign with.
        """
        (first,) = await self._store.records(limit=1) or (None,)
        last = await self._store.last_of("checkpoint")
        sequence, _ = await self._store.head()
        await self._delivery.begin(last)
        failed = await self._delivery.deliver()
        if first is None or (last is not None and last.sequence == sequence):
            await self._tell(last, failed)
            return None
        key = self._signing()
        if not _is_known(last, key):
            last = await self._store.append(self._new_key(last, key))
        checkpoint = await self._checkpoint(first, {} if last is None else last.event.fields)
        text = sign_checkpoint(checkpoint, key)
        record = await self._store.append(self._made(checkpoint, text, key))
        self._delivery.add(record.sequence)
        failed = await self._delivery.deliver(failed)
        await self._tell(record, failed)
        kept = tuple(sink.name for sink in self._sinks if sink.name not in failed)
        return Written(checkpoint=checkpoint, text=text, kept=kept, failed=tuple(failed))

    async def run(self, every: timedelta, while_waiting: Callable[[], Awaitable[None]] = anyio.sleep_forever) -> None:
        """A checkpoint is written now, and then every so often; without end. What cannot be written is in the log."""
        while True:
            await self.write_if_possible()
            with anyio.move_on_after(every.total_seconds()):
                await while_waiting()

    async def write_if_possible(self) -> None:
        """A checkpoint is written, or the log of the process says why not."""
        try:
            await self.write()
        except StoreError as error:
            log.error("no checkpoint was written: %s", error)

    async def _checkpoint(self, first: Record, said: Mapping[str, Any]) -> Checkpoint:
        """The next one, of the log as it is now; `said` is what the last one's record has."""
        base, (sequence, hash_) = await self._store.log_base(), await self._store.head()
        after = int(said.get("sequence", 0))
        hashes = await self._store.record_hashes(after=after, until=sequence)
        chain = base.chain if base.sequence else first.hash
        return Checkpoint(
            number=int(said.get("n", 0)) + 1,
            previous=bytes.fromhex(str(said.get("digest", FIRST.hex()))),
            issuer=self._issuer,
            at=self._clock(),
            heads=(Head(chain=chain, sequence=sequence, hash=hash_, after=after, root=root(hashes)),),
            epoch=self._epoch,
        )

    def _made(self, checkpoint: Checkpoint, text: str, key: PrivateKey) -> Event:
        (head,) = checkpoint.heads
        fields = {
            "summary": f"checkpoint {checkpoint.number} up to record {head.sequence}",
            "n": checkpoint.number,
            "digest": checkpoint_digest(text).hex(),
            "text": text,
            "sequence": head.sequence,
            "kid": key.public.thumbprint,
            "behind": dict(self._delivery.behind),
        }
        return Event(kind="checkpoint", at=checkpoint.at, fields=fields)

    async def _tell(self, last: Record | None, failed: Mapping[str, str]) -> None:
        """What sinks lack is on record, where that is news behind `last`, the newest record of a checkpoint."""
        behind = self._delivery.behind
        if last is None or behind == last.event.fields.get("behind", {}):
            return
        reasons = ", ".join(f"{name} ({why})" for name, why in failed.items())
        said = f"{reasons} could not be reached, and is tried again" if behind else "every place has all of them"
        fields = {
            **{name: last.event.fields[name] for name in ("n", "digest", "sequence", "kid")},
            "summary": f"checkpoints: {said}",
            "behind": dict(behind),
            "record": int(last.event.fields.get("record", last.sequence)),
        }
        await self._store.append(Event(kind="checkpoint", at=self._clock(), fields=fields))

    def _new_key(self, last: Record | None, key: PrivateKey) -> Event:
        """The record of the key that signs from here on; numbering goes on."""
        before = {} if last is None else last.event.fields
        fields: dict[str, Any] = {
            "summary": f"checkpoints are signed by key {key.public.thumbprint} from now on",
            "kid": key.public.thumbprint,
            "jwk": key.public.jwk,
            "n": int(before.get("n", 0)),
            "digest": str(before.get("digest", FIRST.hex())),
            "sequence": int(before.get("sequence", 0)),
            "behind": dict(self._delivery.behind),
        }
        return Event(kind="checkpoint", at=self._clock(), fields=fields)


def _is_known(last: Record | None, key: PrivateKey) -> bool:
    return last is not None and last.event.fields.get("kid") == key.public.thumbprint


async def checkpoint_keys(store: Store) -> dict[str, Any]:
    """The public keys that the log names as those of its checkpoints, as a JWK Set (RFC 7517 section 5).

    Those that only pruned records name are in the record of the pruning.
    """
    found: dict[str, dict[str, Any]] = {}
    base = await store.log_base()
    for record in await store.records(after=base.told - 1, limit=1) if base.told else ():
        found |= {jwk["kid"]: jwk for jwk in record.event.fields["pruned"]["keys"]}
    after = base.sequence
    while records := await store.records(after=after, kind="checkpoint"):
        for record in records:
            after = record.sequence
            if "jwk" in record.event.fields:
                kid = str(record.event.fields["kid"])
                found[kid] = {**record.event.fields["jwk"], "kid": kid, "use": "sig", "alg": "EdDSA"}
        await anyio.lowlevel.checkpoint()
    return {"keys": list(found.values())}
