"""What pages show of an agent: who it is, its keys, the links it holds, what it handed on, and that as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.administration import Actor, Administration
from mcp_authz.model import HoldState
from mcp_authz.principals import Agent, Key, Link, LinkId, Session
from mcp_authz.rules.administration import permits, reaches_everything
from mcp_authz.rules.display import visible
from mcp_authz.rules.forest import Node, laid_out, wrapped
from mcp_authz.rules.session_tree import LinkState
from mcp_authz.store.ports import Store
from mcp_authz.web import facts
from mcp_authz.web.consent_facts import shown_name
from mcp_authz.web.session_facts import MARKS, calls, whom

_THUMBPRINT: Final = 12  # characters that are shown of a key's
_WAITING: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One link that an agent holds, with those that it came through, root first."""

    session: Session
    chain: tuple[Link, ...]
    is_open: bool

    @property
    def link(self) -> Link:
        """Its own."""
        return self.chain[-1]

    @property
    def state(self) -> LinkState:
        """Whether it can carry a call."""
        if self.is_open:
            return LinkState.OPEN
        revoked = self.session.status == "revoked" or any(link.status == "revoked" for link in self.chain)
        return LinkState.REVOKED if revoked else LinkState.ENDED


async def held_by(store: Store, actor: Actor, agent: Agent, now: datetime) -> list[Held]:
    """The links of the agent whose time ends last, as far as the actor may see them."""
    open_ = {link.id for _, link in await store.open_links(agent.name, now)}
    found = []
    for session, link in await store.links_held(agent.name, limit=limits.HELD_SHOWN):
        if await may_see(store, actor, agent, session):
            known = await store.standing(agent=agent.name, key=None, person=None, link=link.id)
            found.append(Held(session=session, chain=known.links, is_open=link.id in open_))
    return found


async def may_see(store: Store, actor: Actor, agent: Agent, session: Session) -> bool:
    """Whether what the agent does in this session concerns the actor: not what it does for somebody else."""
    if reaches_everything("session show", actor.roles) or actor.whose in {agent.owner, session.subject}:
        return True
    first = await store.agent(session.agent)
    return first is not None and first.owner == actor.whose


async def row(store: Store, actor: Actor, agent: Agent, now: datetime) -> dict[str, Any]:
    """What the list says of an agent."""
    open_ = [session for session, _ in await store.open_links(agent.name, now)]
    return {
        "name": agent.name,
        "shown": visible(agent.name),
        "owner": visible(agent.owner),
        "status": agent.status,
        "ceiling": sorted(map(visible, agent.ceiling)),
        "parent": agent.parent,
        "open": len([session for session in open_ if await may_see(store, actor, agent, session)]),
    }


async def shown_agent(
    administration: Administration, store: Store, actor: Actor, agent: Agent, now: datetime
) -> dict[str, Any]:
    """Everything that the page of one agent says."""
    held = await held_by(store, actor, agent, now)
    below = await store.links_below([one.link.id for one in held], limit=limits.HELD_SHOWN)
    client = None if agent.client is None else await store.client(agent.client)
    may_revoke = agent.status == "active" and await administration.may_revoke(actor, "agent", agent.name)
    forest = laid_out(_nodes(agent, held, below, now), most=limits.TREE_SHOWN)
    return {
        **await row(store, actor, agent, now),
        "client": None if client is None else shown_name(client.name),
        "deeper": agent.depth,
        "delegates_to": sorted(map(visible, agent.delegates_to)),
        "ends_at": agent.ends_at,
        "children": await _children(store, actor, agent),
        "keys": [
            await shown_key(administration, actor, key, now) for key in await store.keys_of(f"agent:{agent.name}")
        ],
        "held": [await _held(administration, actor, one) for one in held],
        "gave": [(visible(link.holder), link.id) for link in below],
        "waiting": await _waiting(store, actor, agent),
        "may_revoke": may_revoke,
        "may_sweep": permits("revoke everything", actor.roles),
        "forest": forest,
        "told": _told(agent, held, below),
    }


async def _children(store: Store, actor: Actor, agent: Agent) -> list[str]:
    """Agents that it named and answers for; its owner is theirs."""
    if not (reaches_everything("agent list", actor.roles) or agent.owner == actor.whose):
        return []
    found = await store.agents_seen(agent.owner, after=f"{agent.name}/", limit=limits.AGENTS_SHOWN)
    return [one.name for one in found if one.parent == agent.name]


async def shown_key(administration: Administration, actor: Actor, key: Key, now: datetime) -> dict[str, Any]:
    """Return what pages say of a key, of an agent's or of a person's."""
    ended = key.retires_at is not None and key.retires_at <= now
    return {
        "thumbprint": key.thumbprint,
        "short": key.thumbprint[:_THUMBPRINT],
        "added_at": key.added_at,
        "retires_at": key.retires_at,
        "state": "revoked" if key.status != "active" else "ended" if ended else "open",
        "says": "revoked"
        if key.status != "active"
        else "replaced"
        if ended
        else "in use"
        if key.proved
        else "declared",
        "may_revoke": key.status == "active" and await administration.may_revoke(actor, "key", key.thumbprint),
    }


async def _held(administration: Administration, actor: Actor, one: Held) -> dict[str, Any]:
    return {
        "id": one.link.id,
        "session": one.session.id,
        "whom": visible(whom(one.session)),
        "through": [visible(link.holder) for link in one.chain[:-1]],
        "state": one.state,
        "purpose": visible(one.session.purpose),
        "calls": calls(one.link),
        "expires_at": one.link.expires_at,
        "may_open": await _opens(administration, actor, one.session),
        "may_prune": one.is_open and await administration.may_revoke(actor, "link", one.link.id),
    }


async def _opens(administration: Administration, actor: Actor, session: Session) -> bool:
    """Whether the page of the session is for the actor."""
    roles = await administration.may_revoke(actor, "session", session.id)
    return roles or reaches_everything("session show", actor.roles)


async def _waiting(store: Store, actor: Actor, agent: Agent) -> list[dict[str, Any]]:
    """Calls of the agent that wait, as far as they concern the actor; a link to those that the actor may answer."""
    shown = []
    for hold in await store.holds(states=[HoldState.PENDING]):
        answers = actor.person is not None and facts.may_answer(hold, actor.person)
        concerns = reaches_everything("agent show", actor.roles) or actor.whose in {agent.owner, hold.subject}
        if hold.actor == agent.name and (answers or concerns):
            shown.append({"id": hold.id, "heading": facts.heading(hold), "may_answer": answers, "at": hold.asked_at})
    return shown[:_WAITING]


def _nodes(agent: Agent, held: Iterable[Held], below: Iterable[Link], now: datetime) -> Iterable[Node]:
    """One box for each way by which power came here, by names; links by the same way are one box."""
    looks: dict[tuple[str, ...], tuple[str, ...]] = {}
    states: dict[tuple[str, ...], LinkState] = {}
    ways: dict[LinkId, tuple[str, ...]] = {}
    for one in held:
        way: tuple[str, ...] = (f"person {whom(one.session)}",)
        looks[way] = wrapped(visible(whom(one.session)))
        for link in one.chain:
            way = (*way, link.holder)
            looks[way] = wrapped(visible(link.holder))
            states[way] = _better(states.get(way), one.state)
        ways[one.link.id] = way
    for link in below:
        if link.parent in ways:
            way = (*ways[link.parent], link.holder)
            looks[way] = wrapped(visible(link.holder))
            alive = states[ways[link.parent]] is LinkState.OPEN and link.expires_at > now
            state = LinkState.REVOKED if link.status != "active" else LinkState.OPEN if alive else LinkState.ENDED
            states[way] = _better(states.get(way), state)
    for way in sorted(looks, key=lambda it: (len(it), it)):
        state_of = states.get(way)
        yield Node(
            id="\0".join(way),
            above="\0".join(way[:-1]) or None,
            name=looks[way],
            notes=() if state_of is None else (f"{MARKS[state_of]}{state_of.value}",),
            look="person" if state_of is None else state_of.value,
        )


def _better(one: LinkState | None, other: LinkState) -> LinkState:
    """What is open is shown, where several links are one box."""
    order = (LinkState.OPEN, LinkState.ENDED, LinkState.REVOKED)
    return other if one is None else min(one, other, key=order.index)


def _told(agent: Agent, held: Sequence[Held], below: Sequence[Link]) -> str:
    came = [" from ".join([*(link.holder for link in reversed(one.chain)), whom(one.session)]) for one in held]
    gave = [f"{link.holder} from {agent.name}" for link in below]
    return visible("; ".join(dict.fromkeys([*came, *gave])) + ".") if came or gave else "Nobody delegated to it."
