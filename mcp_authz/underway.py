"""What is under way, calls and streams: each ends as soon as what it stands on is revoked, by any process.

The rules that let a call in decide whether it still stands: steps 5 and 6 of the road for its caller, and for its
approval what step 13 asks. What only runs out while a call runs, such as its session's time, ends no call: nobody took
it away. A stream is a standing permission to hear, and ends with the token that it was asked for with. A token whose
issuer key was withdrawn stands for nothing, whatever it still names.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import anyio
import anyio.lowlevel

from mcp_authz import limits
from mcp_authz.errors import StoreError, TokenRefused
from mcp_authz.live_keys import LiveKeys
from mcp_authz.model import HeldCall, HoldId, Tool
from mcp_authz.principals import AccessToken, Caller, Proof
from mcp_authz.seldom import trouble
from mcp_authz.store.ports import Clock, Store

log = logging.getLogger(__name__)

_PAUSE: Final = limits.WAIT_PAUSE.total_seconds()
_TROUBLE: Final = 0.25  # seconds between two looks at a store that cannot be read


class Identify(Protocol):
    """`Sessions.identify`."""

    async def __call__(self, token: AccessToken, proof: Proof, *, at: datetime | None = None) -> Caller: ...


class Stands(Protocol):
    """`Approvals.stands`."""

    async def __call__(self, held: HeldCall, *, at: datetime | None = None) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Something that runs; a stream calls no tool, and rests on no approval."""

    caller: Caller
    tool: Tool | None = None
    approval: HoldId | None = None
    since: datetime | None = None  # None: it ends with what runs out, too


class Underway:
    """What runs for whom, in this process. Nothing is looked up while nothing is revoked."""

    def __init__(self, store: Store, issuer: LiveKeys, identify: Identify, stands: Stands, clock: Clock) -> None:
        self._store = store
        self._issuer = issuer
        self._identify = identify
        self._is_approved = stands
        self._clock = clock
        self._running: dict[anyio.CancelScope, _Run] = {}
        self._unseen: set[anyio.CancelScope] = set()  # rests on an approval, and was not looked at yet
        self._somebody = anyio.Event()
        self._fell = anyio.Event()
        self._seen: int | None = None

    @property
    def count(self) -> int:
        """How many calls and streams run now."""
        return len(self._running)

    @property
    def calls(self) -> int:
        """How many calls run now."""
        return sum(run.tool is not None for run in self._running.values())

    @contextmanager
    def while_standing(
        self, caller: Caller, tool: Tool | None = None, approval: HoldId | None = None
    ) -> Iterator[anyio.CancelScope]:
        """The body is cancelled, and `cancel_called` of what it is given, once what the call stands on is revoked.

        A call begins before its decision is on disk: what is revoked later than that is seen, whenever it happens.
        Its approval was looked at earlier than that, and is looked at again.
        """
        with anyio.CancelScope() as scope:
            if approval is not None:
                self._unseen.add(scope)
            with self._among_those(scope, _Run(caller=caller, tool=tool, approval=approval, since=self._clock())):
                yield scope

    @contextmanager
    def while_listening(self, caller: Caller) -> Iterator[None]:
        """The body is cancelled once the caller's token, session or link ends, by itself or by anybody."""
        ends = [caller.token.expires_at]
        if caller.session is not None and caller.chain is not None:
            ends += [caller.session.expires_at, caller.chain.leaf.expires_at]
        with (
            anyio.move_on_after((min(ends) - self._clock()).total_seconds()) as scope,
            self._among_those(scope, _Run(caller=caller)),
        ):
            yield

    @contextmanager
    def _among_those(self, scope: anyio.CancelScope, run: _Run) -> Iterator[None]:
        self._running[scope] = run
        self._somebody.set()
        if self._is_withdrawn(run.caller):  # since the token was read, and maybe since everything was looked at
            scope.cancel()
        try:
            yield
        finally:
            del self._running[scope]
            self._unseen.discard(scope)

    async def run(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Whatever loses its authority ends, and after revocations `tell` is called, now and then; without end."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_telling, tell)
            await self._watch()

    async def _watch(self) -> None:
        changed = 0
        with suppress(StoreError):
            self._seen = await self._store.endings()  # nothing runs yet: what was revoked until now is no news
        while True:
            if not self._running:
                self._somebody = anyio.Event()
                await self._somebody.wait()
            try:
                changed = await self._store.changed(changed)
                newest = await self._store.endings()
                if newest != self._seen:
                    await self._issuer.refresh()  # one of its keys may be what ended
                    await self._end_what_fell(list(self._running))
                    self._seen = newest
                    self._fell.set()
                elif self._unseen:
                    await self._end_what_fell(list(self._unseen))
            except StoreError as error:
                trouble.error(error, "what runs cannot be watched, the store cannot be read: %s", error)
                changed = 0  # what could not be looked at is looked at again, whether anything is written or not
                await anyio.sleep(_TROUBLE)
            await anyio.sleep(_PAUSE)

    async def _keep_telling(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Many revocations at once are told of once, and whoever is slow to hear of them keeps nothing running."""
        while True:
            await self._fell.wait()
            self._fell = anyio.Event()
            with anyio.move_on_after(limits.NOTICE_TIMEOUT.total_seconds()):
                await tell()
            await anyio.sleep(limits.LISTING_PAUSE.total_seconds())

    async def _end_what_fell(self, looked_at: list[anyio.CancelScope]) -> None:
        stands: dict[tuple[str, Proof, bool], bool] = {}
        off = await self._store.switched_off()
        for scope in looked_at:
            run = self._running.get(scope)
            if run is None:  # it has ended meanwhile
                continue
            presented = (run.caller.token.id, run.caller.proof, run.since is None)
            if presented not in stands:
                stands[presented] = await self._stands(run)
                await anyio.lowlevel.checkpoint()  # however much runs, requests are answered in between
            is_off = run.tool is not None and any(it.is_for(run.tool.server, run.tool.tool) for it in off)
            is_let = not is_off and stands[presented] and await self._approved(run)
            if not is_let and scope in self._running:
                log.info("what %s had under way has ended: it was revoked, or switched off", run.caller.agent.name)
                scope.cancel()
            self._unseen.discard(scope)

    def _is_withdrawn(self, caller: Caller) -> bool:
        return caller.token.signed_by is not None and self._issuer.is_withdrawn(caller.token.signed_by)

    async def _stands(self, run: _Run) -> bool:
        try:
            now = await self._identify(run.caller.token, run.caller.proof, at=run.since)
        except TokenRefused:
            return False
        return now.session is not None or run.caller.session is None

    async def _approved(self, run: _Run) -> bool:
        """Whether what approved the call still counts."""
        if run.approval is None:
            return True
        held = await self._store.hold(run.approval)
        return held is not None and await self._is_approved(held, at=run.since)
