"""The SDK's server in front of the road: handshake, sessions, listing and streams are its, every call is the road's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import mcp_types as types
from mcp.server import Server
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourcesListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_authz.downstream import PROMPTS, RESOURCES, TEMPLATES
from mcp_authz.errors import StoreError
from mcp_authz.gateway import Gateway
from mcp_authz.model import Tool
from mcp_authz.principals import Caller
from mcp_authz.protocol.answers import BROKEN, Answer, Error, Places, Result, answer, in_stream, unavailable
from mcp_authz.protocol.channel import TASKS, LegacyChannel
from mcp_authz.protocol.deferred import Deferred
from mcp_authz.protocol.listening import Listening
from mcp_authz.relay import clean
from mcp_authz.rules.message import CLOSED_TABLE, GOVERNED, Message
from mcp_authz.rules.message import TASKS as TASK_METHODS
from mcp_authz.rules.session_request import SERVER as OWN_SERVER
from mcp_authz.seldom import trouble
from mcp_authz.store.ports import Clock

log = logging.getLogger(__name__)

CALLER: Final = "mcp_authz.caller"  # where the guard leaves the verified caller in the ASGI scope
DEFERRED: Final = "mcp_authz.deferred"  # and where it leaves the response that waits for the decision
INTERNAL_ERROR: Final = -32603
METHOD_NOT_FOUND: Final = -32601
LIST_TTL_MS: Final = 5_000  # what a caller may use can change with every delegation and revocation

INSTRUCTIONS: Final = (
    "An authorization gateway stands in front of these tools. You see the tools that your identity and delegation "
    "could use. A call may be denied, with what to do instead, or held until a person approves it: then make exactly "
    "the same call again later. Without an open session, ask for one with authz__request_session, if you have that "
    "tool. Do not try to get around a denial."
)


_OFFERS: Final = {offer.method: offer for offer in (RESOURCES, TEMPLATES, PROMPTS)}


class FrontServer(Server[Any]):
    """The SDK's low-level server with list changes announced and every message led through the closed table."""

    def __init__(self, gateway: Gateway, *, version: str, places: Places, clock: Clock) -> None:
        self._gateway = gateway
        self._places = places
        self._bus = InMemorySubscriptionBus()
        self._watching: dict[str, Any] = {}  # MCP session id -> connection of the handshake era
        self._levels: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # connection of that era -> least log level
        super().__init__(
            "mcp-authz",
            version=version,
            title="mcp-authz gateway",
            instructions=INSTRUCTIONS,
            on_list_tools=_unreachable,
            on_call_tool=_unreachable,
            on_list_resources=_unreachable,
            on_list_resource_templates=_unreachable,
            on_read_resource=_unreachable,
            on_list_prompts=_unreachable,
            on_get_prompt=_unreachable,
            on_completion=_unreachable,
            on_subscriptions_listen=Listening(
                self._bus, gateway.tasks, gateway.underway, _caller, clock=clock, places=places
            ),
            get_tool_input_schema=lambda _: None,  # header agreement is step 7 of the road, with the caller's view
        )
        # Not by the constructor, which warns that 2026-07-28 has none of it: older clients do.
        self.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self._set_level)
        self.middleware.append(self._lead)

    def create_initialization_options(self, *args: Any, **kwargs: Any) -> InitializationOptions:
        """The options of the handshake: tool lists announce their changes."""
        kwargs["notification_options"] = NotificationOptions(tools_changed=True)
        return super().create_initialization_options(**kwargs)

    def get_capabilities(self, *args: Any, **kwargs: Any) -> types.ServerCapabilities:
        """What is served: of changes only those of the tool list, and no subscriptions to single resources."""
        capabilities = super().get_capabilities(*args, **kwargs)
        if capabilities.resources is not None:
            capabilities.resources = types.ResourcesCapability(subscribe=False, list_changed=False)
        if capabilities.prompts is not None:
            capabilities.prompts = types.PromptsCapability(list_changed=False)
        return capabilities

    async def tools_changed(self) -> None:
        """Everybody who listens is told that the list of tools may have changed for them."""
        await self._bus.publish(ToolsListChanged())
        for session, connection in list(self._watching.items()):
            try:
                await connection.send_tool_list_changed()
            except Exception:  # noqa: BLE001 - a client that is gone must not keep the others from hearing
                self._watching.pop(session, None)

    async def lists_changed(self) -> None:
        """The same, and whoever asked to hear of resources and prompts hears that those may have changed for them."""
        await self.tools_changed()
        await self._bus.publish(ResourcesListChanged())
        await self._bus.publish(PromptsListChanged())

    async def _lead(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.request_id is None:  # notifications end here; the SDK's own bookkeeping is behind `call_next`
            return await call_next(ctx)
        if ctx.method not in CLOSED_TABLE - TASK_METHODS:  # those are of the newer era alone, which answers them itself
            raise MCPError(code=METHOD_NOT_FOUND, message="Method not found", data=ctx.method)
        match ctx.method:
            case "tools/list":
                self._watch(ctx)
                return self._listed(
                    ctx, "tools", [shown(tool) for tool in await self._gateway.list_tools(_caller(ctx))]
                )
            case method if (offer := _OFFERS.get(method)) is not None:
                return self._listed(ctx, offer.member, await self._gateway.list_offers(_caller(ctx), offer))
            case method if method in GOVERNED:
                return await self._call(ctx)
            case "initialize" | "server/discover":
                return await self._introduce(ctx, await call_next(ctx))
            case _:
                return await call_next(ctx)

    async def _introduce(self, ctx: ServerRequestContext[Any, Any], result: HandlerResult) -> HandlerResult:
        if not isinstance(result, dict):
            return result
        caller = _caller(ctx)
        some = any(tool.server != OWN_SERVER for tool in await self._gateway.list_tools(caller))
        nothing = "" if some else f" No tool is listed for you: {self._gateway.why_nothing(caller)}"
        introduced = {**result, "instructions": INSTRUCTIONS + nothing}
        if ctx.method == "server/discover":
            able = result.get("capabilities") or {}
            introduced["capabilities"] = {**able, "extensions": {**(able.get("extensions") or {}), TASKS: {}}}
        return introduced

    def _listed(self, ctx: ServerRequestContext[Any, Any], member: str, items: Sequence[Any]) -> dict[str, Any]:
        if (ctx.params or {}).get("cursor") is not None:
            raise MCPError(code=types.INVALID_PARAMS, message="there is one page; list without a cursor")
        listed = {member: list(items)}
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return listed
        meta = {types.SERVER_INFO_META_KEY: self.server_info_stamp}
        return {"resultType": "complete", **listed, "ttlMs": LIST_TTL_MS, "cacheScope": "private", "_meta": meta}

    def _watch(self, ctx: ServerRequestContext[Any, Any]) -> None:
        session = ctx.request.headers.get("mcp-session-id") if ctx.request is not None else None
        if session is not None:
            self._watching[session] = ctx.session._connection

    async def _set_level(
        self, ctx: ServerRequestContext[Any, Any], params: types.SetLevelRequestParams
    ) -> types.EmptyResult:
        self._levels[ctx.session._connection] = params.level
        return types.EmptyResult()

    async def _call(self, ctx: ServerRequestContext[Any, Any]) -> dict[str, Any]:
        deferred: Deferred = ctx.request.scope[DEFERRED]  # type: ignore[union-attr]
        params = with_log_level(ctx.params or {}, self._levels.get(ctx.session._connection))
        message = Message(id=ctx.request_id, method=ctx.method, params=params, body={}, client=_introduced(ctx))
        try:
            said = await self._said(ctx, message, deferred)
            if isinstance(said, Error) and said.status != 200 and not _refused(said, deferred, ctx):
                said = in_stream(said, message)
        finally:
            await deferred.release()  # also for a call that was cancelled: its response must not wait for ever
        match said:
            case Result(result=result):
                return as_handshake_era(result)
            case Error(code=code, message=text, data=data):
                raise MCPError(code=code, message=text, data=data)

    async def _said(self, ctx: ServerRequestContext[Any, Any], message: Message, deferred: Deferred) -> Answer:
        try:
            level = message.meta.get(types.LOG_LEVEL_META_KEY)
            channel = LegacyChannel(ctx, commit=deferred.release, when_gone=deferred.when_gone, level=level)
            caller = _caller(ctx)
            outcome = await self._gateway.call(caller, message, channel)
            return answer(outcome, message, caller.token, places=self._places)
        except StoreError as error:
            trouble.error(error, "call refused, the store cannot be used: %s", error)
            return unavailable(error)
        except Exception:
            log.exception("call failed in the gateway itself")  # the SDK would tell the caller its text
            return BROKEN


def _refused(error: Error, deferred: Deferred, ctx: ServerRequestContext[Any, Any]) -> bool:
    """Whether the response is this error with its HTTP status, because it has not begun yet.

    An unknown tool stays a plain JSON-RPC error: clients of this era take HTTP 400 for a broken transport.
    """
    return error.status in {401, 403, 500, 503} and deferred.refuse(error, request_id=ctx.request_id)


def with_log_level(params: Mapping[str, Any], level: str | None) -> dict[str, Any]:
    """The parameters as a newer client would send them that wants these log entries: each call says it for itself."""
    meta = params.get("_meta")
    if level is None or (meta is not None and not isinstance(meta, dict)):
        return dict(params)
    return {**params, "_meta": {**(meta or {}), types.LOG_LEVEL_META_KEY: level}}


def as_handshake_era(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result without the two members that only 2026-07-28 knows; a server's own name does not pass for ours."""
    older = {key: value for key, value in result.items() if key != "resultType"}
    meta = older.get("_meta")
    if isinstance(meta, dict) and types.SERVER_INFO_META_KEY in meta:
        older["_meta"] = {key: value for key, value in meta.items() if key != types.SERVER_INFO_META_KEY}
    return older


def shown(tool: Tool) -> dict[str, Any]:
    """The pinned definition under the gateway's name, every other member as its server wrote it but `_meta` of ours."""
    return {**clean(tool.definition), "name": tool.name}


def _introduced(ctx: ServerRequestContext[Any, Any]) -> dict[str, Any]:
    """What the client said of itself at the handshake, as the `_meta` of a newer one says it with each request."""
    said = ctx.session.client_params
    return {} if said is None else {types.CLIENT_INFO_META_KEY: said.client_info.model_dump()}


def _caller(ctx: ServerRequestContext[Any, Any]) -> Caller:
    caller: Caller = ctx.request.scope[CALLER]  # type: ignore[union-attr]
    return caller


async def _unreachable(ctx: ServerRequestContext[Any, Any], params: Any) -> Any:
    raise MCPError(code=INTERNAL_ERROR, message="Internal server error")
