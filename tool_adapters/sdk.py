"""The one door to the MCP SDK's client half: its private and provisional names are used here and nowhere else.

What depends on behaviour that the SDK does not promise (tests/adapters/test_sdk_contract.py):

- `_probe.negotiate_auto` finds the era of the server; `ClientSession._stamp` completes params and headers for it.
- A `Dispatcher` passed to `ClientSession` carries every message, so a wrapper around it sees them as they were sent;
  the typed session behind it would drop unknown members and fail on unknown content.
- The Streamable HTTP transport carries contextvars from the sender of a request to what arrives on its stream, as
  `last_context` of the read stream and as the context in which requests of the server are answered.
- The texts in `_MADE_UP`, by which an error that the SDK's transport made is told from one that the server sent.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from importlib.metadata import version
from typing import Any, Literal, Protocol

import anyio
import anyio.abc
import httpx2
from mcp.client import ClientRequestContext, ClientSession
from mcp.client._memory import InMemoryTransport
from mcp.client._probe import negotiate_auto
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost, listen
from mcp.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.dispatcher import CallOptions, DispatchContext, OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import find_invalid_x_mcp_header, mcp_param_headers, x_mcp_header_map
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    PROTOCOL_VERSION_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    Implementation,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_authz.errors import DownstreamRefusal
from mcp_authz.limits import ANSWER_BYTES, START_TIMEOUT
from mcp_authz.model import Tool

Streams = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]
Then = Literal["go on", "list again", "reconnect"]

# What the SDK stamps itself, and what it must therefore not find in a caller's `_meta`.
ENVELOPE = frozenset({PROTOCOL_VERSION_META_KEY, CLIENT_INFO_META_KEY, CLIENT_CAPABILITIES_META_KEY, "progressToken"})

# These log the messages that they cannot parse; results of tools belong into no log.
for _name in ("client", "mcp.client.streamable_http", "mcp.shared.jsonrpc_dispatcher"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_MARK = f"broken-{secrets.token_hex(16)}"  # unguessable, so that no server can speak as our own transport
_NEGOTIATION = frozenset({"server/discover", "initialize"})
_MADE_UP = (
    (CONNECTION_CLOSED, "Connection closed", "the connection ended before the answer"),
    (
        CONNECTION_CLOSED,
        "SSE stream failed",
        f"its answer stream broke, or an answer is larger than {ANSWER_BYTES} bytes",
    ),
    (CONNECTION_CLOSED, "SSE stream ended", "its answer stream ended without an answer"),
    (PARSE_ERROR, "Failed to parse JSON response", "its answer is no JSON-RPC message"),
    (PARSE_ERROR, "Failed to parse SSE message", "its answer is no JSON-RPC message"),
    (INVALID_REQUEST, "Unexpected content type", "its answer is neither JSON nor an event stream"),
    (INVALID_REQUEST, "server answered a request with 202", "it accepted the request without answering it"),
    (INVALID_REQUEST, "Redirect to", "it answered with a redirect to another place"),
)


class Broken(Exception):
    """A request without an answer of the server.

    `sent` says whether the server may have acted on it, `then` what the connection has to do about it.
    """

    def __init__(self, sentence: str, *, sent: bool, then: Then = "go on") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.sent = sent
        self.then: Then = then


class Listener(Protocol):
    """What hears a server that speaks unasked."""

    def heard(self, method: str, params: Mapping[str, Any], origin: Context | None) -> None:
        """Take a notification; `origin` is the context of the request on whose stream it came, where there is one."""

    async def asked(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer to a request of the server; runs in the context of the request that led to it.

        Raises:
            DownstreamRefusal: there is no answer.
        """


def broken_answer(sentence: str, *, sent: bool, then: Then = "go on", outage: bool = False) -> ErrorData:
    """Return what our own transports answer in place of a server; an `outage` says nothing of the server's era."""
    mark = {"sentence": sentence, "sent": sent, "then": then, "outage": outage}
    return ErrorData(code=CONNECTION_CLOSED, message=sentence, data={_MARK: mark})


def refusal_of_unknown(method: str) -> DownstreamRefusal:
    """Return the error for a request that nobody here answers."""
    return DownstreamRefusal(METHOD_NOT_FOUND, "Method not found", method)


class Session:
    """One negotiated connection to one server."""

    def __init__(self, client: ClientSession, wire: _Wire) -> None:
        self._client = client
        self._wire = wire
        self._repeated: dict[bytes, dict[tuple[str, ...], str]] = {}  # of each definition: what headers repeat

    @property
    def modern(self) -> bool:
        """Whether the server speaks 2026-07-28 or later."""
        return self._client.protocol_version in MODERN_PROTOCOL_VERSIONS

    @property
    def protocol_version(self) -> str | None:
        """The negotiated revision."""
        return self._client.protocol_version

    async def send(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the server's result with every member it sent.

        Raises:
            Broken: there was no answer.
            DownstreamRefusal: the answer was a JSON-RPC error.
        """
        params, sent_headers = self.stamped(method, params, headers)
        try:
            return await self._wire.send_raw_request(method, params, {"headers": sent_headers})
        except MCPError as error:
            raise failure(error.error) from None

    def stamped(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return parameters and headers of a request, with what the negotiated revision wants in both."""
        data: dict[str, Any] = {"method": method, "params": dict(params)}
        options: CallOptions = {}
        self._client._stamp(data, options)
        return data["params"], {**options.get("headers", {}), **(headers or {})}

    def param_headers(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Return the `Mcp-Param-*` headers of a call, as the tool's pinned definition asks for them."""
        if not self.modern:
            return {}
        if (repeated := self._repeated.get(tool.digest)) is None:
            schema = tool.definition.get("inputSchema")
            repeated = {} if find_invalid_x_mcp_header(schema) is not None else x_mcp_header_map(schema)
            self._repeated[tool.digest] = repeated
        return mcp_param_headers(repeated, arguments) if repeated else {}

    def offers(self, capability: str) -> bool:
        """Whether the server declared this capability, such as `resources` or `prompts`."""
        return getattr(self._client.server_capabilities, capability, None) is not None

    @property
    def tells_tool_changes(self) -> bool:
        """Whether there are tool list changes to subscribe to; older servers tell them unasked."""
        capabilities = self._client.server_capabilities
        return self.modern and bool(capabilities and capabilities.tools and capabilities.tools.list_changed)

    async def hear_tool_changes(self, subscribed: Callable[[], None]) -> None:
        """Subscribe to tool list changes, call `subscribed`, and return when the subscription has ended or was refused.

        The changes go to the listener.
        """
        try:
            async with listen(self._client, tools_list_changed=True) as changes:
                subscribed()
                async for _ in changes:
                    pass
        except (MCPError, SubscriptionLost):
            return

    async def ended(self) -> None:
        """Return when the connection has ended."""
        await self._wire.closed.wait()


@asynccontextmanager
async def connect(
    streams: Streams, listener: Listener, start_timeout: float = START_TIMEOUT.total_seconds()
) -> AsyncIterator[Session]:
    """Open a session in the era that the server speaks; form and URL elicitation are declared, nothing else.

    Raises:
        Broken, TimeoutError: the server is none, or none that can be understood.
    """
    wire = _Wire(streams, listener)
    client_info = Implementation(name="mcp-authz", version=version("mcp-authz"))
    async with ClientSession(
        dispatcher=wire, client_info=client_info, elicitation_callback=_declare_elicitation
    ) as client:
        with anyio.fail_after(start_timeout):
            try:
                await negotiate_auto(client)
            except MCPError as error:
                said = f"it refused the handshake: {error.error.message[:200]!r}"
                raise _broken(error.error) or Broken(said, sent=False) from None
        yield Session(client, wire)


def http_streams(url: str, client: httpx2.AsyncClient) -> AbstractAsyncContextManager[Streams]:
    """Return the streams of one Streamable HTTP connection."""
    return streamable_http_client(url, http_client=client, max_sse_event_size=ANSWER_BYTES)


def memory_streams(server: Server[Any] | MCPServer) -> AbstractAsyncContextManager[Streams]:
    """Return the streams of a server that runs in this process."""
    return InMemoryTransport(server)


class _Wire:
    """A dispatcher that hands on what the server says as it said it, before the typed session sees it."""

    def __init__(self, streams: Streams, listener: Listener) -> None:
        self._read, write = streams
        self._inner: JSONRPCDispatcher[TransportContext] = JSONRPCDispatcher(self._read, write)
        self._listener = listener
        self.closed = anyio.Event()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        if self.closed.is_set():
            error = broken_answer("the connection has ended", sent=False)
            raise MCPError.from_error_data(error)
        try:
            return await self._inner.send_raw_request(method, params, opts)
        except MCPError as refused:
            if method in _NEGOTIATION and (mark := _mark(refused.error)) and mark["outage"]:
                raise Broken(mark["sentence"], sent=False) from None  # an outage says nothing of the era
            raise

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        await self._inner.notify(method, params, opts)

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        async def answer(
            context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
        ) -> dict[str, Any]:
            if method == "ping":
                return await on_request(context, method, params)
            try:
                return dict(await self._listener.asked(method, params or {}))
            except DownstreamRefusal as refusal:
                raise MCPError(refusal.rpc_code, refusal.message, refusal.data) from None

        def hear(method: str, params: Mapping[str, Any] | None) -> bool:
            self._listener.heard(method, params or {}, getattr(self._read, "last_context", None))
            if on_notify_intercept is not None:
                on_notify_intercept(method, params)
            return True  # the typed session has nothing to add

        try:
            await self._inner.run(answer, on_notify, hear, task_status=task_status)
        finally:
            self.closed.set()


async def _declare_elicitation(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    """Make the session declare elicitation; `_Wire` answers every question before the session could."""
    return ElicitResult(action="decline")


def _mark(error: ErrorData) -> dict[str, Any] | None:
    """Return what `broken_answer` wrote, if it made this error."""
    if not isinstance(error.data, dict):
        return None
    mark: dict[str, Any] | None = error.data.get(_MARK)
    return mark


def failure(error: ErrorData) -> Broken | DownstreamRefusal:
    """Return what a JSON-RPC error means: the server's answer, or that there was none."""
    return _broken(error) or DownstreamRefusal(error.code, error.message, error.data)


def _broken(error: ErrorData) -> Broken | None:
    """Return why there was no answer, or None if this error is the server's answer."""
    if (mark := _mark(error)) is not None:
        return Broken(mark["sentence"], sent=mark["sent"], then=mark["then"])
    if error.code == HEADER_MISMATCH:
        return Broken("its definition of the tool is no longer the known one", sent=False, then="list again")
    if error.code == UNSUPPORTED_PROTOCOL_VERSION:
        return Broken("it no longer speaks the negotiated protocol version", sent=False, then="reconnect")
    for code, beginning, sentence in _MADE_UP:
        if error.code == code and error.message.startswith(beginning):
            return Broken(sentence, sent=True)
    return None
