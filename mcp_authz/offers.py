"""Resources and prompts of all servers in one list, and the way from a request for one back to its server."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mcp_authz.catalog import Catalog, could_ever_use
from mcp_authz.downstream import PROMPTS, RESOURCES, TEMPLATES, Downstream, Offer
from mcp_authz.errors import DownstreamError
from mcp_authz.model import Tool, ToolCall
from mcp_authz.principals import Caller
from mcp_authz.relay import clean
from mcp_authz.rules.call_proof import BOUND
from mcp_authz.rules.offered import COMPLETE, GET, READ, fits_template

log = logging.getLogger(__name__)

SEPARATOR = "__"  # between a server's name, which has no underscore, and the name it gives a prompt

_CAPABILITIES = {READ: RESOURCES.capability, GET: PROMPTS.capability, COMPLETE: "completions"}
_NEEDS = {RESOURCES: READ, TEMPLATES: READ, PROMPTS: GET}


class Offers:
    """What servers offer beside tools. Lists are asked for anew each time; only where a URI lives is remembered."""

    def __init__(self, *, catalog: Catalog, downstreams: Mapping[str, Downstream]) -> None:
        self._catalog = catalog
        self._downstreams = downstreams
        self._uris: dict[str, frozenset[str]] = {}  # server -> the URIs it listed last
        self._templates: dict[str, tuple[str, ...]] = {}

    async def list(self, caller: Caller, offer: Offer) -> tuple[dict[str, Any], ...]:
        """Everything of this kind from every server that this caller could ask for it; listing grants nothing."""
        await self._catalog.look()  # a server may have been switched off
        listed: list[dict[str, Any]] = []
        for server in self._servers(caller, _NEEDS[offer]):
            items = await self._ask(server, offer)
            listed.extend(_named(server, item) if offer is PROMPTS else clean(item) for item in items)
        return tuple(listed)

    async def resolve(self, caller: Caller, method: str, params: Mapping[str, Any]) -> ToolCall | None:
        """The call that a request stands for; None when no server of this caller offers what it names."""
        await self._catalog.look()  # a server may have been switched on again
        arguments = {name: value for name, value in params.items() if name in BOUND[method]}
        match method:
            case "resources/read":
                server = await self._home(caller, params.get("uri"))
            case "prompts/get":
                server, own = _split(params.get("name"))
                arguments["name"] = own
            case _:
                reference = params.get("ref")
                server, arguments["ref"] = await self._reference(
                    caller, reference if isinstance(reference, dict) else {}
                )
        tool = self._tool(caller, server, method)
        return None if tool is None else ToolCall(tool=tool, arguments=arguments)

    async def _reference(self, caller: Caller, reference: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        if reference.get("type") == "ref/prompt":
            server, own = _split(reference.get("name"))
            return server, {**reference, "name": own}
        return await self._home(caller, reference.get("uri"), COMPLETE), dict(reference)

    async def _home(self, caller: Caller, uri: object, method: str = READ) -> str:
        """The server that a URI belongs to: who listed it, or who has a template for it; empty when there is none."""
        if not isinstance(uri, str):
            return ""
        servers = self._servers(caller, method)
        if (known := self._known(servers, uri)) is not None:
            return known
        for server in servers:  # it may be new
            await self._ask(server, RESOURCES)
            await self._ask(server, TEMPLATES)
        return self._known(servers, uri) or ""

    def _known(self, servers: tuple[str, ...], uri: str) -> str | None:
        for server in servers:
            if uri in self._uris.get(server, ()) or uri in self._templates.get(server, ()):
                return server
        for server in servers:
            if any(fits_template(uri, template) for template in self._templates.get(server, ())):
                return server
        return None

    async def _ask(self, server: str, offer: Offer) -> tuple[Mapping[str, Any], ...]:
        try:
            items = await self._downstreams[server].list_offers(offer)
        except DownstreamError as error:
            log.warning("tool server `%s` could not list %s: %s", server, offer.member, error)
            return ()
        if offer is RESOURCES:
            self._uris[server] = frozenset(uri for item in items if isinstance(uri := item.get("uri"), str))
        if offer is TEMPLATES:
            self._templates[server] = tuple(t for item in items if isinstance(t := item.get("uriTemplate"), str))
        return items

    def has(self, tool: Tool) -> bool:
        """Whether its server has this tool: a method that the server does not know is no use to anybody."""
        capability = _CAPABILITIES.get(tool.method)
        return capability is None or self._downstreams[tool.server].declares(capability)

    def _servers(self, caller: Caller, method: str) -> tuple[str, ...]:
        return tuple(server for server in self._downstreams if self._tool(caller, server, method) is not None)

    def _tool(self, caller: Caller, server: str, method: str) -> Tool | None:
        tool = self._catalog.find(f"{server}{SEPARATOR}{method}")
        return tool if tool is not None and tool.method == method and could_ever_use(caller, tool) else None


def _split(name: object) -> tuple[str, str]:
    server, _, own = name.partition(SEPARATOR) if isinstance(name, str) else ("", "", "")
    return server, own


def _named(server: str, prompt: Mapping[str, Any]) -> dict[str, Any]:
    return {**clean(prompt), "name": f"{server}{SEPARATOR}{prompt.get('name')}"}
