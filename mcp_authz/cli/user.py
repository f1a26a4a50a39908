"""`mcp-authz user`: people, and the keys with which they approve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcp_authz.agents import Approver, People
from mcp_authz.cli import keyfile, terminal, views
from mcp_authz.cli.agent import key_line
from mcp_authz.cli.invocation import advising, asynchronous, command_line, installation, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import facts, next_step, print_json, say, table
from mcp_authz.cli.states import shown_words
from mcp_authz.errors import NotFound
from mcp_authz.installation import Installation
from mcp_authz.rules.keys import PrivateKey, seal_private

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)


@app.callback()
def group() -> None:
    """People: who agents act for, who owns them, who approves."""


@app.command()
@asynchronous
async def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9, `.`, `_` and `-`.")],
    group: Annotated[
        list[str] | None, typer.Option(metavar="GROUP", help="A group that approval rules can name. Repeatable.")
    ] = None,
) -> None:
    """Register a person."""
    async with installation(ctx) as here:
        person = await People(here.store, here.clock).add(name, groups=frozenset(group or []), by=operator())
    groups = f", in {', '.join(sorted(person.groups))}" if person.groups else ""
    say(f"person {person.name} is registered{groups}")
    next_step(command_line(ctx, "agent", "add", "AGENT", "--owner", person.name, "--new-key", "AGENT.pem"))


@app.command("list")
@asynchronous
async def list_(ctx: typer.Context, json: Json = False) -> None:
    """List every person."""
    async with installation(ctx) as here:
        people = await here.store.people()
    if json:
        print_json([views.person(person) for person in people])
        return
    table(
        ("NAME", "GROUPS", "STATUS"),
        ((person.name, shown_words(person.groups), person.status) for person in people),
        empty=f"no people yet; {command_line(ctx, 'user', 'add', 'NAME')} registers one",
    )


@app.command()
@asynchronous
async def show(
    ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="Their name.")], json: Json = False
) -> None:
    """Show one person with the keys they approve with."""
    async with installation(ctx) as here:
        approver = await _approver(ctx, here, name)
        now = here.clock()
    person = approver.person
    if json:
        print_json({**views.person(person), "keys": views.keys(approver.keys)})
        return
    facts(
        [
            ("person", person.name),
            ("status", person.status),
            ("groups", shown_words(person.groups, "none")),
            *((f"key {number}", key_line(key, now)) for number, key in enumerate(approver.keys, 1)),
        ]
    )


@app.command()
@asynchronous
async def key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Their name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="Where the sealed key is written.")],
) -> None:
    """Make a key that NAME approves with, sealed with a passphrase that is typed at the terminal."""
    keyfile.require_free(file)
    async with installation(ctx) as here:
        await _approver(ctx, here, name)
        passphrase = terminal.ask_new_passphrase(f"passphrase for the key of {name}: ")
        private = PrivateKey.generate()
        with keyfile.written(file, seal_private(private, passphrase) + "\n"):
            await People(here.store, here.clock).add_key(name, private.public, by=operator())
    say(f"{name} approves with key {private.public.thumbprint}, sealed in {file}")
    next_step(command_line(ctx, "holds", "list"))


async def _approver(ctx: typer.Context, here: Installation, name: str) -> Approver:
    with advising(NotFound, f"the people there are: {command_line(ctx, 'user', 'list')}"):
        return await People(here.store, here.clock).show(name)
