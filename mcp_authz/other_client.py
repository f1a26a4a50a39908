"""Whether the client by which a person answers is another one than those that a held call came through."""

from __future__ import annotations

from mcp_authz.model import HeldCall
from mcp_authz.principals import Caller
from mcp_authz.store.ports import Store


async def in_the_chain(store: Store, held: HeldCall, caller: Caller) -> str | None:
    """Why this client cannot answer the hold: it, or its key, is one of those that ask. None when it is not.

    It asks also where it is only the client through which the person let an agent with a key act.
    """
    client, key = caller.agent.client, caller.token.confirmation
    for name in dict.fromkeys((*held.chain, held.actor)):
        agent = await store.agent(name)
        if name == caller.agent.name or (agent is not None and agent.client is not None and agent.client == client):
            return f"this client is one that hold `{held.id}` came through, and does not answer for itself"
        if key is not None and any(key == one.thumbprint for one in await store.keys_of(f"agent:{name}")):
            return f"this client has the key of an agent that hold `{held.id}` came through"
    session = await store.session(held.session) if held.session else None
    grant = None if session is None else await store.grant(session.grant)
    if grant is not None and grant.client is not None and grant.client == client:
        return f"this client is the one through which `{held.actor}` came to act, and does not answer for it"
    return None
