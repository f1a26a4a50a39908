"""What there is beside a policy: the tools, agents, people and rules of a configuration and its store."""

from __future__ import annotations

from collections.abc import Iterable

from mcp_authz.catalog import Catalog
from mcp_authz.config import Config
from mcp_authz.installation import Installation, open_installation
from mcp_authz.model import Classification
from mcp_authz.policy.lint_static import Around
from mcp_authz.rules.classify import ServerRules
from mcp_authz.settings import approval_floor, least_proof, server_rules


async def around(config: Config) -> Around:
    """Return what is known beside the policies; without a store nothing of tools, agents and people."""
    if not config.source.is_file():
        return Around()
    least = least_proof(config)
    rules = {name: server_rules(name, server, least) for name, server in config.servers.items()}
    known = _configured(config, rules)
    if not (config.data / "store.db").exists():
        return known
    async with open_installation(config) as here:
        return await _stored(here, rules, known)


def _configured(config: Config, rules: dict[str, ServerRules]) -> Around:
    return Around(
        environments=frozenset(of.environment for of in rules.values()),
        approvals=frozenset(approval_floor(config).rules),
        names={kind: frozenset(names) for kind, names in config.means.names.items()},
    )


async def _stored(here: Installation, rules: dict[str, ServerRules], known: Around) -> Around:
    catalog = Catalog(store=here.store, rules=rules, clock=here.clock)
    await catalog.load_pins()
    agents = [agent for agent in await here.store.agents() if agent.status == "active"]
    people = [person for person in await here.store.people() if person.status == "active"]
    listed = {tool.server for tool in catalog.tools}
    entries = [*_entries(rules.values()), *(tool.classification for tool in catalog.everything)]
    provided = here.config.sign_in.provider is not None  # people and their groups come when they sign in
    return Around(
        environments=known.environments,
        approvals=known.approvals,
        names=known.names,
        tools=tuple(tool for tool in catalog.everything if tool.method == "tools/call"),
        actions=frozenset(entry.action for entry in entries if entry.action),
        unlisted=tuple(sorted(rules.keys() - listed)),
        attributes=frozenset(name for entry in entries for name in entry.resource),
        agents=frozenset(agent.name for agent in agents),
        labels=frozenset(label for agent in agents for label in agent.labels),
        people=None if provided else {person.name: person.groups for person in people},
    )


def _entries(rules: Iterable[ServerRules]) -> Iterable[Classification]:
    for of in rules:
        yield from of.exact.values()
        yield from (classification for _, classification in of.patterns)
        yield from (classified.classification for classified in of.preset.values())
