"""The one verb that stops things: what a revocation stops, said before it happens and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio.lowlevel

from mcp_authz import grounds
from mcp_authz.authorization import RegisteredClient
from mcp_authz.errors import NotFound
from mcp_authz.model import HoldId, HoldState, StandingId
from mcp_authz.passkey import Passkey
from mcp_authz.principals import (
    Agent,
    AgentName,
    ClientId,
    Grant,
    GrantId,
    Key,
    Link,
    LinkId,
    Person,
    PersonName,
    Session,
    SessionId,
    Thumbprint,
)
from mcp_authz.rules.keys import b64url
from mcp_authz.rules.standing_approval import StandingApproval
from mcp_authz.running import RunningCall, known_of, running_calls
from mcp_authz.store.ports import Clock, Event, RevocableKind, Store

_NAMED: Final = 50  # of each kind in one record
_STRETCH: Final = 100  # agents; a few milliseconds, in which nobody else is served
Open = Mapping[LinkId, tuple[Session, Link]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What cannot be used any more, or could not if this were revoked; `already` when it was revoked before."""

    links: tuple[tuple[Session, Link], ...] = ()
    holds: tuple[HoldId, ...] = ()
    already: bool = False


class Revocation:
    """Revokes things, and says what that stops."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def foresee(self, kind: RevocableKind, name: str) -> Stopped:
        """Return what revoking this thing now would stop; nothing is changed.

        Raises:
            NotFound: there is no such thing.
        """
        if await self._is_over(kind, name):
            return Stopped(already=True)
        stopped = await self._standing_on(kind, name)
        return Stopped(links=tuple(stopped.values()), holds=await self._store.would_cancel(kind, name))

    async def running(self, kind: RevocableKind, name: str) -> tuple[RunningCall, ...]:
        """The calls that run now and would be cancelled at their tool servers, oldest first, of whichever process.

        A thing that was revoked already cancels nothing.
        """
        if await self._is_over(kind, name):
            return ()
        return tuple(it for it in await running_calls(self._store) if it.grounds.meet(kind, {name}))

    async def revoke(self, kind: RevocableKind, name: str, *, reason: str, by: str) -> Stopped:
        """The thing is revoked, on record with who did it and why; returns what could be used before and cannot now.

        Raises:
            NotFound: there is no such thing.
        """
        if await self._is_over(kind, name):
            return Stopped(already=True)
        before = await self._standing_on(kind, name)
        told = {"summary": f"{kind} {name} revoked: {reason}", "by": by, "of": kind, "name": name, "reason": reason}
        fields = {**told, **await self._concerned(kind, name, before)}
        holds = await self._store.revoke(kind, name, Event(kind="revocation", at=self._clock(), fields=fields))
        after = await self._open()
        return Stopped(links=tuple(pair for id_, pair in before.items() if id_ not in after), holds=holds)

    async def _concerned(self, kind: RevocableKind, name: str, links: Open) -> dict[str, Any]:
        """Who loses something, and in which sessions, so that whoever looks for them finds the record.

        Whoever is named may read it. So where several people lose something none of them is: they do not hear of each
        other.
        """
        names = {f"agent:{link.holder}" for _, link in links.values()}
        whose = {session.principal for session, _ in links.values()}
        names |= whose if len(whose) == 1 else set()
        names |= {"agent": {f"agent:{name}"}, "person": {f"user:{name}"}}.get(kind, set())
        if kind == "key" and (key := await self._store.key(Thumbprint(name))) is not None:
            names.add(key.holder)
        sessions = {str(session.id) for session, _ in links.values() if len(whose) == 1}
        sessions |= {name} if kind == "session" else set()
        found = {
            "agents": sorted(one for one in names if one.startswith("agent:"))[:_NAMED],
            "people": sorted(one for one in names if one.startswith("user:"))[:_NAMED],
            "sessions": sorted(sessions)[:_NAMED],
        }
        return {what: ones for what, ones in found.items() if ones}

    async def _is_over(self, kind: RevocableKind, name: str) -> bool:
        """Whether revoking it would change nothing."""
        store = self._store
        if kind == "hold":
            held = await store.hold(HoldId(name))
            if held is None:
                raise NotFound(f"there is no hold `{name}`")
            return held.state not in {HoldState.PENDING, HoldState.APPROVED}
        found: Link | Session | Grant | Agent | RegisteredClient | Key | Passkey | Person | StandingApproval | None
        match kind:
            case "link":
                found = await store.link(LinkId(name))
            case "session":
                found = await store.session(SessionId(name))
            case "grant":
                found = await store.grant(GrantId(name))
            case "agent":
                found = await store.agent(AgentName(name))
            case "client":
                found = await store.client(ClientId(name))
            case "key":
                found = await store.key(Thumbprint(name))
            case "person":
                found = await store.person(PersonName(name))
            case "passkey":
                found = await self._passkey(name)
            case "approval":
                found = await store.standing_approval(StandingId(name))
        if found is None:
            raise NotFound(f"there is no {kind} `{name}`")
        return found.status == "revoked"

    async def _passkey(self, name: str) -> Passkey | None:
        """The passkey with this base64url id, in whatever state."""
        found = [one for who in await self._store.people() for one in await self._store.passkeys_of(who.name)]
        return next((one for one in found if b64url(one.credential) == name), None)

    async def _standing_on(self, kind: RevocableKind, name: str) -> Open:
        """Every link that could carry a call now and stands on this thing; nobody is told of what else ends."""
        links = await self._open()
        known = await known_of(self._store, [session for session, _ in links.values()])
        return {
            id_: (session, link)
            for id_, (session, link) in links.items()
            if grounds.of_chain(session, _upward(link, links), known).meet(kind, {name})
        }

    async def _open(self) -> Open:
        """Every link that could carry a call now; others are served while it is looked for."""
        now = self._clock()
        found: dict[LinkId, tuple[Session, Link]] = {}
        for number, agent in enumerate(await self._store.agents()):
            found |= {link.id: (session, link) for session, link in await self._store.open_links(agent.name, now)}
            if number % _STRETCH == 0:
                await anyio.lowlevel.checkpoint()
        return found


def _upward(link: Link, links: Open) -> tuple[Link, ...]:
    """The link and those above it: whatever stands above an open link is open too."""
    chain, parent = [link], link.parent
    while parent is not None and parent in links:
        chain.append(links[parent][1])
        parent = chain[-1].parent
    return tuple(chain)
