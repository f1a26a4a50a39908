"""The calls in flight on one connection: which of them a notification or a question of the server belongs to."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, Final

import anyio

from mcp_authz.downstream import Relay
from mcp_authz.errors import DownstreamRefusal
from mcp_authz.limits import NOTICE_TIMEOUT, NOTIFICATIONS_WAITING
from mcp_authz.rules.message import OWN_META, without_own_meta
from tool_adapters.sdk import refusal_of_unknown

logger = logging.getLogger(__name__)

_QUESTIONS: Final = frozenset({"elicitation/create", "sampling/createMessage", "roots/list"})
_CALL_OVER: Final = -32800  # as the language server protocol says "request cancelled"; MCP has no number for it


class Call:
    """One forwarded call while it runs."""

    def __init__(self, token: int, relay: Relay) -> None:
        self.token = token
        self._relay = relay
        self._context = copy_context()
        self._unread: deque[tuple[str, dict[str, Any]]] = deque()
        self._delivering: asyncio.Task[None] | None = None  # most calls have one answer, and nothing said before it
        self._lasting: set[anyio.CancelScope] = set()
        self._over = False

    def heard(self, method: str, params: Mapping[str, Any]) -> None:
        """Queue a notification for the caller; dropped when too many wait already."""
        if self._over:
            return
        if len(self._unread) >= NOTIFICATIONS_WAITING:
            logger.warning("dropped %s: its caller reads more slowly than the server speaks", method)
            return
        self._unread.append((method, without_ours(params)))
        if self._delivering is None:
            self._delivering = asyncio.get_running_loop().create_task(self._deliver(), context=self._context)

    async def _deliver(self) -> None:
        """Hand what is queued to the caller, in order, until nothing is left."""
        while self._unread:
            await self._relay.notify(*self._unread.popleft())
        self._delivering = None

    async def answered(self) -> None:
        """Nothing more is heard, and what was is with the caller, unless it reads too slowly."""
        self._over = True
        if self._delivering is not None:
            done, _ = await asyncio.wait({self._delivering}, timeout=NOTICE_TIMEOUT.total_seconds())
            for delivering in done:
                delivering.result()

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the caller's answer.

        Raises:
            DownstreamRefusal: there is none, or the call ended first.
        """
        with self.lasting():
            return await self._relay.ask(method, without_ours(params))
        raise DownstreamRefusal(_CALL_OVER, "The call that this question belonged to is over")

    @contextmanager
    def lasting(self) -> Iterator[anyio.CancelScope]:
        """Run the body for no longer than the call; `cancelled_caught` says whether the call ended first."""
        with anyio.CancelScope() as scope:
            if self._over:
                scope.cancel()
            self._lasting.add(scope)
            try:
                yield scope
            finally:
                self._lasting.discard(scope)

    def end(self) -> None:
        """End everything that belongs to the call."""
        self._over = True
        if self._delivering is not None:
            self._delivering.cancel()
        for scope in self._lasting:
            scope.cancel()


CURRENT: ContextVar[Call | None] = ContextVar("tool_adapters_call", default=None)


class Calls:
    """The calls in flight on one connection; hears the server and finds the call that it speaks about.

    Without a token or a stream that says so, what a server says belongs to the only call in flight, and to none if
    there are several: it could reach another person's agent (threat 62).
    """

    def __init__(self, tools_changed: Callable[[], None]) -> None:
        self._running: dict[int, Call] = {}
        self._tokens = count(1)
        self._tools_changed = tools_changed

    @contextmanager
    def running(self, relay: Relay) -> Iterator[Call]:
        """Hold one call in flight for the length of the body."""
        call = Call(next(self._tokens), relay)
        self._running[call.token] = call
        before = CURRENT.set(call)
        try:
            yield call
        finally:
            CURRENT.reset(before)
            del self._running[call.token]
            call.end()

    def heard(self, method: str, params: Mapping[str, Any], origin: Context | None) -> None:
        """Hand a notification to the call that it belongs to, or drop it."""
        match method:
            case "notifications/tools/list_changed":
                self._tools_changed()
            case "notifications/progress":
                call = self._running.get(_token(params.get("progressToken")))
                if call is not None:
                    call.heard(method, {key: value for key, value in params.items() if key != "progressToken"})
            case "notifications/cancelled" | "notifications/subscriptions/acknowledged":
                pass  # between the server and this connection
            case _:
                call = self._belonging_to(origin.get(CURRENT) if origin is not None else None)
                if call is not None:
                    call.heard(method, params)

    async def asked(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer of the caller in whose call the server asks.

        Raises:
            DownstreamRefusal: nobody can be asked.
        """
        if method not in _QUESTIONS:
            raise refusal_of_unknown(method)
        call = self._belonging_to(CURRENT.get())
        if call is not None:
            return await call.ask(method, params)
        if method == "elicitation/create":
            return {"action": "decline"}
        raise refusal_of_unknown(method)

    def _belonging_to(self, named: Call | None) -> Call | None:
        if named is not None:
            return named if named.token in self._running else None
        return next(iter(self._running.values())) if len(self._running) == 1 else None


def _token(value: object) -> int:
    """Return one of our progress tokens; some servers send it back as text. 0 is none of them."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value[:20])
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def without_ours(carrier: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result or params without the `_meta` keys of our prefix, which no server may write."""
    meta = carrier.get("_meta")
    if not isinstance(meta, Mapping) or not any(key.startswith(OWN_META) for key in meta):
        return dict(carrier)
    return {**carrier, "_meta": without_own_meta(meta)}
