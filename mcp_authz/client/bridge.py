"""Between a client on stdio and the gateway: every message passes, and every request is answered, whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from mcp_authz.client.exchange import Sending, SessionGone
from mcp_authz.client.handshake import OWN_ID, McpSession
from mcp_authz.client.known import ANSWERED, LISTS, Known
from mcp_authz.client.messages import Id, Message, dump, made, read
from mcp_authz.client.stdio import TOO_LONG, Lines, Output
from mcp_authz.client.subscriptions import METHOD as LISTEN
from mcp_authz.client.subscriptions import Subscription
from mcp_authz.client.trouble import NOTHING_RAN, Trouble, told
from mcp_authz.client.wire import Wire
from mcp_authz.errors import InputError

GRACE: Final = 20.0  # seconds that running requests have after the last line was read
_PING: Final = 5.0  # seconds in which the gateway may answer a ping itself
_CANCELLED: Final = 5.0  # seconds in which the gateway may still answer what it is told to cancel
_AWAY: Final = 1.0  # seconds that a list waits for a gateway that was away a moment ago
_FIRST, _LONGEST, _LISTENING = 0.5, 30.0, 10.0  # seconds between two attempts
_CHANGED: Final = dump({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})


@dataclass(slots=True)
class Running:
    """A request that was not answered yet."""

    message: Message
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    sending: Sending = field(default_factory=Sending)
    answered: bool = False


class Bridge:
    """One client, one gateway, until the client has nothing more to say."""

    def __init__(self, wire: Wire, known: Known, lines: Lines, output: Output) -> None:
        self._wire = wire
        self._known = known
        self._lines = lines
        self._output = output
        self._running: dict[Id, Running] = {}
        self._subscriptions: dict[Id, Subscription] = {}
        self._modern: Message | None = None  # the last message of 2026-07-28, whose `_meta` ours take over
        self._shown: Any = None  # the tools as the client has them
        self._stale = False  # whether the client was told something that the gateway did not say just now
        self._healing = False
        self._group: TaskGroup
        self._news = anyio.Event()
        self._ended = anyio.Event()  # a request was answered
        wire.on_session = self._follow_anew
        wire.on_gone = self._tell
        wire.on_change = self._changed

    async def run(self) -> None:
        """Everything the client said was answered, or had its time."""
        await self._wire.parameters.learn(self._known.listed("tools/list"))
        async with anyio.create_task_group() as self._group:
            self._group.start_soon(self._wire.prepare)
            async for line in self._lines:
                await self._take(line)
            with anyio.move_on_after(GRACE):
                await self._all_answered()
            self._group.cancel_scope.cancel()

    async def _all_answered(self) -> None:
        while self._running:
            await self._ended.wait()
            self._ended = anyio.Event()

    async def _take(self, line: bytes) -> None:
        try:
            if line == TOO_LONG:
                raise InputError("the line is too long")
            message = read(line)
        except InputError as error:
            code = -32600 if "not one" in str(error) else -32700
            await self._output.write(
                dump({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": str(error)}})
            )
            return
        if message.is_modern:
            self._modern = message
        if message.is_request:
            self._begin(message)
        elif message.method is None:
            await self._answered(message)
        else:
            await self._notified(message)

    def _begin(self, message: Message) -> None:
        assert message.id is not None  # noqa: S101 - a request
        if message.method == LISTEN and message.is_modern:
            self._subscriptions[message.id] = subscription = Subscription(message)
            self._group.start_soon(self._listen, subscription)
            return
        self._running[message.id] = running = Running(message)
        self._group.start_soon(self._answer, running)

    async def _answer(self, running: Running) -> None:
        message = running.message
        try:
            with running.scope:
                match message.method:
                    case "ping":
                        await self._ping(running)
                    case method if method in ANSWERED:
                        await self._always(running)
                    case _:
                        await self._pass(running)
        finally:
            if message.id is not None and self._running.get(message.id) is running:
                del self._running[message.id]
            self._ended.set()

    async def _pass(self, running: Running) -> None:
        if running.message.method == "logging/setLevel":
            self._wire.handshake.level = running.message
        try:
            await self._forward(running)
        except Trouble as trouble:
            await self._say(running, trouble)

    async def _always(self, running: Running) -> None:
        """The gateway's answer in time, else what it answered last."""
        message, why = running.message, None
        if message.method == "initialize":
            self._wire.handshake.asked = message.params
        try:
            with anyio.fail_after(_AWAY if self._stale else self._wire.patience):
                await self._forward(running)
        except TimeoutError:
            why = Trouble("the gateway did not answer in time; its tools are here as they were last seen")
        except Trouble as trouble:
            why = trouble
        if why is None or running.answered:
            return
        result = None if why.refused else self._known.answer(message, why.text.removesuffix(f" {NOTHING_RAN}"))
        if result is None:
            await self._say(running, why)
            return
        _note(why)
        if message.method == "tools/list":
            self._shown = result["tools"]
            await self._wire.parameters.learn(result["tools"])
        running.answered = True
        await self._output.write(dump({"jsonrpc": "2.0", "id": message.id, "result": result}))
        self._stale = True
        self._heal()

    async def _ping(self, running: Running) -> None:
        try:
            with anyio.fail_after(_PING):
                await self._wire.request(running.message, self._deliver_to(running), start=False)
        except (Trouble, TimeoutError):
            if not running.answered:
                await self._output.write(dump({"jsonrpc": "2.0", "id": running.message.id, "result": {}}))

    async def _forward(self, running: Running) -> None:
        await self._wire.request(running.message, self._deliver_to(running), sending=running.sending)

    def _deliver_to(self, running: Running) -> Any:
        message = running.message

        async def deliver(raw: bytes, body: Mapping[str, Any], session: McpSession | None) -> None:
            if "method" in body:
                await self._output.write(self._in_session(raw, body, session))
                return
            running.answered = True
            result = body.get("result")
            if message.method in ANSWERED and isinstance(result, dict):
                self._known.learn(message, result)
                if message.method == "tools/list":
                    self._shown = result.get("tools")
            await self._output.write(raw)

        return deliver

    def _in_session(self, raw: bytes, body: Mapping[str, Any], session: McpSession | None) -> bytes:
        asks = "id" in body or body.get("method") == "notifications/cancelled"
        return self._wire.handshake.asks(session, body, raw) if asks and session is not None else raw

    async def _say(self, running: Running, trouble: Trouble) -> None:
        if not running.answered:
            running.answered = True
            _note(trouble)
            await self._output.write(dump(told(trouble, running.message)))

    async def _answered(self, message: Message) -> None:
        """An answer of the client's goes to whoever asked."""
        found = self._wire.handshake.answers(message)
        if found is not None:
            await self._post(found[1], found[0])

    async def _notified(self, message: Message) -> None:
        shake = self._wire.handshake
        if message.method == "notifications/initialized":
            shake.client_is_ready = True
            if shake.session is not None and not shake.session.announced:
                shake.session.announced = True
                await self._post(message.raw, shake.session)
                self._group.start_soon(self._follow, shake.session)
            return
        if message.method == "notifications/cancelled" and not await self._cancel(message):
            return
        if not message.is_modern and shake.session is not None:
            await self._post(message.raw, shake.session)

    async def _cancel(self, message: Message) -> bool:
        """What the client does not want any more ends; returns whether the gateway has to be told."""
        id_ = message.params.get("requestId")
        if not isinstance(id_, str | int):
            return True
        if (subscription := self._subscriptions.pop(id_, None)) is not None:
            subscription.scope.cancel()
            return False
        running = self._running.get(id_)
        if running is None:
            return True
        if running.message.is_modern or not running.sending.is_out:
            running.answered = True
            running.scope.cancel()
            return False
        running.scope.deadline = anyio.current_time() + _CANCELLED
        return True

    async def _post(self, raw: bytes, session: McpSession) -> None:
        try:
            await self._wire.notify(raw, session.headers)
        except Trouble as trouble:
            _note(trouble)

    async def _tell(self, messages: list[bytes]) -> None:
        for message in messages:
            await self._output.write(message)

    # What the gateway says of itself.

    def _follow_anew(self, session: McpSession) -> None:
        self._group.start_soon(self._follow, session)
        self._heal()

    async def _follow(self, session: McpSession) -> None:
        """Everything that the gateway says in this session, outside of requests, reaches the client."""
        pause, shake = _FIRST, self._wire.handshake
        while shake.session is session:
            try:
                async with self._wire.stream(session) as messages:
                    pause = _FIRST
                    async for raw in messages:
                        await self._output.write(self._in_session(raw, read(raw).body, session))
            except SessionGone:
                await self._wire.gone(session)
                self._heal()
                return
            except (Trouble, InputError):
                pass
            pause = await self._pause(pause, _LISTENING)

    async def _listen(self, subscription: Subscription) -> None:
        """The client hears what it listens to, from one gateway after another if need be."""
        ended, pause, start = False, _FIRST, True

        async def deliver(raw: bytes, body: Mapping[str, Any], _: McpSession | None) -> None:
            nonlocal ended, pause
            ended, pause = ended or "method" not in body, _FIRST
            if ended or subscription.passes(raw):
                await self._output.write(raw)
            else:
                self._heal()

        with subscription.scope:
            while not ended:
                try:
                    await self._wire.request(subscription.message, deliver, start=start)
                except Trouble as trouble:
                    if trouble.passed is not None and not subscription.acknowledged:
                        await self._output.write(dump(told(trouble, subscription.message)))
                        break
                    if (acknowledgement := subscription.acknowledgement()) is not None:
                        await self._output.write(acknowledgement)
                    start = False
                    pause = await self._pause(pause, _LISTENING)
        self._subscriptions.pop(subscription.id, None)

    def _changed(self) -> None:
        """The gateway is back, or takes the agent for somebody else."""
        self._news.set()
        self._news = anyio.Event()
        self._heal()

    def _heal(self) -> None:
        if not self._healing and (self._shown is not None or self._stale):
            self._healing = True
            self._group.start_soon(self._until_healed)

    async def _until_healed(self) -> None:
        """What the client was told is true again, or it knows that it is not."""
        pause = _FIRST
        try:
            while True:
                try:
                    await self._refresh()
                    return
                except Trouble:
                    pause = await self._pause(pause, _LONGEST)
        finally:
            self._healing = False

    async def _refresh(self) -> None:
        question = self._question()
        if question is None:
            return
        heard = list[Mapping[str, Any]]()

        async def deliver(_: bytes, body: Mapping[str, Any], __: McpSession | None) -> None:
            heard.append(body)

        await self._wire.request(question, deliver, start=self._stale)
        result = heard[-1].get("result") if heard else None
        if not isinstance(result, dict):
            raise Trouble("the gateway does not list its tools")
        self._known.learn(question, result)
        changed = self._stale or result.get(LISTS["tools/list"]) != self._shown
        self._stale, self._shown = False, result.get(LISTS["tools/list"])
        if changed:
            await self._tell_of_change()

    def _question(self) -> Message | None:
        """A `tools/list` of our own, as the client would send it."""
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": OWN_ID, "method": "tools/list"}
        if self._wire.handshake.asked is not None:
            return made(body)
        if self._modern is not None:
            keys = ("protocolVersion", "clientInfo", "clientCapabilities")
            meta = {f"io.modelcontextprotocol/{key}": None for key in keys}
            meta = {key: self._modern.meta[key] for key in meta if key in self._modern.meta}
            return made({**body, "params": {"_meta": meta}})
        return None

    async def _tell_of_change(self) -> None:
        shake = self._wire.handshake
        if shake.asked is not None and shake.client_is_ready:
            await self._output.write(_CHANGED)
        for subscription in list(self._subscriptions.values()):
            if subscription.wants_tools and subscription.acknowledged:
                await self._output.write(subscription.tools_changed())

    async def _pause(self, pause: float, longest: float) -> float:
        """Some time has passed, or there are news; returns the next pause."""
        with anyio.move_on_after(pause):
            await self._news.wait()
        return min(pause * 2, longest)


def _note(trouble: Trouble) -> None:
    sys.stderr.write(f"mcp-authz: {trouble}\n")
    sys.stderr.flush()
