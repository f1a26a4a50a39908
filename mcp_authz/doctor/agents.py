"""Agents: their keys on this disk, what people have granted them, and what they do now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from mcp_authz.agents import current_keys
from mcp_authz.doctor.belongings import agent_keys
from mcp_authz.doctor.finding import Case, Finding, broken, fine, named, note
from mcp_authz.errors import KeyRefused
from mcp_authz.principals import Agent, Grant
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.store.glance import Inside

AGENTS = "agents"
SOON = timedelta(days=7)


async def check_agents(case: Case) -> tuple[Finding, ...]:
    """Every active agent has a key and a grant, and every key file is one of an agent."""
    if case.inside is None:
        return ()
    active = [agent for agent in case.inside.agents if agent.status == "active"]
    if not active:
        return (note(AGENTS, "no agent is registered", case.command("agent", "add", "--help")),)
    found = [finding for agent in active for finding in _grants(case, case.inside, agent)]
    sessions = len(frozenset[str]().union(*case.inside.open_sessions.values()))  # a delegated one is of several agents
    said = f"{len(active)} active ({named([agent.name for agent in active])}), {sessions} open sessions"
    old = [finding for agent in active for finding in _old_keys(case, case.inside, agent)]
    return (fine(AGENTS, said), *found, *old, *_key_files(case, case.inside))


def _grants(case: Case, inside: Inside, agent: Agent) -> Iterator[Finding]:
    own = [grant for grant in inside.grants if grant.agent == agent.name and grant.status == "active"]
    good = [grant for grant in own if grant.expires_at > case.at]
    if inside.open_sessions.get(agent.name):
        if not good:
            return  # it works by what another agent has delegated to it
    elif not own:
        yield note(AGENTS, f"{agent.name} has no grant, so it can list and ask, and call nothing", _grant(case, agent))
    elif not good:
        ended = max(grant.expires_at for grant in own)
        yield note(AGENTS, f"the grant of {agent.name} ended on {ended:%Y-%m-%d}", _grant(case, agent))
    if good and (last := max(good, key=_end)).expires_at < case.at + SOON:
        yield note(AGENTS, f"the grant of {agent.name} ends on {last.expires_at:%Y-%m-%d}", _grant(case, agent))


def _end(grant: Grant) -> float:
    return grant.expires_at.timestamp()


def _grant(case: Case, agent: Agent) -> str:
    return case.command("grant", "add", "--subject", agent.owner, "--agent", agent.name, "--scope", "SCOPES")


def _old_keys(case: Case, inside: Inside, agent: Agent) -> Iterator[Finding]:
    """The keys of a child, and of an agent that is hosted elsewhere, are not ours to replace."""
    after = case.config.keys.rotate_after
    if after is None or agent.parent is not None or agent.metadata_url is not None:
        return
    for key in current_keys(inside.keys.get(f"agent:{agent.name}", ())):
        if case.at - key.added_at > after + SOON:  # `connect` has had its time to do it by itself
            days = (case.at - key.added_at).days
            yield note(AGENTS, f"the key of {agent.name} is {days} days old", _rotate(case, agent.name))


def _key_files(case: Case, inside: Inside) -> Iterator[Finding]:
    for path in agent_keys(case.config):
        known = inside.keys.get(f"agent:{path.stem}")
        if known is None:
            yield note(AGENTS, f"{path} is the key of no registered agent", f"rm {path}")
            continue
        try:
            thumbprint = PrivateKey.from_pem(path.read_text(encoding="utf-8", errors="replace")).public.thumbprint
        except (KeyRefused, OSError):
            yield broken(AGENTS, f"{path} cannot be read as a key", _rotate(case, path.stem))
            continue
        if not any(
            key.thumbprint == thumbprint
            and key.status == "active"
            and (key.retires_at is None or key.retires_at > case.at)
            for key in known
        ):
            yield broken(
                AGENTS, f"{path} is not a key of {path.stem} that counts", case.command("agent", "rotate", path.stem)
            )


def _rotate(case: Case, agent: str) -> str:
    return case.command("agent", "rotate", agent, "--help")
