"""A tool server that stays connected: one SDK session in a supervised task, rebuilt with backoff when it ends."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import anyio

from mcp_authz.downstream import Offer, Relay
from mcp_authz.errors import DownstreamError, DownstreamRefusal
from mcp_authz.limits import (
    CALL_TIMEOUT,
    RESTART_FIRST,
    RESTART_FORGIVEN,
    RESTART_LONGEST,
    START_TIMEOUT,
    TOOLS_LISTED,
)
from mcp_authz.model import Admitted
from mcp_authz.rules.context_token import HEADER, META
from mcp_authz.rules.message import without_own_meta
from tool_adapters.calls import Call, Calls, without_ours
from tool_adapters.sdk import ENVELOPE, Broken, Session, Streams, connect

logger = logging.getLogger(__name__)

_PAGES: Final = 1000  # of one tool list


class ConnectedDownstream(ABC):
    """The port `mcp_authz.downstream.Downstream` over whatever `_open` reaches.

    A session has a task of its own, so that what breaks in it breaks no caller's task; calls that were in flight when
    it ended are answered with `DownstreamError(sent=True)`, calls made while there is none with `sent=False`.
    """

    def __init__(
        self, name: str, *, start_timeout: timedelta = START_TIMEOUT, call_timeout: timedelta = CALL_TIMEOUT
    ) -> None:
        self._name = name
        self._start_timeout = start_timeout
        self._call_timeout = call_timeout
        self._callbacks: list[Callable[[], None]] = []
        self._calls = Calls(self._tools_changed)
        self._session: Session | None = None
        self._answers = False  # whether the last attempt to speak to the server succeeded
        self._down_because = "it was never started"
        self._stop = anyio.Event()
        self._reconnect = anyio.Event()

    @abstractmethod
    def _open(self) -> AbstractAsyncContextManager[Streams]:
        """Reach the server once; leaving the context lets go of everything that was opened."""

    async def _send(
        self, session: Session, method: str, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the server's result to one request, by the shortest way there is."""
        return await session.send(method, params, headers)

    def _post_mortem(self) -> str:
        """Say why the last connection ended, where that is known better than by the error it ended with."""
        return ""

    @property
    def name(self) -> str:
        """The configured server name."""
        return self._name

    @property
    def reachable(self) -> bool:
        """Whether the last attempt to speak to the server succeeded."""
        return self._session is not None and self._answers

    @property
    def trouble(self) -> str:
        """Why the last connection ended, or could not be made; what is said of one that stands is its predecessor's."""
        return self._down_because

    def on_tools_changed(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the server says that its tools changed, and after each connection."""
        self._callbacks.append(callback)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Connect and stay connected; entered once the first attempt has succeeded or failed."""
        self._stop = anyio.Event()
        tried = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._supervise, tried)
                try:
                    await tried.wait()
                    yield
                finally:
                    self._stop.set()  # an orderly end, unless this task is being cancelled: then _supervise is, too
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the body's own; _supervise raises none

    async def list_tools(self) -> tuple[Mapping[str, Any], ...]:
        """Return every tool definition exactly as the server lists it.

        Raises:
            DownstreamError: the server cannot be reached, or what it lists is no list.
        """
        try:
            return await self._list("tools/list", "tools")
        except DownstreamRefusal as refusal:
            raise DownstreamError(f"tool server `{self._name}` does not list its tools: {refusal}") from None

    async def list_offers(self, offer: Offer) -> tuple[Mapping[str, Any], ...]:
        """Return every resource, template or prompt exactly as the server lists it; none if it offers none.

        Raises:
            DownstreamError: the server cannot be reached, or what it lists is no list.
        """
        if not self._connected().offers(offer.capability):
            return ()
        try:
            return await self._list(offer.method, offer.member)
        except DownstreamRefusal:
            return ()

    def declares(self, capability: str) -> bool:
        """Return whether the server says that it has this, such as `prompts`; True also while it cannot be asked."""
        return self._session is None or self._session.offers(capability)

    async def _list(self, method: str, member: str) -> tuple[Mapping[str, Any], ...]:
        listed: list[Mapping[str, Any]] = []
        cursor: dict[str, Any] = {}
        session = self._connected()
        for _ in range(_PAGES):
            page = await self._answer(session, method, cursor, {})
            items = page.get(member)
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise DownstreamError(f"tool server `{self._name}` lists no {member}: its answer has no `{member}`")
            listed.extend(items)
            if len(listed) > TOOLS_LISTED:
                break
            if not isinstance(following := page.get("nextCursor"), str):
                return tuple(listed)
            cursor = {"cursor": following}
        raise DownstreamError(f"tool server `{self._name}` lists more than {TOOLS_LISTED} {member}, or without end")

    async def forward(self, admitted: Admitted, relay: Relay) -> Mapping[str, Any]:
        """Return the server's result as it sent it; cancelling the awaiting task cancels the call at the server.

        Raises:
            DownstreamRefusal: the server answered with a JSON-RPC error.
            DownstreamError: it could not be reached, or the connection broke.
        """
        session = self._connected()
        with self._calls.running(relay) as call:
            outcome = await self._converse(session, admitted, call)
        if isinstance(outcome, DownstreamRefusal | DownstreamError):
            raise outcome
        return without_ours(outcome)

    async def _converse(
        self, session: Session, admitted: Admitted, call: Call
    ) -> dict[str, Any] | DownstreamRefusal | DownstreamError:
        """Return how one call ended, once everything the server said before it ended has been delivered."""
        meta = {key: value for key, value in without_own_meta(admitted.meta).items() if key not in ENVELOPE}
        headers = session.param_headers(admitted.call.tool, admitted.call.arguments)
        if admitted.context is not None:  # the one thing of ours that a tool server is told
            meta, headers = {**meta, META: admitted.context}, {**headers, HEADER: admitted.context}
        params = {**admitted.params, "_meta": {**meta, "progressToken": call.token}}
        outcome: dict[str, Any] | DownstreamRefusal | DownstreamError
        try:
            outcome = await self._answer(session, admitted.call.tool.method, params, headers)
        except (DownstreamRefusal, DownstreamError) as error:
            outcome = error
        await call.answered()
        return outcome

    async def _answer(
        self, session: Session, method: str, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the server's result to one request.

        Raises:
            DownstreamRefusal: it answered with a JSON-RPC error.
            DownstreamError: it did not answer within the call timeout, or cannot be reached.
        """
        with anyio.move_on_after(self._call_timeout.total_seconds()):
            try:
                result = await self._send(session, method, params, headers)
            except Broken as broken:
                raise self._broken(broken) from None
            except DownstreamRefusal:
                self._answered()
                raise
            self._answered()
            return result
        raise DownstreamError(
            f"tool server `{self._name}` gave no answer within {self._call_timeout.total_seconds():g} s", sent=True
        )

    def _connected(self) -> Session:
        if self._session is None:
            raise DownstreamError(
                f"tool server `{self._name}` is not running; it is being restarted ({self._down_because})"
            )
        return self._session

    def _answered(self) -> None:
        if not self._answers:
            self._answers = True
            self._tools_changed()

    def _broken(self, broken: Broken) -> DownstreamError:
        match broken.then:
            case "reconnect":
                self._answers = False
                self._down_because = broken.sentence
                self._reconnect.set()
            case "list again":
                self._tools_changed()
            case "go on":
                self._answers = False
        return DownstreamError(f"tool server `{self._name}`: {broken.sentence}", sent=broken.sent)

    def _tools_changed(self) -> None:
        for callback in self._callbacks:
            callback()

    async def _supervise(self, tried: anyio.Event) -> None:
        """Connect again whenever the connection ends, after a delay that doubles, until told to stop."""
        delay = RESTART_FIRST
        while not self._stop.is_set():
            began = anyio.current_time()
            try:
                await self._serve(tried)
                reason = "the connection ended"
            except Exception as error:  # noqa: BLE001 - whatever a server makes the SDK do ends this connection only
                reason = _first_reason(error)
            finally:
                self._session = None
            if self._stop.is_set():
                return
            self._down_because = self._post_mortem() or reason
            tried.set()
            if anyio.current_time() - began > RESTART_FORGIVEN.total_seconds():
                delay = RESTART_FIRST
            logger.warning(
                "tool server %s: %s; trying again in %g s", self._name, self._down_because, delay.total_seconds()
            )
            with anyio.move_on_after(delay.total_seconds()):
                await self._stop.wait()
            delay = min(delay * 2, RESTART_LONGEST)

    async def _serve(self, tried: anyio.Event) -> None:
        """Hold one session until it ends, cannot be used any more, or nobody wants it."""
        self._reconnect = anyio.Event()
        async with anyio.create_task_group() as handshake:
            handshake.start_soon(self._stop_before_session, handshake.cancel_scope)
            async with (
                self._open() as streams,
                connect(streams, self._calls, self._start_timeout.total_seconds()) as session,
                anyio.create_task_group() as tasks,
            ):
                self._session, self._answers = session, True
                logger.info("tool server %s: connected, revision %s", self._name, session.protocol_version)
                self._tools_changed()
                tried.set()
                for ending in (session.ended, self._reconnect.wait, self._stop.wait):
                    tasks.start_soon(_then_cancel, ending, tasks.cancel_scope)
                if session.tells_tool_changes:
                    tasks.start_soon(self._hear_tool_changes, session)
            handshake.cancel_scope.cancel()

    async def _stop_before_session(self, scope: anyio.CancelScope) -> None:
        """End a handshake that nobody waits for any more; a session that stands is ended in order instead."""
        await self._stop.wait()
        if self._session is None:
            scope.cancel()

    async def _hear_tool_changes(self, session: Session) -> None:
        """Stay subscribed; what changed while there was no subscription counts as heard when there is one again."""
        delay = RESTART_FIRST
        await session.hear_tool_changes(_nothing)
        while True:
            await anyio.sleep(delay.total_seconds())
            delay = min(delay * 2, RESTART_LONGEST)
            await session.hear_tool_changes(self._tools_changed)


def _nothing() -> None:
    """What is to be done after the first subscription: the connection has just been made known."""


async def _then_cancel(ending: Callable[[], Any], scope: anyio.CancelScope) -> None:
    await ending()
    scope.cancel()


def _first_reason(error: Exception) -> str:
    """Return the first error of what may be a group of groups, as one line without what it quotes from messages."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    match cause:
        case TimeoutError():
            return "it did not finish the handshake in time"
        case Broken() | DownstreamError() | OSError():
            return str(cause)
        case _:
            return f"the handshake failed ({type(cause).__name__})"
