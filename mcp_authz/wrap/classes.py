"""What the tools of a started server are taken for, or proposed to be: configuration, preset, annotations, nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.model import Classification, Hazard
from mcp_authz.rules.classify import ServerRules, classify
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.offered import DEFINITIONS
from mcp_authz.rules.proposal import Proposal, names_package, propose
from mcp_authz.rules.scope import Scope, ScopeTemplate, covered, parse_scope
from mcp_authz.rules.suspicion import suspicions
from tool_adapters.presets import Preset, load_preset, preset_names

Definition = Mapping[str, Any]
_SCOPES_AT_MOST: Final = limits.SCOPES // 2  # of one server in one grant; more are summed up


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The preset that fits a server, and whether the server's command names the preset's package."""

    preset: Preset
    named: bool


def fitting_preset(command: Sequence[str], definitions: Iterable[Definition]) -> Chosen | None:
    """Return the preset that knows most of these definitions; None when none knows any.

    Definitions alone can be copied by any server, so the answer also says whether the command runs that package.
    """
    definitions = tuple(definitions)
    best: tuple[int, bool, str] = (0, False, "")
    for name in preset_names():
        preset = load_preset(name)
        known = sum(preset.covering(definition) is not None for definition in definitions)
        best = max(best, (known, names_package(command, preset.server), name))
    known, named, name = best
    return Chosen(preset=load_preset(name), named=named) if known else None


def classifiable(definition: Definition) -> bool:
    """Whether a class can be written for this tool by its exact name."""
    name = definition["name"]
    return "*" not in name and name not in DEFINITIONS


def proposals(
    rules: ServerRules,
    definitions: Iterable[Definition],
    *,
    preset: Preset | None = None,
    others: Collection[str] = (),
    believe: bool = True,
) -> tuple[Proposal, ...]:
    """Return one proposal for each tool that can be classified; what the configuration says is proposed to stay.

    `others` are the tools of all servers, as `server__tool`; `believe` is whether annotations count.
    """
    return tuple(
        _proposal(rules, definition, preset, others, believe) for definition in definitions if classifiable(definition)
    )


def _proposal(
    rules: ServerRules, definition: Definition, preset: Preset | None, others: Collection[str], believe: bool
) -> Proposal:
    warnings = [found.text for found in suspicions(definition, server=rules.server, others=others)]
    said = classify(rules, definition["name"], definition_digest(definition))
    if said.by == "configuration":
        tool, why = definition["name"], "your configuration"
        return Proposal(tool=tool, hazard=said.hazard, by="configuration", why=why, warnings=tuple(warnings))
    if said.by.startswith("preset:"):
        known: tuple[str, Hazard] | None = (said.by.removeprefix("preset:"), said.hazard)
    else:
        entry = preset.covering(definition) if preset is not None else None
        known = (preset.name, entry.hazard) if preset is not None and entry is not None else None
    return propose(definition, preset=known, warnings=warnings, believe=believe)


def tool_of(server: str, definition: Definition) -> str:
    """Return the whole name of a tool, as warnings know those of other servers."""
    return f"{server}__{definition['name']}"


def entry_to_write(
    hazard: Hazard, said: Classification, tools: Mapping[str, Mapping[str, Any]], tool: str
) -> dict[str, Any]:
    """Return a tool's table of the configuration with this class, and all else as it was said before.

    `said` is what counts for the tool now; `tools` are the tables that its server has.
    """
    own = tools.get(tool) or next((t for name, t in tools.items() if "*" in name and fnmatchcase(tool, name)), None)
    if own is not None and said.by == "configuration":
        return {**own, "hazard": hazard.value}
    if said.by == "nobody":
        return {"hazard": hazard.value}
    entry: dict[str, Any] = {"action": said.action, "hazard": hazard.value}
    entry["scopes"] = [str(scope) for scope in said.scopes]
    if said.resource:
        entry["resource"] = dict(said.resource)
    return entry


def scopes_to_use(server: str, classifications: Iterable[Classification]) -> frozenset[Scope]:
    """Return the scopes that open every tool of the server: its own name, and what its preset calls them."""
    own = parse_scope(server)
    found = {_head(template) for of in classifications for template in of.scopes}
    foreign = {scope for scope in found if not covered(scope, [own])}
    if len(foreign) > _SCOPES_AT_MOST:
        foreign = {parse_scope(scope.partition(":")[0]) for scope in foreign}
    return frozenset({own, *(scope for scope in foreign if not covered(scope, foreign - {scope}))})


def _head(template: ScopeTemplate) -> Scope:
    """The template with `*` for its variables, without those at its end: a scope covers what extends it."""
    words = ["*" if variable else word for word, variable in zip(template.segments, template.variable, strict=True)]
    while len(words) > 1 and words[-1] == "*":
        words.pop()
    return parse_scope(":".join(words))


def scope_words(rules: ServerRules) -> frozenset[str]:
    """Return the first words of all scopes that the tools of a server may need."""
    classifications = [
        *rules.exact.values(),
        *(classification for _, classification in rules.patterns),
        *(known.classification for known in rules.preset.values()),
    ]
    return frozenset({rules.server, *(scope.segments[0] for of in classifications for scope in of.scopes)})
