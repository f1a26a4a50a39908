"""Checkpoints in use: where the log ends is signed now and then, and left where whoever can write the log cannot.

The record of a checkpoint is part of the log itself, so that numbering goes on wherever the gateway is started.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import anyio

from mcp_authz.errors import AuthzError, StoreError
from mcp_authz.rules.checkpoint import FIRST, Checkpoint, Head, checkpoint_digest, sign_checkpoint
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.merkle import root
from mcp_authz.store.ports import Clock, Event, Record, Store

log = logging.getLogger(__name__)


class Sink(Protocol):
    """A place outside the store where checkpoints are kept."""

    @property
    def name(self) -> str:
        """What it is called in records and errors."""

    async def keep(self, text: str) -> None:
        """The checkpoint is there, durably.

        Raises:
            AuthzError: it is not; the message says why.
        """


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
        self, *, store: Store, clock: Clock, issuer: str, signing: Callable[[], PrivateKey], sinks: Sequence[Sink]
    ) -> None:
        """`signing` returns the key that signs now."""
        self._store = store
        self._clock = clock
        self._issuer = issuer
        self._signing = signing
        self._sinks = tuple(sinks)
        self._failing: frozenset[str] = frozenset()

    async def write(self) -> Written | None:
        """A checkpoint of the log as it is now is in every sink that takes it; None when nothing was written since.

        Raises:
            StoreError: the store cannot be read or written, or there is no key to sign with.
        """
        (first,) = await self._store.records(limit=1) or (None,)
        last = await self._store.last_of("checkpoint")
        sequence, hash_ = await self._store.head()
        if first is None or (last is not None and last.sequence == sequence):
            return None
        key = self._signing()
        if not _is_known(last, key):
            last = await self._store.append(self._new_key(last, key))
            sequence, hash_ = last.sequence, last.hash
        said = {} if last is None else last.event.fields
        checkpoint = Checkpoint(
            number=int(said.get("n", 0)) + 1,
            previous=bytes.fromhex(str(said.get("digest", FIRST.hex()))),
            issuer=self._issuer,
            at=self._clock(),
            heads=(await self._head(first.hash, int(said.get("sequence", 0)), sequence, hash_),),
        )
        return await self._keep(checkpoint, sign_checkpoint(checkpoint, key), key)

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

    async def _head(self, chain: bytes, after: int, sequence: int, hash_: bytes) -> Head:
        hashes = await self._store.record_hashes(after=after, until=sequence)
        return Head(chain=chain, sequence=sequence, hash=hash_, after=after, root=root(hashes))

    async def _keep(self, checkpoint: Checkpoint, text: str, key: PrivateKey) -> Written:
        kept, failed = [], []
        for sink in self._sinks:
            try:
                await sink.keep(text)
                kept.append(sink.name)
            except AuthzError as error:
                failed.append(sink.name)
                if sink.name not in self._failing:  # once, until it works again
                    log.error("checkpoint %s is not in %s: %s", checkpoint.number, sink.name, error)
        self._failing = frozenset(failed)
        (head,) = checkpoint.heads
        fields = {
            "summary": f"checkpoint {checkpoint.number} up to record {head.sequence}"
            + (f", kept by {', '.join(kept)}" if kept else ", kept nowhere")
            + (f"; {', '.join(failed)} could not be reached" if failed else ""),
            "n": checkpoint.number,
            "digest": checkpoint_digest(text).hex(),
            "text": text,
            "sequence": head.sequence,
            "kid": key.public.thumbprint,
            "kept": kept,
            "failed": failed,
        }
        await self._store.append(Event(kind="checkpoint", at=checkpoint.at, fields=fields))
        return Written(checkpoint=checkpoint, text=text, kept=tuple(kept), failed=tuple(failed))

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
        }
        return Event(kind="checkpoint", at=self._clock(), fields=fields)


def _is_known(last: Record | None, key: PrivateKey) -> bool:
    return last is not None and last.event.fields.get("kid") == key.public.thumbprint
