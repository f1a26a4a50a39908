"""The way back to a caller: one class for each era, the same few verbs for the road."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from mcp.server.connection import allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError, NoBackChannelError

from mcp_authz import limits
from mcp_authz.errors import DownstreamRefusal
from mcp_authz.protocol.reading import Read, parameter_headers

LOG: Final = "notifications/message"
PROGRESS: Final = "notifications/progress"
TASKS: Final = "io.modelcontextprotocol/tasks"
MISSING_CAPABILITY: Final = -32021
NO_TASKS: Final = f"declare the extension {TASKS} in the client capabilities of this request"
TASKS_NEEDED: Final[Mapping[str, Any]] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
_LOG_LEVEL_KEY: Final = "io.modelcontextprotocol/logLevel"

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_LINE_ENDS: Final = tuple((end.encode(), f"\\u{ord(end):04x}".encode()) for end in "\x85\u2028\u2029")

Emit = Callable[[Mapping[str, Any]], Awaitable[None]]
WhenGone = Callable[[Callable[[], None]], None]


def elicitation_modes(capabilities: Mapping[str, Any] | None) -> frozenset[str]:
    """The modes a client declared; an empty object means `form`, as in the revision that introduced elicitation."""
    declared = (capabilities or {}).get("elicitation")
    if not isinstance(declared, dict):
        return frozenset()
    return frozenset({"form", "url"} & declared.keys()) or frozenset({"form"})


def declares_tasks(capabilities: Mapping[str, Any] | None) -> bool:
    """Whether a client declared the tasks extension, which it does with each request (SEP-2663)."""
    extensions = (capabilities or {}).get("extensions")
    return isinstance(extensions, dict) and isinstance(extensions.get(TASKS), dict)


class ModernChannel:
    """2026-07-28: notifications ride the response stream; nobody can be asked during a call."""

    can_be_asked = False
    can_return = True
    is_gone = False
    longest_wait = limits.WAIT_ROUND

    def __init__(self, read: Read, *, emit: Emit, commit: Callable[[], Awaitable[None]]) -> None:
        message = read.message
        self._headers = read.headers
        self.can_elicit = elicitation_modes(read.capabilities)
        self.can_do_tasks = declares_tasks(read.capabilities)
        self._token = message.meta.get("progressToken")
        self._levels = _levels(message.meta.get(_LOG_LEVEL_KEY))
        self._emit = emit
        self._commit = commit

    def disagreement(self, schema: Any, arguments: Mapping[str, Any]) -> str | None:
        """How `Mcp-Param-*` headers contradict the arguments; None when they agree."""
        return parameter_headers(schema, arguments, self._headers)

    async def decided(self) -> None:
        """Commit the response's status and headers."""
        await self._commit()

    def when_gone(self, do: Callable[[], None]) -> None:
        """Nothing to do: a request of this era ends with its connection."""

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification on the response stream: progress if a token was given, log entries if asked for."""
        if method == PROGRESS:
            if self._token is None:
                return
            params = {**params, "progressToken": self._token}
        if method == LOG and params.get("level") not in self._levels:
            return
        await self._emit({"jsonrpc": "2.0", "method": method, "params": params})

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """There is no way to ask during a call in this era."""
        raise DownstreamRefusal(-32601, f"{method} is not possible during a call")


class LegacyChannel:
    """2025-11-25 and before: notifications and questions ride the stream of the request they belong to."""

    can_return = False
    can_do_tasks = False
    longest_wait = limits.WAIT_OLDER

    def __init__(
        self,
        ctx: ServerRequestContext[Any, Any],
        *,
        commit: Callable[[], Awaitable[None]],
        when_gone: WhenGone,
        level: Any = None,
    ) -> None:
        capabilities = ctx.session.client_capabilities
        declared = capabilities.model_dump(by_alias=True, mode="json", exclude_none=True) if capabilities else {}
        self.can_be_asked = ctx.session.can_send_request
        self.can_elicit = elicitation_modes(declared) if self.can_be_asked else frozenset()
        self._outbound = request_outbound(ctx)
        self._commit = commit
        self._when_gone = when_gone
        self._levels = _levels(level) if level is not None else None  # None: the server decides what it sends
        meta = (ctx.params or {}).get("_meta")
        self._token = meta.get("progressToken") if isinstance(meta, Mapping) else None

    @property
    def is_gone(self) -> bool:
        """Whether the client has sent `notifications/cancelled` for this request."""
        return self._outbound.cancel_requested.is_set()

    def disagreement(self, schema: Any, arguments: Mapping[str, Any]) -> str | None:
        """Nothing: this era has no headers that repeat arguments."""
        return None

    async def decided(self) -> None:
        """Let the response's status and headers go out."""
        await self._commit()

    def when_gone(self, do: Callable[[], None]) -> None:
        """Done when nobody reads the response any more: the SDK lets a request of this era run on."""
        self._when_gone(do)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification on the request's stream: progress if a token was given, log entries of the level set."""
        if method == PROGRESS:
            if self._token is None:
                return
            params = {**params, "progressToken": self._token}
        if method == LOG and self._levels is not None and params.get("level") not in self._levels:
            return
        await self._outbound.notify(method, params)

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the client's answer, exactly as it sent it."""
        try:
            return await self._outbound.send_raw_request(method, params)
        except NoBackChannelError:
            raise DownstreamRefusal(-32601, "the caller cannot be asked during a call") from None
        except MCPError as error:
            raise DownstreamRefusal(error.error.code, error.error.message, error.error.data) from None


def _levels(least: Any) -> frozenset[str]:
    """The log levels at or above this one; none when it is no level."""
    return frozenset(allowed_log_levels("2026-07-28", {_LOG_LEVEL_KEY: least} if isinstance(least, str) else {}))


def request_outbound(ctx: ServerRequestContext[Any, Any]) -> DispatchContext[Any]:
    """The request-scoped raw channel of the SDK's session: its typed helpers would drop members they do not know."""
    return ctx.session._request_outbound


def dump(message: Mapping[str, Any]) -> bytes:
    """One JSON-RPC message as UTF-8 bytes; every member kept, no number changed."""
    return _ENCODER.encode(message).encode()


def sse(message: Mapping[str, Any]) -> bytes:
    """One JSON-RPC message as a server-sent event."""
    data = dump(message)
    # Characters at which some clients end a line although the standard does not; in JSON they stand in strings only.
    for raw, escaped in _LINE_ENDS:
        data = data.replace(raw, escaped)
    return b"event: message\r\ndata: " + data + b"\r\n\r\n"
