"""`mcp-authz agent token`: sign in as an agent and print the access token, for tools that take one in a header."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import httpx2
import typer

from mcp_authz.cli.invocation import advising, asynchronous, config_of
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import print_json
from mcp_authz.client.asking import Applicant, own_session
from mcp_authz.client.door import Door, NoAnswer
from mcp_authz.client.key_files import load_key
from mcp_authz.client.talk import carry
from mcp_authz.rules.jose import read
from mcp_authz.rules.token import MINIMAL_SCOPE

_NO_SESSION: Final = (
    "mcp-authz: this token is of no session, so it calls no tools; `mcp-authz session list` has the open ones, "
    "and --session ID says which of several"
)


@asynchronous
async def token(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    *,
    key: Annotated[
        Path, typer.Option(metavar="FILE", readable=False, help="Its private key, as `agent add --new-key` wrote it.")
    ],
    scope: Annotated[
        str, typer.Option(metavar="SCOPES", help="What the token is for; a call that needs more is sent back for more.")
    ] = MINIMAL_SCOPE,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="In which session it works, where it has several.")
    ] = None,
    json: Json = False,
) -> None:
    """Sign in as an agent and print an access token (ten minutes at most). The gateway must run."""
    config, private = config_of(ctx), load_key(key)
    door = Door(issuer=config.public_url, token_endpoint=f"{config.public_url}/token")
    claims = {} if session is None else {"session": session}
    who = Applicant(name=name, key=private, door=door, possession=None, takes_unbound=True)
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        with advising(NoAnswer, "start it with `mcp-authz serve`"):
            body = (await carry(http, own_session(who, claims, scope))).answer
    if json:
        print_json(body)
    else:
        typer.echo(body["access_token"])
    if "sid" not in read(body["access_token"]).claims:
        typer.echo(_NO_SESSION, err=True)
