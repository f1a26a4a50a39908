"""`mcp-authz logout`: a person's login at a gateway is over, there and here."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from mcp_authz.cli.invocation import asynchronous
from mcp_authz.cli.kept_login import person_auth
from mcp_authz.cli.output import note, say
from mcp_authz.errors import NotFound
from mcp_authz.rules.display import visible

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
@asynchronous
async def logout(url: Annotated[str, typer.Argument(metavar="URL", help="The gateway.")]) -> None:
    """End what you agreed to with `login`, at the gateway, and delete what is kept of it here."""
    auth = person_auth(url)
    kept = auth.signed_in
    if kept is None:
        raise NotFound(f"nobody is signed in at {auth.url}")
    told = await auth.sign_out()
    say(f"signed out at {auth.url}")
    if not told:
        note(untold(kept.more.get("agent", "AGENT")))


def untold(agent: str) -> str:
    """What an operator does where the gateway was not told; the agent's name is as the gateway says it."""
    command = f"mcp-authz revoke agent {quote(visible(agent))} --reason TEXT"
    return f"the gateway could not be told; an operator ends it there: {command}"
