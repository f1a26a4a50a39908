"""`mcp-authz client`: the software that people sign in to, where it has no document that says who it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mcp_authz import limits, views
from mcp_authz.cli import elsewhere_commands, keyfile
from mcp_authz.cli.invocation import asynchronous, command_line, installation, named_gateway, operator
from mcp_authz.cli.options import Json, the_one
from mcp_authz.cli.output import facts, local, next_step, print_json, say, table
from mcp_authz.clients import Clients
from mcp_authz.errors import FetchRefused
from mcp_authz.installation import Installation
from mcp_authz.rules import strict_json
from mcp_authz.rules.redirect_uri import place

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)

_KINDS = {"registered": "you registered it", "document": "its id is its document", "dynamic": "it registered itself"}
_METHODS = {
    "none": "not at all: anybody can say that they are this client",
    "private_key_jwt": "by its key",
    "client_secret_basic": "by its secret",
    "client_secret_post": "by its secret",
}


@app.callback()
def group() -> None:
    """Clients: the software that people sign in to."""


@app.command()
@asynchronous
async def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people are shown, such as 'Team chat'.")],
    *,
    redirect: Annotated[
        list[str],
        typer.Option(
            metavar="URI",
            help="Where answers to it may go: https://..., http://127.0.0.1/... (any port), or APP://... Repeatable.",
        ),
    ],
    secret: Annotated[
        bool, typer.Option("--secret", help="It runs where nobody can look: give it a secret, shown once.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(metavar="FILE|TEXT", help="Better than a secret: its public key, or a file with a JWK set."),
    ] = None,
    json: Json = False,
) -> None:
    """Register a client by hand: most have a document at a URL that says who they are, and need nothing from you."""
    if secret and key is not None:
        raise typer.BadParameter("give --secret or --key, not both")
    jwks = None if key is None else _jwks(key)
    async with installation(ctx) as here:
        new = await _clients(here).register(
            name,
            redirect_uris=redirect,
            method="client_secret_basic" if secret else "none" if jwks is None else "private_key_jwt",
            jwks=jwks,
            by=operator(),
        )
    if json:
        print_json({**views.client(new.client), "client_secret": new.secret})
        return
    say(f"client {new.client.handle} is registered; enter this where it asks for a client id:")
    say(f"client id: {new.client.id}")
    if new.secret is not None:
        say(f"client secret, shown this once: {new.secret}")
    next_step(command_line(ctx, "client", "show", new.client.handle))


@app.command("list")
@asynchronous
async def list_(ctx: typer.Context, json: Json = False) -> None:
    """List every client: those you registered, and those that somebody agreed to."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_commands.listed(there, "clients", partial(_say_clients, ctx, json=json))
        return
    async with installation(ctx) as here:
        clients = [views.client(client) for client in await here.store.clients()]
    _say_clients(ctx, clients, json=json)


def _say_clients(ctx: typer.Context, clients: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json(clients)
        return
    table(
        ("HANDLE", "NAME", "STATUS", "ANSWERS GO TO", "ID"),
        ((it["handle"], it["name"], it["status"], _places(it["redirect_uris"]), it["id"]) for it in clients),
        empty=f"no clients yet; people add theirs by connecting, or you by "
        f"{command_line(ctx, 'client', 'add', 'NAME', '--redirect', 'URI')}",
    )


@app.command()
@asynchronous
async def show(
    ctx: typer.Context,
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="Its handle, or its id.")],
    json: Json = False,
) -> None:
    """Show one client, and whose agent it is."""
    async with installation(ctx) as here:
        known = {one.handle: one for one in await here.store.clients()}
        known |= {one.id: one for one in known.values()}
        found = known[the_one("client", client, list(known))]
        agents = sorted(agent.name for agent in await here.store.agents() if agent.client == found.id)
    if json:
        print_json({**views.client(found), "agents": agents})
        return
    facts(
        [
            ("client", found.handle),
            ("name", found.name),
            ("id", found.id),
            ("status", found.status),
            ("known because", _KINDS[found.kind]),
            *(("answers go to", uri) for uri in found.redirect_uris),
            ("proves itself", _METHODS[found.method]),
            ("since", local(found.registered_at)),
            *([] if found.read_at is None else [("document read", local(found.read_at))]),
            ("agents", " ".join(agents) or "none: nobody agreed to it yet"),
        ]
    )
    if found.status == "active":
        next_step(command_line(ctx, "revoke", "client", found.id, "--reason", "TEXT"))


def _clients(here: Installation) -> Clients:
    config = here.config.clients
    return Clients(here.store, here.clock, _fetch_nothing, schemes=config.schemes, dynamic=False)


async def _fetch_nothing(url: str) -> bytes:
    raise FetchRefused(f"`{url}` is not fetched from the command line")


def _jwks(text: str) -> Mapping[str, Any]:
    """The key as a JWK set; or the JWK set in the file of this name."""
    path = Path(text)
    if len(text) < 1024 and path.is_file() and path.stat().st_size <= limits.METADATA_BYTES:
        raw = path.read_bytes()
        if raw.lstrip().startswith(b"{"):
            body = strict_json.parse_object(raw)
            return body if "keys" in body else {"keys": [body]}
    return {"keys": [keyfile.public_key(text).jwk]}


def _places(redirect_uris: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(place(uri).host for uri in redirect_uris))
