"""The chain that an agent delegates from, asked for at its gateway: it signs in, and gets its own link signed."""

from __future__ import annotations

import typer

from mcp_authz.cli.invocation import named_config
from mcp_authz.client.asking import Applicant, own_session, signed_chain
from mcp_authz.client.discovery import endpoint
from mcp_authz.client.local import Local
from mcp_authz.client.place import Elsewhere, Place
from mcp_authz.client.talk import carry
from mcp_authz.client.trouble import Trouble
from mcp_authz.config import find_config, load_config
from mcp_authz.errors import ConfigError, NotFound
from mcp_authz.rules.keys import PrivateKey

_ELSE = "or name the chain with --chain FILE"


async def own_chain(ctx: typer.Context, agent: str, key: PrivateKey, *, url: str | None, session: str | None) -> str:
    """Return the signed chain of the agent's session at this gateway, or at the local one.

    Raises:
        NotFound: no gateway is there, or the agent has no session to delegate from.
        NoAnswer, SignInRefused: the gateway gives none.
    """
    place = _place(ctx, url)
    try:
        reached = await place.reach(start=False)
        who = Applicant(name=agent, key=key, door=reached.door, resource=reached.resource)
        token = await carry(reached.http, own_session(who, {} if session is None else {"session": session}, None))
        if token.link is None:
            raise NotFound(
                f"agent `{agent}` has no open session to delegate from, or several: name one with --session ID, or "
                f"start one with: mcp-authz session start --agent {agent} --subject PERSON --purpose WHY"
            )
        return await carry(reached.http, signed_chain(who, token))
    except Trouble as trouble:
        raise NotFound(f"{_sentence(trouble)}: start it with `mcp-authz serve`, {_ELSE}") from None
    finally:
        await place.aclose()


def _place(ctx: typer.Context, url: str | None) -> Place:
    if url is not None:
        return Elsewhere(endpoint(url))
    try:
        return Local(find_config(named_config(ctx)).absolute(), load_config)
    except ConfigError:
        raise ConfigError(f"there is no gateway here to ask for the chain: name it with --url URL, {_ELSE}") from None


def _sentence(trouble: Trouble) -> str:
    return str(trouble).partition("; ")[0]
