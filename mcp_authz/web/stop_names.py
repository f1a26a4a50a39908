"""What is stopped as a person knows it, and the page to go back to, which shows it to whoever stops it."""

from __future__ import annotations

from collections.abc import Awaitable
from urllib.parse import quote

from mcp_authz.administration import Actor
from mcp_authz.errors import InputError, NotFound
from mcp_authz.naming import client_called
from mcp_authz.passkey import Passkey
from mcp_authz.principals import AgentName, ClientId, GrantId, Link, LinkId, PersonName, SessionId, Thumbprint
from mcp_authz.rules.keys import b64url, unb64url
from mcp_authz.store.ports import RevocableKind, Store
from mcp_authz.web.consent_facts import shown_name
from mcp_authz.web.desk import Desk
from mcp_authz.web.session_facts import whom


async def called(store: Store, kind: RevocableKind, name: str) -> str:
    """Return the thing in words; whoever is asked may know of it."""
    match kind:
        case "link" if (link := await store.link(LinkId(name))) is not None:
            return f"the delegation to {link.holder}"
        case "session" if (session := await store.session(SessionId(name))) is not None:
            return f"the session of {session.agent} for {whom(session)}"
        case "key" if (key := await store.key(Thumbprint(name))) is not None:
            return f"a key of {key.holder.partition(':')[2]}"
        case "grant" if (grant := await store.grant(GrantId(name))) is not None:
            return f"what {grant.agent} may do for {grant.subject or 'itself'}"
        case "passkey" if (passkey := await passkey_called(store, name)) is not None:
            return f"the passkey “{passkey.label}” of {passkey.person}"
        case "client" if (client := await store.client(ClientId(await client_called(store, name)))) is not None:
            return f"the client {client.handle}, which calls itself “{shown_name(client.name)}”"
        case _:
            return f"{kind} {name}"


async def passkey_called(store: Store, name: str) -> Passkey | None:
    """Return the passkey with this base64url id, if it counts."""
    try:
        return await store.passkey(unb64url(name))
    except InputError:
        return None


async def back(desk: Desk, actor: Actor, kind: RevocableKind, name: str) -> str:
    """Return the page that shows the thing to this actor, or what is above it."""
    if kind == "session":
        return f"/sessions/{name}"
    if kind == "client":
        return "/people#clients"
    administration, agents = desk.administration, list[AgentName]()
    if kind == "link":
        chain = await _chain(desk.store, LinkId(name))
        if chain and await _sees(administration.session(actor, chain[0].session)):
            return f"/sessions/{chain[0].session}"
        agents = [link.holder for link in chain]
    else:
        person, agent = await _whose(desk.store, kind, name)
        if person is not None and await _sees(administration.person(actor, person)):
            return f"/person/{quote(person)}"
        agents = [] if agent is None else [agent]
    for one in agents:
        if await _sees(administration.agent(actor, one)):
            return f"/agent/{quote(one)}"
    return "/agents"


async def _whose(store: Store, kind: RevocableKind, name: str) -> tuple[PersonName | None, AgentName | None]:
    """The person and the agent whose thing it is."""
    match kind:
        case "agent":
            return None, AgentName(name)
        case "person":
            return PersonName(name), None
        case "key" if (key := await store.key(Thumbprint(name))) is not None:
            holder, _, of = key.holder.partition(":")
            return (None, AgentName(of)) if holder == "agent" else (PersonName(of), None)
        case "grant" if (grant := await store.grant(GrantId(name))) is not None:
            return grant.subject, grant.agent
        case "passkey":
            return await _holder(store, name), None
        case _:
            return None, None


async def _holder(store: Store, name: str) -> PersonName | None:
    """Whose passkey it is, also once it is revoked."""
    found = [one for who in await store.people() for one in await store.passkeys_of(who.name)]
    return next((one.person for one in found if b64url(one.credential) == name), None)


async def _chain(store: Store, name: LinkId) -> list[Link]:
    """The link and those above it."""
    chain, link = list[Link](), await store.link(name)
    while link is not None:
        chain.append(link)
        link = None if link.parent is None else await store.link(link.parent)
    return chain


async def _sees(asked: Awaitable[object]) -> bool:
    try:
        await asked
    except NotFound:
        return False
    return True
