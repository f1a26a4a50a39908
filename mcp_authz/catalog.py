"""The catalogue: every tool of every server, with its pinned definition, its classification, and its quarantine."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import anyio

from mcp_authz import limits
from mcp_authz.downstream import Downstream
from mcp_authz.errors import ConfigError, DownstreamError, InputError
from mcp_authz.model import Tool, ToolName
from mcp_authz.principals import Caller
from mcp_authz.rules import strict_json
from mcp_authz.rules.classify import ServerRules, classify, tool_name
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.display import visible
from mcp_authz.rules.observe import is_observed
from mcp_authz.rules.offered import DEFINITIONS
from mcp_authz.rules.scope import Scope
from mcp_authz.rules.suspicion import suspicions
from mcp_authz.store.ports import Clock, Event, Pin, Store

log = logging.getLogger(__name__)


class Catalog:
    """The tools the gateway knows; replaced whole on every change, so that one call sees one catalogue."""

    def __init__(self, *, store: Store, rules: Mapping[str, ServerRules], clock: Clock) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock
        self._by_server: dict[str, tuple[Tool, ...]] = {}
        self._by_name: Mapping[ToolName, Tool] = {}
        self._off: frozenset[tuple[str, str]] = frozenset()  # server and tool; for a whole server, or all, empty

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Every tool that can be listed and called by name, servers in the order of the configuration."""
        return tuple(tool for tool in self._by_name.values() if tool.method == "tools/call")

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers of the configuration, in its order, also those that were never listed."""
        return tuple(self._rules)

    @property
    def everything(self) -> tuple[Tool, ...]:
        """Every tool, and for each server the methods that stand for themselves."""
        return tuple(self._by_name.values())

    def find(self, name: str) -> Tool | None:
        """The tool of this name, in quarantine or not."""
        return self._by_name.get(ToolName(name))

    def warnings(self) -> Mapping[ToolName, tuple[str, ...]]:
        """What a person should look at in the definitions that count, by tool; nothing of it stops a call."""
        known = [_full_name(tool.server, tool.tool) for tool in self.tools]
        found = {tool.name: warnings(tool.definition, tool.server, known) for tool in self.tools}
        return {name: said for name, said in found.items() if said}

    async def load_pins(self) -> None:
        """Every tool that was ever pinned for a configured server is known, also while its server is down."""
        self._off = await self._switched_off()
        for pin in await self._store.pins():
            if pin.server in self._rules:
                known = self._by_server.get(pin.server, ())
                self._by_server[pin.server] = (*known, self._tool(pin))
        self._publish(self._by_server)

    async def refresh(self, downstream: Downstream) -> bool:
        """The server's tools are as it lists them now; False when it could not be asked and what was known stays.

        New tools are pinned, changed ones are in quarantine, those that are gone are not known any more.

        Raises:
            ConfigError: two tools would have the same name; what was known stays, and nothing new is pinned.
            StoreError: it could not be recorded; what was known stays.
        """
        try:
            definitions = await downstream.list_tools()
        except DownstreamError as error:
            log.warning("tool server `%s` could not be listed: %s", downstream.name, error)
            return False
        await self._pin(downstream.name, definitions)
        return True

    async def reread(self) -> None:
        """What is pinned now counts, also where another process accepted or quarantined a definition."""
        self._off = await self._switched_off()
        pins = {(pin.server, pin.tool): pin for pin in await self._store.pins()}
        self._publish(
            {
                server: tuple(self._tool(pin) for tool in tools if (pin := pins.get((server, tool.tool))) is not None)
                for server, tools in self._by_server.items()
            }
        )

    async def look(self) -> None:
        """What somebody switched off, or may have accepted, since then counts; a read of little where nobody did."""
        if self.has_quarantined or await self._switched_off() != self._off:
            await self.reread()

    async def _switched_off(self) -> frozenset[tuple[str, str]]:
        return frozenset((it.server, it.tool) for it in await self._store.switched_off() if not it.is_everything)

    @property
    def has_quarantined(self) -> bool:
        """Whether some tool waits for an operator: then it is worth rereading what they have done since."""
        return any(tool.quarantined for tool in self._by_name.values())

    async def _pin(self, server: str, definitions: tuple[Mapping[str, Any], ...]) -> None:
        now = self._clock()
        pins = {pin.tool: pin for pin in await self._store.pins() if pin.server == server}
        seen = dict(_readable(server, (*definitions, *DEFINITIONS.values())))  # the protocol's own come last and win
        self._require_names(server, {tool: pins[tool].digest if tool in pins else seen[tool][0] for tool in seen})
        new = [
            Pin(server=server, tool=tool, digest=digest, definition=definition, seen_at=now)
            for tool, (digest, definition) in seen.items()
            if tool not in pins
        ]
        if new:
            said = await self._look_at(server, {pin.tool: pin.definition for pin in new}, seen)
            await self._store.pin_first(new, _pinned(server, new, said, now))
        for tool, (digest, definition) in seen.items():
            if (pin := pins.get(tool)) is not None:
                await self._compare(pin, digest, definition, now, seen)
        pins = {pin.tool: pin for pin in await self._store.pins() if pin.server == server}
        self._publish({**self._by_server, server: tuple(self._tool(pins[tool]) for tool in seen if tool in pins)})

    async def _look_at(
        self, server: str, definitions: Mapping[str, Mapping[str, Any]], listed: Iterable[str]
    ) -> dict[str, tuple[str, ...]]:
        """The warnings about these definitions, by tool; the log has them."""
        others = [_full_name(tool.server, tool.tool) for tool in self.tools if tool.server != server]
        known = [*others, *(_full_name(server, tool) for tool in listed)]
        found = {}
        for tool, definition in definitions.items():  # in a thread: the largest take a second each
            if said := await anyio.to_thread.run_sync(warnings, definition, server, known):
                found[tool] = said
                log.warning("tool `%s` of server `%s`: %s", visible(tool), server, "; ".join(said))
        return found

    async def _compare(
        self, pin: Pin, digest: bytes, definition: Mapping[str, Any], now: datetime, listed: Iterable[str]
    ) -> None:
        fields = {"server": pin.server, "tool": pin.tool, "pinned": pin.digest.hex(), "listed": digest.hex()}
        if digest == pin.digest:
            if pin.changed_digest is not None:
                event = Event(kind="pin", at=now, fields={**fields, "outcome": "released"})
                await self._store.release(pin.server, pin.tool, event)
        elif digest != pin.changed_digest:
            log.warning("tool `%s` of server `%s` changed its definition: in quarantine", pin.tool, pin.server)
            said = (await self._look_at(pin.server, {pin.tool: definition}, listed)).get(pin.tool, ())
            warned = {"warnings": list(said)} if said else {}
            changed = replace(pin, changed=definition, changed_digest=digest)
            event = Event(kind="pin", at=now, fields={**fields, "outcome": "quarantined", **warned})
            await self._store.quarantine(changed, event)

    def _tool(self, pin: Pin) -> Tool:
        rules = self._rules[pin.server]
        classification = classify(rules, pin.tool, pin.digest)
        off = not self._off.isdisjoint({(pin.server, pin.tool), (pin.server, "")})
        return Tool(
            name=tool_name(pin.server, pin.tool, pin.digest),
            server=pin.server,
            tool=pin.tool,
            environment=rules.environment,
            definition=pin.definition,
            digest=pin.digest,
            classification=classification,
            quarantined=off or pin.changed_digest is not None,
            off=off,
            observed=is_observed(rules.observing, pin.tool, classification),
            method=pin.tool if pin.tool in DEFINITIONS else "tools/call",
        )

    def _require_names(self, server: str, digests: Mapping[str, bytes]) -> None:
        """Every tool of the server has a name of its own, before anything of it is pinned for good."""
        others = [tool.name for name, tools in self._by_server.items() if name != server for tool in tools]
        _require_unique([*others, *(tool_name(server, tool, digest) for tool, digest in digests.items())])

    def _publish(self, by_server: Mapping[str, tuple[Tool, ...]]) -> None:
        tools = [tool for server in self._rules for tool in by_server.get(server, ())]
        _require_unique([tool.name for tool in tools])
        self._by_server = dict(by_server)
        self._by_name = {tool.name: tool for tool in tools}


def _require_unique(names: Sequence[ToolName]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ConfigError(f"two tools would have the same name: {', '.join(twice)}; rename one of the servers")


def could_ever_use(caller: Caller, tool: Tool) -> bool:
    """Whether some arguments exist with which all that bounds the caller would cover the tool (DESIGN section 5).

    An agent in its own name, without a session, is shown what its ceiling alone allows; so is a client agent, whose
    person can agree to more. What is observed is shown to all: nothing of this would stop a call of it.
    """
    if tool.quarantined or tool.observed:
        return not tool.quarantined
    held = list(caller.ceilings.values())
    if caller.chain is not None and caller.agent.client is None:  # a client agent can ask its person for more
        held.extend(link.scope for link in caller.chain.links)
        if any(link.tools is not None and tool.name not in link.tools for link in caller.chain.links):
            return False
    return could_ever_be_given(tool, held)


def could_ever_be_given(tool: Tool, held: Sequence[frozenset[Scope]]) -> bool:
    """Whether some arguments exist with which each of these sets of scopes would cover the tool."""
    return not tool.quarantined and all(
        template.could_match(scopes) for scopes in held for template in tool.classification.scopes
    )


def known_to(caller: Caller, tool: Tool | None) -> Tool | None:
    """The tool, if this caller may learn that it exists: one it could never use answers like an unknown one.

    A tool in quarantine is known to those who could use it otherwise, so that the denial can say why.
    """
    if tool is None:
        return None
    return tool if could_ever_use(caller, _out_of_quarantine(tool)) else None


def _out_of_quarantine(tool: Tool) -> Tool:
    return replace(tool, quarantined=False) if tool.quarantined else tool


def _readable(
    server: str, definitions: tuple[Mapping[str, Any], ...]
) -> list[tuple[str, tuple[bytes, Mapping[str, Any]]]]:
    """The definitions that can be pinned and shown; the server's others are left out, and the log says why."""
    readable = []
    for definition in definitions:
        try:
            readable.append((_own_name(definition), (_digest(definition), definition)))
        except InputError as error:
            log.warning("server `%s` lists a tool that cannot be read, it is left out: %s", server, error)
    # Of a name that stands for two definitions nobody could say what a call of it is a call of.
    twice = {name for name, count in Counter(name for name, _ in readable).items() if count > 1} - DEFINITIONS.keys()
    for name in sorted(twice):
        log.warning("server `%s` lists tool `%s` more than once, it is left out", server, name)
    return [entry for entry in readable if entry[0] not in twice]


def _own_name(definition: Mapping[str, Any]) -> str:
    name = definition.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= limits.LISTED_NAME or not name.isprintable():
        raise InputError(f"its name is not 1 to {limits.LISTED_NAME} printable characters")
    return name


def _digest(definition: Mapping[str, Any]) -> bytes:
    # Read as strictly as what callers send: the definition goes to them, and its schema to a recursive checker.
    strict_json.parse_object(strict_json.dump(dict(definition)), max_bytes=limits.DEFINITION_BYTES)
    return definition_digest(definition)


def _pinned(server: str, pins: list[Pin], said: Mapping[str, tuple[str, ...]], now: datetime) -> Event:
    tools = {pin.tool: pin.digest.hex() for pin in pins}
    warned = {"warnings": {tool: list(texts) for tool, texts in said.items()}} if said else {}
    return Event(kind="pin", at=now, fields={"server": server, "outcome": "first sight", "tools": tools, **warned})


def warnings(definition: Mapping[str, Any], server: str, known: Collection[str]) -> tuple[str, ...]:
    """What a person should look at in this definition; `known` are the tools of all servers, as `server__tool`."""
    return tuple(found.text for found in suspicions(definition, server=server, others=known))


def _full_name(server: str, tool: str) -> str:
    return f"{server}__{tool}"
