"""`mcp-authz agent token`: sign in as an agent and print the access token, for tools that take one in a header."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import httpx2
import typer

from mcp_authz.cli import keyfile
from mcp_authz.cli.invocation import asynchronous, config_of
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import print_json
from mcp_authz.errors import AuthzError
from mcp_authz.ids import new_id
from mcp_authz.rules import jose
from mcp_authz.rules.token import MINIMAL_SCOPE

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SECONDS = 60  # how long the assertion lives; it is used at once


class SignInRefused(AuthzError):
    """The gateway gave no token; the message says what it answered."""

    code = "sign_in_refused"


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
    json: Json = False,
) -> None:
    """Sign in as an agent and print an access token (ten minutes at most). The gateway must run."""
    config, private = config_of(ctx), keyfile.agent_key(key)
    now = int(time.time())
    claims = {"iss": name, "sub": name, "aud": config.public_url, "iat": now, "exp": now + SECONDS, "jti": new_id("a")}
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": jose.sign(claims, typ="JWT", key=private),
        "scope": scope,
    }
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
            answer = await http.post(f"{config.public_url}/token", data=form)
            body = answer.json()
    except (httpx2.HTTPError, ValueError):
        raise SignInRefused(f"no gateway answers at {config.public_url}; start it with `mcp-authz serve`") from None
    if answer.status_code != 200:
        raise SignInRefused(f"{body.get('error')}: {body.get('error_description', 'the gateway gave no token')}")
    if json:
        print_json(body)
    else:
        typer.echo(body["access_token"])
