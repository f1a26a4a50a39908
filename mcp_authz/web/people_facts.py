"""What pages show of people and clients: passkeys, keys, sign-ins, who may act for somebody, and what is open."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from mcp_authz import limits
from mcp_authz.administration import Actor
from mcp_authz.authorization import RegisteredClient
from mcp_authz.passkey import Passkey, SignIn
from mcp_authz.principals import Agent, Grant, Person
from mcp_authz.rules.administration import permits
from mcp_authz.rules.display import visible
from mcp_authz.rules.keys import b64url
from mcp_authz.store.overview_port import SessionsAsked
from mcp_authz.store.ports import Store
from mcp_authz.web.agent_facts import shown_key
from mcp_authz.web.consent_facts import shown_client
from mcp_authz.web.desk import Desk
from mcp_authz.web.session_facts import calls, whom

_KINDS: Final = {
    "registered": "registered by an operator",
    "document": "known by its document",
    "dynamic": "registered itself",
}


async def row(store: Store, person: Person) -> dict[str, Any]:
    """Return what the list says of a person."""
    passkeys = [one for one in await store.passkeys_of(person.name) if one.status == "active"]
    return {
        "name": person.name,
        "groups": sorted(map(visible, person.groups)),
        "status": person.status,
        "passkeys": len(passkeys),
        "sign_ins": len(await store.sign_ins_of(person.name)),
    }


def client_row(client: RegisteredClient) -> dict[str, Any]:
    """Return what the list says of a client, whose own name proves nothing."""
    hosts = [urlsplit(uri).hostname or urlsplit(uri).scheme for uri in client.redirect_uris]
    return {
        **shown_client(client),
        "handle": client.handle,
        "status": client.status,
        "known": _KINDS[client.kind],
        "hosts": sorted(set(map(visible, hosts))),
        "since": client.registered_at,
    }


async def shown_person(desk: Desk, actor: Actor, person: Person) -> dict[str, Any]:
    """Return everything that the page of one person says to this actor."""
    store, now = desk.store, desk.clock()
    sign_ins = await store.sign_ins_of(person.name)
    may_revoke = permits("revoke passkey", actor.roles)
    keys = [key for key in await store.keys_of(f"user:{person.name}") if key.status == "active"]
    asked = SessionsAsked(whose=person.name, at=now, are_open=True, limit=limits.SESSIONS_SHOWN + 1)
    seen = await store.sessions_seen(asked)  # those of agents that they own, too
    sessions = [one for one in seen if one.subject == person.name]
    owned = [agent for agent in await store.agents() if agent.owner == person.name and agent.client is None]
    return {
        **await row(store, person),
        "is_self": actor.whose == person.name,
        "identities": [(visible(it.issuer), visible(it.subject)) for it in await store.identities_of(person.name)],
        "sign_ins": [_sign_in(one) for one in sign_ins],
        "passkeys": [_passkey(it, may_revoke=may_revoke) for it in await store.passkeys_of(person.name)],
        "keys": [await shown_key(desk.administration, actor, key, now) for key in keys],
        "grants": [await _grant(desk, actor, grant) for grant in _counting(await store.grants(), person, now)],
        "sessions": [
            {
                "id": it.id,
                "agent": visible(it.agent),
                "whom": visible(whom(it)),
                "purpose": visible(it.purpose),
                "calls": calls(it),
                "expires_at": it.expires_at,
            }
            for it in sessions[: limits.SESSIONS_SHOWN]
        ],
        "more_sessions": len(seen) > limits.SESSIONS_SHOWN,
        "agents": [_agent(agent) for agent in owned[: limits.AGENTS_SHOWN]],
        "more_agents": max(0, len(owned) - limits.AGENTS_SHOWN),
        "may_revoke": person.status == "active" and permits("revoke person", actor.roles),
        "may_sweep": permits("revoke everything", actor.roles),
    }


def _counting(grants: Iterable[Grant], person: Person, now: datetime) -> list[Grant]:
    """What the person agreed to and has not ended, newest first; no more than a page has room for."""
    theirs = [it for it in grants if it.subject == person.name and it.status == "active" and it.expires_at > now]
    return sorted(theirs, key=lambda grant: grant.granted_at, reverse=True)[: limits.SESSIONS_SHOWN]


async def _grant(desk: Desk, actor: Actor, grant: Grant) -> dict[str, Any]:
    client = None if grant.client is None else await desk.store.client(grant.client)
    return {
        "id": grant.id,
        "agent": visible(grant.agent),
        "client": None if client is None else {**client_row(client), "may_revoke": _may_revoke(actor, client)},
        "scopes": sorted(map(visible, map(str, grant.scope))),
        "granted_at": grant.granted_at,
        "expires_at": grant.expires_at,
        "may_end": await desk.administration.may_revoke(actor, "grant", grant.id),
    }


def _may_revoke(actor: Actor, client: RegisteredClient) -> bool:
    return client.status == "active" and permits("revoke client", actor.roles)


def _passkey(passkey: Passkey, *, may_revoke: bool) -> dict[str, Any]:
    return {
        "id": b64url(passkey.credential),
        "label": visible(passkey.label),
        "added_at": passkey.added_at,
        "last_used_at": passkey.last_used_at,
        "is_active": passkey.status == "active",
        "may_revoke": may_revoke and passkey.status == "active",
    }


def _sign_in(one: SignIn) -> dict[str, Any]:
    return {
        "with": "a passkey" if one.credential else "the provider",
        "began_at": one.began_at,
        "used": one.last_used_at,
    }


def _agent(agent: Agent) -> dict[str, Any]:
    return {"name": agent.name, "shown": visible(agent.name), "status": agent.status}
