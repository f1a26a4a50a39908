"""`subscriptions/listen`: one stream that tells its caller of changed lists, and of how their own tasks stand.

What it does for lists is what the SDK's handler does: the acknowledgement is the first message, every message names the
subscription, nothing is sent that was not asked for, and a client that does not read is let go. Nothing runs by it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectSendStream
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY, InMemorySubscriptionBus, ServerEvent
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import event_matches, event_to_notification

from mcp_authz import limits
from mcp_authz.errors import StoreError, TokenRefused
from mcp_authz.outcome import TaskSeen
from mcp_authz.principals import AgentName, Caller
from mcp_authz.protocol.answers import Places, shown_task
from mcp_authz.protocol.channel import (
    MISSING_CAPABILITY,
    NO_TASKS,
    TASKS_NEEDED,
    declares_tasks,
    elicitation_modes,
    request_outbound,
)
from mcp_authz.seldom import trouble
from mcp_authz.store.ports import Clock
from mcp_authz.tasks import Tasks
from mcp_authz.underway import Underway

log = logging.getLogger(__name__)

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
TASK: Final = "notifications/tasks"
_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"

Said = tuple[str, Mapping[str, Any]]  # method and parameters of a notification


class Listening:
    """Serves every stream; `caller_of` finds out who asks."""

    def __init__(
        self,
        bus: InMemorySubscriptionBus,
        tasks: Tasks,
        underway: Underway,
        caller_of: Callable[[ServerRequestContext[Any, Any]], Caller],
        *,
        clock: Clock,
        places: Places,
    ) -> None:
        self._bus = bus
        self._tasks = tasks
        self._underway = underway
        self._caller_of = caller_of
        self._clock = clock
        self._places = places
        self._open: Counter[AgentName] = Counter()  # by who the authority was given to first

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """One stream, until its client goes away, its token's time is up, or what its caller stands on is revoked.

        Raises:
            MCPError: too many streams are open, or it asks for tasks and its client did not declare them.
        """
        if ctx.request_id is None:
            raise MCPError(types.INVALID_REQUEST, "subscriptions/listen requires a request id")
        caller = self._caller_of(ctx)
        first = caller.chain.agents[0] if caller.chain is not None else caller.agent.name
        if self._open.total() >= limits.LISTENERS or self._open[first] >= limits.LISTENERS_PER_AGENT:
            raise MCPError(types.INTERNAL_ERROR, "too many streams are open; try again later")
        self._open[first] += 1
        try:
            with self._underway.while_listening(caller):
                await self._serve(ctx, params.notifications)
        finally:
            self._open -= Counter([first])
        return types.SubscriptionsListenResult(_meta={SUBSCRIPTION_ID_META_KEY: ctx.request_id})

    async def _serve(self, ctx: ServerRequestContext[Any, Any], asked: types.SubscriptionFilter) -> None:
        caller, modes = self._caller_of(ctx), elicitation_modes(_capabilities(ctx))
        wanted = _task_ids(asked, ctx)
        own = [task for task in wanted if await self._tasks.look(caller, task, modes) is not None]
        honored = _honored(asked, own)
        meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        send, receive = anyio.create_memory_object_stream[Said](limits.CHANGES_WAITING)
        unsubscribe = self._bus.subscribe(lambda event: _pass_on(event, honored, send))
        outbound = request_outbound(ctx)
        try:
            said = honored.model_dump(by_alias=True, mode="json", exclude_none=True)
            await outbound.notify(ACKNOWLEDGED, {"notifications": said, "_meta": meta})
            async with anyio.create_task_group() as group:
                if own:
                    group.start_soon(self._tell_of, caller, own, modes, send)
                async for method, params in receive:
                    await outbound.notify(method, {**params, "_meta": meta})
                group.cancel_scope.cancel()
        finally:
            unsubscribe()
            send.close()
            receive.close()

    async def _tell_of(
        self, caller: Caller, tasks: list[str], modes: frozenset[str], send: MemoryObjectSendStream[Said]
    ) -> None:
        """The stream says how these tasks stand whenever that changes; it ends with what its caller stands on."""

        async def watch(task: str) -> None:
            shown: Mapping[str, Any] | None = None

            async def tell(seen: TaskSeen) -> None:
                nonlocal shown
                now = shown_task(seen, self._places)
                if now != shown:
                    _put(send, (TASK, now))
                shown = now

            try:
                await self._tasks.follow(caller, task, modes, tell)
            except TokenRefused as error:
                log.info("a stream of %s ended: %s", caller.agent.name, error)
                send.close()
            except StoreError as error:
                trouble.error(error, "a stream ended, the store cannot be read: %s", error)
                send.close()

        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(watch, task)


def _task_ids(asked: types.SubscriptionFilter, ctx: ServerRequestContext[Any, Any]) -> tuple[str, ...]:
    """The tasks that the stream is to tell of.

    Raises:
        MCPError: the client did not declare the extension, or these are no ids.
    """
    wanted = (asked.model_extra or {}).get("taskIds")
    if wanted is None:
        return ()
    if not declares_tasks(_capabilities(ctx)):
        raise MCPError(MISSING_CAPABILITY, NO_TASKS, data=dict(TASKS_NEEDED))
    if not isinstance(wanted, list) or not all(isinstance(task, str) for task in wanted):
        raise MCPError(types.INVALID_PARAMS, "`taskIds` must be a list of strings")
    if len(wanted) > limits.TASKS_LISTENED:
        raise MCPError(types.INVALID_PARAMS, f"one stream tells of {limits.TASKS_LISTENED} tasks at most")
    return tuple(dict.fromkeys(wanted))


def _capabilities(ctx: ServerRequestContext[Any, Any]) -> Mapping[str, Any] | None:
    meta = (ctx.params or {}).get("_meta")
    declared = meta.get(_CAPABILITIES) if isinstance(meta, Mapping) else None
    return declared if isinstance(declared, Mapping) else None


def _honored(asked: types.SubscriptionFilter, own: list[str]) -> types.SubscriptionFilter:
    """What is told of: the kinds of lists that were asked for, whether they ever change or not, and the own tasks."""
    return types.SubscriptionFilter.model_validate(
        {
            "toolsListChanged": True if asked.tools_list_changed else None,
            "promptsListChanged": True if asked.prompts_list_changed else None,
            "resourcesListChanged": True if asked.resources_list_changed else None,
            "resourceSubscriptions": list(asked.resource_subscriptions) if asked.resource_subscriptions else None,
            **({"taskIds": own} if own else {}),
        }
    )


def _pass_on(event: ServerEvent, honored: types.SubscriptionFilter, send: MemoryObjectSendStream[Said]) -> None:
    if event_matches(honored, frozenset(honored.resource_subscriptions or ()), event):
        said = event_to_notification(event, {}).model_dump(by_alias=True, mode="json", exclude_none=True)
        _put(send, (said["method"], said.get("params") or {}))


def _put(send: MemoryObjectSendStream[Said], said: Said) -> None:
    """It is sent when its turn comes; a stream whose client does not read ends instead."""
    try:
        send.send_nowait(said)
    except anyio.ClosedResourceError:
        pass  # the stream is ending
    except anyio.WouldBlock:
        log.warning("a client does not read what it listens for; its stream ends")
        send.close()
