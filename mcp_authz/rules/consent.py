"""What a person is asked when a client wants to act for them: scopes in plain words, and the tools that each opens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mcp_authz import limits
from mcp_authz.model import Hazard, Tool
from mcp_authz.rules.scope import DECIDE, PERSONAL, READ, STOP, Scope, ScopeTemplate, covered, covers

_WORD_ENDS: Final = re.compile(r"([a-z0-9])([A-Z])")
_ORDER: Final = {hazard: place for place, hazard in enumerate(Hazard)}
_NAMED: Final = 3  # tools that one scope opens, as long as their names say it better than any other words
_METHODS: Final[Mapping[str, str]] = {
    "resources/read": "Read files and records",
    "prompts/get": "Use prompts",
    "completion/complete": "Complete what is typed",
}
_PERSONAL: Final[Mapping[Scope, str]] = {
    DECIDE: "Answer held calls for you",
    READ: "Read records, agents and sessions, as far as you may",
    STOP: "Stop agents, sessions and calls, as far as you may",
}
_WORDS: Final[Mapping[Hazard, str]] = {
    Hazard.READ: "Look at things",
    Hazard.WRITE: "Change things",
    Hazard.DESTRUCTIVE: "Change and delete things",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedTool:
    """One tool that a scope opens, or helps to open."""

    name: str  # as its server calls it
    server: str
    hazard: Hazard
    held: bool  # each call of it waits for a person all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One scope that a person can agree to."""

    scope: Scope
    words: str  # the operator's, or made of the names and hazards of the tools; never the client's
    tools: tuple[OpenedTool, ...]
    chosen: bool  # whether it is agreed to unless the person says otherwise

    @property
    def hazard(self) -> Hazard:
        """The worst of what it opens."""
        return max((tool.hazard for tool in self.tools), key=_ORDER.__getitem__, default=Hazard.DESTRUCTIVE)


def everything(tools: Iterable[Tool]) -> frozenset[Scope]:
    """Return the scopes that the calls of these tools need; those of a server as one where they are too many.

    One that another covers stays beside it: whoever agrees to reading need not agree to all.
    """
    found = {widest(template) for tool in tools for template in tool.classification.scopes}
    if len(found) > limits.SCOPES_OFFERED:
        found = {Scope(scope.partition(":")[0]) for scope in found}
    return frozenset(found)


def widest(template: ScopeTemplate) -> Scope:
    """Return the scope that covers every filling of the template: `*` for each argument."""
    pairs = zip(template.segments, template.variable, strict=True)
    return Scope(":".join("*" if variable else segment for segment, variable in pairs))


def to_ask(asked: frozenset[Scope] | None, ceiling: frozenset[Scope]) -> frozenset[Scope]:
    """Return what a person is asked for: what the client asks for as far as it can be had, or all there is.

    Something wider than there is, such as a whole server's scope, is taken apart into what there is of it.
    """
    if asked is None:
        return ceiling
    within = {scope for scope in asked if covered(scope, ceiling)}
    parts = {scope for scope in ceiling for wide in asked if covers(wide, scope)}
    return frozenset(within | parts)


def to_decide(asked: frozenset[Scope] | None, words: Mapping[str, str]) -> Offered | None:
    """Return leave to answer held calls as a person sees it: chosen where the client asks for it by its name.

    None where the client asks for something else. It is no part of what there is for tools, and is never chosen
    because of that.
    """
    if asked is not None and DECIDE not in asked:
        return None
    return Offered(scope=DECIDE, words=_said(DECIDE, words, ()), tools=(), chosen=asked is not None)


def to_administer(asked: frozenset[Scope] | None, words: Mapping[str, str]) -> tuple[Offered, ...]:
    """Return leave to read and to stop as a person sees it, where the client asks for it by its name."""
    wanted = sorted((asked or frozenset()) & (PERSONAL - {DECIDE}))
    return tuple(Offered(scope=scope, words=_said(scope, words, ()), tools=(), chosen=True) for scope in wanted)


def useful(scopes: Iterable[Scope], tools: Iterable[Tool], *, has: Callable[[Tool], bool]) -> frozenset[Scope]:
    """Return the scopes without those that open nothing but what no server has; `has` says whether one has a tool."""
    known = tuple(tools)
    opened = {scope: [tool for tool in known if _opens(scope, tool)] for scope in scopes}
    return frozenset(scope for scope, found in opened.items() if not found or any(map(has, found)))


def offer(
    scopes: Iterable[Scope],
    tools: Iterable[Tool],
    *,
    words: Mapping[str, str],
    is_held: Callable[[Tool], bool],
    asked: bool,
) -> tuple[Offered, ...]:
    """Return the scopes as a person sees them, what only reads first.

    Args:
        scopes: what can be agreed to.
        tools: the catalogue.
        words: the operator's words, by scope.
        is_held: whether calls of a tool wait for a person.
        asked: whether the client asks for exactly these; otherwise it leaves the choice, and what only reads is chosen.
    """
    known = tuple(tools)
    found = []
    for scope in scopes:
        opened = tuple(_opened(tool, is_held) for tool in known if _opens(scope, tool))
        reads = bool(opened) and all(tool.hazard is Hazard.READ for tool in opened)
        said = f"{_said(scope, words, opened)}{_places(scope, known)}"
        found.append(Offered(scope=scope, words=said, tools=opened, chosen=asked or reads))
    return tuple(sorted(found, key=_place))


def _place(one: Offered) -> tuple[int, bool, Scope]:
    """What only reads first; within a hazard the tools' own scopes before those of the protocol's methods."""
    return _ORDER[one.hazard], bool(one.tools) and all(tool.name in _METHODS for tool in one.tools), one.scope


def _places(scope: Scope, tools: tuple[Tool, ...]) -> str:
    """What the scope says of arguments: ` (owner acme, repo api)`; nothing where it leaves them open."""
    segments = scope.split(":")
    for template in (template for tool in tools for template in tool.classification.scopes):
        if template.could_match([scope]):
            parts = zip(template.segments, template.variable, segments, strict=False)
            said = [f"{name} {value}" for name, variable, value in parts if variable and value != "*"]
            return f" ({', '.join(said)})" if said else ""
    return ""


def _opens(scope: Scope, tool: Tool) -> bool:
    """Whether some call of the tool needs something that the scope covers."""
    return any(template.could_match([scope]) for template in tool.classification.scopes)


def _opened(tool: Tool, is_held: Callable[[Tool], bool]) -> OpenedTool:
    return OpenedTool(name=tool.tool, server=tool.server, hazard=tool.classification.hazard, held=is_held(tool))


def _said(scope: Scope, words: Mapping[str, str], tools: tuple[OpenedTool, ...]) -> str:
    """The operator's words for the scope, or for the longest one that covers it."""
    known = max((one for one in words if covers(Scope(one), scope)), key=len, default=None)
    if known is not None:
        return _sentence(words[known])
    if not tools:
        return _PERSONAL.get(scope, scope)
    servers = ", ".join(sorted({tool.server for tool in tools}))
    if len(tools) <= _NAMED:
        said = ", ".join(dict.fromkeys(_METHODS.get(tool.name) or _spoken(tool.name) for tool in tools))
        return f"{_sentence(said)}, with {servers}"
    worst = max((tool.hazard for tool in tools), key=_ORDER.__getitem__)
    return f"{_WORDS[worst]} with {servers}"


def _sentence(said: str) -> str:
    return f"{said[:1].upper()}{said[1:]}"


def _spoken(name: str) -> str:
    """A tool's name as words: `open_pull_request`, `openPullRequest` -> `open pull request`."""
    return " ".join(_WORD_ENDS.sub(r"\1 \2", name).replace("_", " ").replace("-", " ").lower().split())
