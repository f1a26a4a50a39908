"""The agent that a client becomes: its key, its person, its grant; done again, only what is missing is added."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from mcp_authz import limits
from mcp_authz.agents import Agents, People, agent_name, current_keys, person_name
from mcp_authz.errors import ConfigError, KeyRefused
from mcp_authz.installation import Installation
from mcp_authz.new_file import write_new
from mcp_authz.principals import Agent, AgentName, Grant
from mcp_authz.revocation import Revocation
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import Scope, covered
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Event

_RENEW: Final = timedelta(days=30)  # a grant that ends sooner is renewed


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An agent as it is to be."""

    name: str
    person: str
    scopes: frozenset[Scope]
    interactive: bool | None  # None: as it is, and not for a new agent


async def free_name(here: Installation, wanted: str, person: str) -> AgentName:
    """Return the name, if no other person's or revoked agent has it; else the name with a number."""
    number, name = 1, agent_name(wanted)
    while (known := await here.store.agent(name)) is not None and (known.status != "active" or known.owner != person):
        number += 1
        name = agent_name(f"{wanted[: limits.NAME - len(str(number)) - 1]}-{number}")
    return name


async def enrol(here: Installation, wanted: Wanted, *, by: str) -> Grant:
    """The agent is there with its key, owned by its person, and has one grant that covers what is wanted.

    Raises:
        ConfigError, KeyRefused: its key file cannot be written or used.
        Conflict, NotFound: person or agent were revoked.
    """
    person = person_name(wanted.person)
    if await here.store.person(person) is None:
        await People(here.store, here.clock).add(person, by=by)
    key = _key(here.config.agent_key(wanted.name))
    agents = Agents(here.store, here.clock)
    known = await here.store.agent(agent_name(wanted.name))
    if known is None:
        await agents.add(
            wanted.name,
            owner=person,
            key=key.public,
            ceiling=wanted.scopes,
            interactive=wanted.interactive or False,
            by=by,
        )
    else:
        current = {held.thumbprint for held in current_keys(await here.store.keys_of(f"agent:{wanted.name}"))}
        if key.public.thumbprint not in current:
            await agents.rotate(wanted.name, key.public, timedelta(0), by=by)
        await _widen(here, known, wanted, by=by)
    return await _grant(here, wanted, by=by)


async def _widen(here: Installation, agent: Agent, wanted: Wanted, *, by: str) -> None:
    missing = frozenset(scope for scope in wanted.scopes if not covered(scope, agent.ceiling))
    interactive = agent.interactive if wanted.interactive is None else wanted.interactive
    if not missing and agent.interactive == interactive:
        return
    fields = {
        "summary": f"agent {agent.name} changed",
        "by": by,
        "agent": f"agent:{agent.name}",
        "ceiling": sorted(agent.ceiling | missing),
        "interactive": interactive,
    }
    changed = replace(agent, ceiling=agent.ceiling | missing, interactive=interactive)
    await here.store.update_agent(changed, Event(kind="enrolment", at=here.clock(), fields=fields))


async def _grant(here: Installation, wanted: Wanted, *, by: str) -> Grant:
    """The one grant of this person: two would leave the agent without any, because the gateway never guesses."""
    now = here.clock()
    active = [
        grant
        for grant in await here.store.grants(agent=AgentName(wanted.name))
        if grant.subject == wanted.person and grant.status == "active" and grant.expires_at > now
    ]
    if len(active) == 1:
        (only,) = active
        enough = only.tools is None and all(covered(scope, only.scope) for scope in wanted.scopes)
        if enough and only.expires_at - now > _RENEW:
            return only
    scopes = wanted.scopes | {scope for grant in active for scope in grant.scope}
    granted = await Sessions(here.store, here.clock).grant(wanted.person, wanted.name, scope=scopes, by=by)
    for old in active:
        await Revocation(here.store, here.clock).revoke("grant", old.id, reason=f"replaced by {granted.id}", by=by)
    return granted


def _key(path: Path) -> PrivateKey:
    """The key in this file, made now if there is none; only this user can read it."""
    key = PrivateKey.generate()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write_new(path, key.to_pem())
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"`{path}` can be read by others; run: chmod 600 {path}") from None
            return PrivateKey.from_pem(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"key file `{path}` cannot be written: {error.strerror}") from None
    except KeyRefused as error:
        raise KeyRefused(f"`{path}`: {error}; move it away and run this again") from None
    return key
