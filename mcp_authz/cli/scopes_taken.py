"""Says which of the scopes that were typed no tool takes, as far as the tools of the servers here are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from mcp_authz.cli.output import note
from mcp_authz.config import Config
from mcp_authz.rules.classify import ServerRules, classify
from mcp_authz.rules.display import visible
from mcp_authz.rules.offered import DEFINITIONS
from mcp_authz.rules.scope import Scope, ScopeTemplate
from mcp_authz.store.ports import Pin

_SHOWN: Final = 4  # of what tools take; the others are only hinted at


def note_untaken(config: Config, pins: Iterable[Pin], scopes: Iterable[Scope]) -> None:
    """A person has read, on stderr, which of these scopes no tool takes; nothing is refused.

    Nothing is said where no tool was ever listed, nor of what a server may take that has listed none so far.
    """
    from mcp_authz.settings import server_rules  # with the presets, which nobody needs who types no scope

    typed, listed = sorted(scopes), list(pins)
    if not typed or not listed:
        return
    rules = {name: server_rules(name, server) for name, server in config.servers.items()}
    taken = _taken(rules, (pin for pin in listed if pin.tool not in DEFINITIONS))
    every = _all(taken)
    others = _all(_taken(rules, (pin for pin in listed if pin.tool in DEFINITIONS)))  # resources, prompts, completion
    named = {template.text for template in others}
    silent = [rules[name] for name in rules.keys() - {pin.server for pin in listed}]
    idle = [
        scope
        for scope in typed
        if not (scope in named or _is_taken(scope, every) or any(_may_be(scope, it) for it in silent))
    ]
    if every and idle:
        meant = {scope.partition(":")[0] for scope in idle}  # who writes a server's name means that server
        near = _all({name: taken[name] for name in taken.keys() & meant})
        shown = [f"`{visible(it)}`{' (only resources or prompts do)' * _is_taken(it, others)}" for it in idle]
        note(f"no tool takes {', '.join(shown)}; tools here take: {_beginnings(near, every)}")


def _taken(rules: Mapping[str, ServerRules], pins: Iterable[Pin]) -> dict[str, set[ScopeTemplate]]:
    """What the tools of each server need that has listed any."""
    taken: dict[str, set[ScopeTemplate]] = {}
    for pin in pins:
        if pin.server in rules:
            taken.setdefault(pin.server, set()).update(classify(rules[pin.server], pin.tool, pin.digest).scopes)
    return taken


def _all(taken: Mapping[str, Iterable[ScopeTemplate]]) -> frozenset[ScopeTemplate]:
    return frozenset(template for of in taken.values() for template in of)


def _is_taken(scope: Scope, templates: Iterable[ScopeTemplate]) -> bool:
    return any(template.could_match([scope]) for template in templates)


def _may_be(scope: Scope, server: ServerRules) -> bool:
    """Whether a tool could take it of a server that has listed none so far."""
    return scope.partition(":")[0] in {server.server, "*"} or _is_taken(scope, _configured(server))


def _configured(server: ServerRules) -> Iterator[ScopeTemplate]:
    known = [*server.exact.values(), *(it for _, it in server.patterns)]
    for classification in [*known, *(it.classification for it in server.preset.values())]:
        yield from classification.scopes


def _beginning(template: ScopeTemplate) -> str:
    """What covers the scopes of a tool and of others like it, short enough for one line."""
    head, colon, _ = template.text.partition(":")
    return f"{head}:*" if colon else head


def _beginnings(near: Iterable[ScopeTemplate], every: Iterable[ScopeTemplate]) -> str:
    """What covers these, those of `near` first, for one line."""
    first = {_beginning(template) for template in near}
    shown = [*sorted(first), *sorted({_beginning(template) for template in every} - first)]
    return ", ".join([*shown[:_SHOWN], *(["..."] if len(shown) > _SHOWN else [])])
