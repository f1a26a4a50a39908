"""`mcp-authz logout`: a person's login at a gateway is over, there and here."""

from __future__ import annotations

from typing import Annotated

import typer

from mcp_authz.cli.invocation import asynchronous
from mcp_authz.cli.kept_login import person_auth
from mcp_authz.cli.output import note, say
from mcp_authz.errors import NotFound

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
        agent = kept.more.get("agent", "AGENT")
        note(f"the gateway could not be told; an operator ends it there: mcp-authz revoke agent {agent} --reason TEXT")
