"""The policy that decides at every moment: the one that was loaded last and found to be sound, swapped as a whole."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn

import anyio
import anyio.to_thread

from mcp_authz import limits
from mcp_authz.errors import ConfigError, PolicyError, StoreError
from mcp_authz.policy.engine import PolicyAnswer, PolicyEngine, PolicyInput
from mcp_authz.store.ports import Clock, Event, Log

log = logging.getLogger(__name__)

Texts = Mapping[str, str]
Read = Callable[[], Texts]
Make = Callable[[Texts], PolicyEngine]
State = tuple[tuple[str, str], ...]
"""The files by name and digest: enough to tell one state of them from another."""
Try = Callable[[PolicyEngine], Awaitable[None]]

_PAUSE: Final = limits.POLICY_LOOKED_AT.total_seconds()


class LivePolicy:
    """Stands for the engine that decides now; everybody who asks policy is given this one object.

    The files are read over and over, and what they hold is loaded once two readings in a row agree, so that a file
    that is being written is not taken for a whole one. A set that cannot be loaded, or that a trial refuses, changes
    nothing but what is said about it.
    """

    def __init__(self, *, key: str, read: Read, make: Make, absent: PolicyEngine | None = None) -> None:
        """The policy is loaded.

        Args:
            key: the key of the configuration that names it, as records and log call it.
            read: returns the files' texts; blocks while it reads.
            make: returns the sound engine over these texts.
            absent: what to ask until something can be loaded; None: it must be loaded now.

        Raises:
            ConfigError, PolicyError: it cannot be loaded, and must be.
        """
        self.key = key
        self._read = read
        self._make = make
        self._current, self._decides = self._first(absent)  # the engine that decides, and its files
        # The files that were loaded last, or tried to be; or why they cannot be read.
        self._tried: State | str = "" if self._decides is None else self._decides
        self._turn = anyio.Lock()  # one reload at a time: looking and being told to may coincide

    def _first(self, absent: PolicyEngine | None) -> tuple[PolicyEngine, State | None]:
        try:
            texts = self._read()
            return self._make(texts), _state(texts)
        except (ConfigError, PolicyError) as error:
            if absent is None:
                raise
            log.error("`%s` cannot be loaded: %s", self.key, error)
            return absent, None

    @property
    def current(self) -> PolicyEngine:
        """The engine that decides now; whoever asks more than one thing of it takes it once."""
        return self._current

    @property
    def digest(self) -> str:
        """The digest of the engine that decides now."""
        return self._current.digest

    async def aclose(self) -> None:
        """An engine elsewhere is not connected any more."""
        if (close := getattr(self._current, "aclose", None)) is not None:
            await close()

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        """Return the answer of the engine that decides now."""
        return await self._current.evaluate(document)

    async def follow(self, log_: Log, clock: Clock, try_: Try) -> NoReturn:
        """Load what the files hold whenever they change; without end."""
        seen = self._tried
        while True:
            await anyio.sleep(_PAUSE)
            now = await anyio.to_thread.run_sync(self._look)
            if now == seen != self._tried:
                await self.reload(log_, clock, try_)
            seen = now

    async def reload(self, log_: Log, clock: Clock, try_: Try) -> bool:
        """Whether what the files hold decides from now on; nothing is loaded where it decides already.

        The new set decides for every call that is evaluated from the moment on in which this swaps it; the record of
        it stands before every record that rests on it, and after each permit that rests on the old one.

        Args:
            log_: where it is recorded, also that it was refused.
            clock: the time.
            try_: raises PolicyError when an engine must not decide; asked with the new one before it does.
        """
        async with self._turn:
            try:
                texts = await anyio.to_thread.run_sync(self._read)
            except ConfigError as error:
                return await self._keep(log_, clock, str(error), str(error))
            state = _state(texts)
            if state == self._decides:
                return await self._is_as_it_was(log_, clock, state)
            try:
                engine = await anyio.to_thread.run_sync(self._make, texts)
                await try_(engine)
            except (ConfigError, PolicyError) as error:
                return await self._keep(log_, clock, state, str(error))
            except Exception as error:  # noqa: BLE001 - whatever a library makes of a bad file, calls go on
                return await self._keep(log_, clock, state, f"it cannot be loaded: {type(error).__name__}")
            return await self._swap(log_, clock, engine, state)

    async def _swap(self, log_: Log, clock: Clock, engine: PolicyEngine, state: State) -> bool:
        before, self._current = self._current, engine
        files = sorted(dict(set(state) ^ set(self._decides or ())))
        told = f"loaded anew from {', '.join(files)}: {before.digest[:12]} before, {engine.digest[:12]} now"
        fields = self._fields(told) | {"policy": engine.digest, "before": before.digest, "files": files}
        # Nothing waits between the swap and the record's place in the store's queue: no other record comes in between.
        try:
            await log_.append(Event(kind="policy", at=clock(), fields=fields))
        except StoreError as error:
            self._current = before
            log.error("`%s` stays as it was, for that it changed cannot be recorded: %s", self.key, error)
            return False
        self._decides = self._tried = state
        log.warning("`%s`: %s", self.key, told)
        return True

    async def _is_as_it_was(self, log_: Log, clock: Clock, state: State) -> bool:
        """What is on disk decides already; where something bad stood there meanwhile, that is over, and said."""
        if self._tried != state:
            self._tried = state
            fields = self._fields(f"what is on disk is again what decides, {self.digest[:12]}")
            await self._record(log_, Event(kind="policy", at=clock(), fields=fields | {"policy": self.digest}))
        return True

    async def _keep(self, log_: Log, clock: Clock, state: State | str, why: str) -> bool:
        """What decides stays; why is in the log, and once on record."""
        log.error("`%s` on disk is not what decides: %s", self.key, why)
        if self._tried != state:
            self._tried = state
            fields = self._fields(f"what is on disk is not what decides, {self.digest[:12]} stays: {why}")
            more = {"policy": self.digest, "error": why[: limits.DETAIL_RECORDED]}
            await self._record(log_, Event(kind="policy", at=clock(), fields=fields | more))
        return False

    async def _record(self, log_: Log, event: Event) -> None:
        try:
            await log_.append(event)
        except StoreError as error:  # nothing rests on this record, and no call is forwarded without its own
            log.error("`%s`: %s", self.key, error)

    def _fields(self, summary: str) -> dict[str, Any]:
        return {"key": self.key, "summary": f"`{self.key}`: {summary}"}

    def _look(self) -> State | str:
        """What tells one state of the files from another, also of files that cannot be read."""
        try:
            return _state(self._read())
        except ConfigError as error:
            return str(error)


def _state(texts: Texts) -> State:
    return tuple((name, hashlib.sha256(text.encode()).hexdigest()) for name, text in texts.items())
