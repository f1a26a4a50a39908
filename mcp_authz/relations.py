"""What a person is to one thing: its owner, the person it is done for, or somebody who may answer it."""

from __future__ import annotations

from collections.abc import Iterable

from mcp_authz.model import HoldId, StandingId
from mcp_authz.principals import (
    AgentName,
    Grant,
    GrantId,
    Key,
    Link,
    LinkId,
    Person,
    Session,
    SessionId,
    Thumbprint,
)
from mcp_authz.rules.administration import Role
from mcp_authz.rules.hold import is_eligible
from mcp_authz.store.ports import RevocableKind, Store


async def what_is(store: Store, person: Person, kind: RevocableKind, name: str) -> frozenset[Role]:
    """What the person is to this thing; nothing, where there is no such thing."""
    roles = frozenset[Role]()
    match kind:
        case "link":
            link = await store.link(LinkId(name))
            if link is not None:
                roles = await _to_session(store, person, await store.session(link.session), link)
        case "session":
            roles = await _to_session(store, person, await store.session(SessionId(name)))
        case "grant":
            roles = await _to_grant(store, person, await store.grant(GrantId(name)))
        case "agent":
            roles = await _to_agents(store, person, [AgentName(name)])
        case "key":
            roles = await _to_key(store, person, await store.key(Thumbprint(name)))
        case "hold":
            roles = await _to_hold(store, person, HoldId(name))
        case "approval":
            roles = await _to_approval(store, person, StandingId(name))
        case "person":
            roles = _if(name == person.name, Role.PERSON)
        case _:
            pass
    return roles


async def _to_session(
    store: Store, person: Person, session: Session | None, leaf: Link | None = None
) -> frozenset[Role]:
    if session is None:
        return frozenset()
    holders, link = [session.agent], leaf
    while link is not None:
        holders.append(link.holder)
        link = None if link.parent is None else await store.link(link.parent)
    return _if(session.subject == person.name, Role.PERSON) | await _to_agents(store, person, holders)


async def _to_grant(store: Store, person: Person, grant: Grant | None) -> frozenset[Role]:
    if grant is None:
        return frozenset()
    return _if(grant.subject == person.name, Role.PERSON) | await _to_agents(store, person, [grant.agent])


async def _to_key(store: Store, person: Person, key: Key | None) -> frozenset[Role]:
    kind, _, name = ("", "", "") if key is None else key.holder.partition(":")
    if kind == "user":
        return _if(name == person.name, Role.PERSON)
    return await _to_agents(store, person, [AgentName(name)]) if kind == "agent" else frozenset()


async def _to_hold(store: Store, person: Person, id_: HoldId) -> frozenset[Role]:
    held = await store.hold(id_)
    if held is None:
        return frozenset()
    eligible = any(is_eligible(person, held, rule) for rule in held.rules)
    mine = _if(held.subject == person.name, Role.PERSON) | _if(eligible, Role.APPROVER)
    return mine | await _to_agents(store, person, [held.actor])


async def _to_approval(store: Store, person: Person, id_: StandingId) -> frozenset[Role]:
    given = await store.standing_approval(id_)
    if given is None:
        return frozenset()
    mine = await _to_hold(store, person, given.terms.hold) - {Role.APPROVER}  # others may answer, and did not
    return mine | _if(given.terms.person == person.name, Role.APPROVER)


async def _to_agents(store: Store, person: Person, names: Iterable[AgentName]) -> frozenset[Role]:
    """Owner, if one of them is the person's."""
    owned = [found for name in dict.fromkeys(names) if (found := await store.agent(name)) is not None]
    return _if(any(agent.owner == person.name for agent in owned), Role.OWNER)


def _if(holds: bool, role: Role) -> frozenset[Role]:
    return frozenset({role}) if holds else frozenset()
