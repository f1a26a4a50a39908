"""`mcp-authz wrap`: a client's tool servers move behind the gateway, and back with --undo."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import anyio
import typer

from mcp_authz.accounts import Accounts, invitation_link
from mcp_authz.agents import person_name
from mcp_authz.cli import classes
from mcp_authz.cli.asking import agreed, someone_is_here
from mcp_authz.cli.init import default_path, initialise
from mcp_authz.cli.invocation import command_line, named_config, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import print_json, say, table
from mcp_authz.cli.places import stop_unattended
from mcp_authz.cli.starting import list_with_progress
from mcp_authz.cli.unwrap import undo as put_back
from mcp_authz.cli.wrap_reading import Found, found_in, introduce
from mcp_authz.cli.wrap_report import (
    Written,
    plan_view,
    tell_dry_run,
    tell_left,
    tell_moves,
    tell_written,
    written_view,
)
from mcp_authz.config import load_config
from mcp_authz.errors import ConfigError
from mcp_authz.installation import open_installation
from mcp_authz.rules.proposal import Proposal
from mcp_authz.wrap import client_file
from mcp_authz.wrap.applying import Order, carry_out
from mcp_authz.wrap.client_file import ClientFile
from mcp_authz.wrap.entry import Left
from mcp_authz.wrap.known import files_here
from mcp_authz.wrap.plan import Move, plan
from mcp_authz.wrap.starting import Listed, Silent, candidate

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the command line says about how."""

    agent: str | None
    person: str | None
    yes: bool
    dry_run: bool
    json: bool
    believe: bool  # whether what servers say of their own tools counts
    keep: frozenset[str]
    client_prompt: Literal["yes", "no"] | None

    @property
    def asks(self) -> bool:
        """Whether the person is asked."""
        return not self.yes and not self.json and someone_is_here()


@app.command()
def wrap(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG]", readable=False, help="The file in which your client keeps its MCP servers."),
    ] = None,
    *,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the client is called as an agent. Else by its kind.")
    ] = None,
    person: Annotated[
        str | None, typer.Option("--for", metavar="PERSON", help="For whom it works, and who owns it. Else you.")
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Ask nothing: start the servers, take what presets say, the rest is destructive."),
    ] = False,
    trust_annotations: Annotated[
        bool, typer.Option("--trust-annotations", help="With --yes: also take what servers say of their own tools.")
    ] = False,
    keep_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A variable that is no secret, whatever it looks like. Repeatable."),
    ] = None,
    client_prompt: Annotated[
        Literal["yes", "no"] | None,
        typer.Option(metavar="yes|no", help="Whether the client's own prompt may answer for destructive calls."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Start the servers and show what would be done; change nothing.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Put the file back as it was.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --undo: also when its servers were changed since.")
    ] = False,
    json: Json = False,
) -> None:
    """Put the gateway between a client and its MCP servers, or list the clients that are here."""
    if force and not undo:
        raise typer.BadParameter("--force belongs to --undo")
    if undo:
        put_back(ctx, config, force=force, json=json)
        return
    if config is None:
        _list_clients(ctx, json=json)
        return
    asked_nothing = yes or dry_run
    if not asked_nothing and (json or not someone_is_here()):
        raise ConfigError(
            "nobody can be asked here; run it in a terminal, look first with --dry-run, "
            "or add --yes: what presets say counts, everything else is destructive"
        )
    wishes = Wishes(
        agent=agent,
        person=None if person is None else person_name(person),
        yes=yes,
        dry_run=dry_run,
        json=json,
        believe=not yes or trust_annotations,
        keep=frozenset(keep_env or []),
        client_prompt=client_prompt,
    )
    _wrap(ctx, client_file.read(config), wishes)


def _wrap(ctx: typer.Context, file: ClientFile, wishes: Wishes) -> None:
    found = found_in(file, keep=wishes.keep, asks=wishes.asks)
    if found.entries and not wishes.json:
        introduce(file, found, asks=wishes.asks)
    moves, left = _planned(ctx, found, wishes)
    if not wishes.json:
        tell_left(left)
        tell_moves(moves)
    if not moves:
        _nothing(file, found, left, wishes)
        return
    proposed = {move.name: move.proposals for move in moves}
    if wishes.dry_run:
        if wishes.json:
            print_json(plan_view(file, moves, left, {}))
        else:
            classes.show(proposed)
            tell_dry_run(ctx, file, moves)
        return
    chosen = _chosen(proposed, wishes)
    order = partial(
        Order,
        file=file,
        moves=moves,
        chosen=chosen,
        agent=wishes.agent or file.client.name,
        interactive=_may_prompt(file, wishes),
        by=operator(),
    )
    written = anyio.run(_carry_out, ctx, order, wishes)
    if wishes.json:
        print_json({**plan_view(file, moves, left, chosen), **written_view(ctx, file, written)})
    else:
        tell_written(ctx, file, moves, written)


def _planned(ctx: typer.Context, found: Found, wishes: Wishes) -> tuple[tuple[Move, ...], tuple[Left, ...]]:
    """What moves and what stays, once every server was started."""
    candidates = {key: candidate(key, entry) for key, (_, entry) in found.entries.items()}
    names = {key: entry.name for key, (_, entry) in found.entries.items()}
    answers = anyio.run(list_with_progress, candidates, names)
    listed, left = [], [*found.left]
    for key, (where, entry) in found.entries.items():
        match answers[key]:
            case Listed() as answer:
                listed.append((where, entry, answer))
            case Silent(because=because):
                left.append(Left(name=entry.name, because=f"it did not start: {because}"))
    path = named_config(ctx) or default_path()
    config = load_config(path) if path.exists() else None
    return plan(listed, config, believe=wishes.believe), tuple(left)


def _nothing(file: ClientFile, found: Found, left: tuple[Left, ...], wishes: Wishes) -> None:
    """Nothing moves: that is no error where the file was wrapped before, or has no servers.

    Raises:
        ConfigError: there are servers, and none of them can move.
    """
    if found.left + tuple(found.entries) and not found.ours:
        raise ConfigError(f"none of its servers can move, so `{file.path}` is as it was")
    if wishes.json:
        print_json(plan_view(file, (), left, {}))
    else:
        say(f"nothing to do: {file.path} {'leads to the gateway already' if found.ours else 'has no servers'}")


def _chosen(proposed: Mapping[str, tuple[Proposal, ...]], wishes: Wishes) -> classes.Chosen:
    if wishes.asks:
        return classes.decide(proposed)
    if not wishes.json:
        classes.show(proposed)
    return classes.unattended(proposed)


async def _carry_out(ctx: typer.Context, order: partial[Order], wishes: Wishes) -> Written:
    """Everything is written, and who has no passkey has a link to register one."""
    logging.getLogger("mcp_authz").addHandler(logging.NullHandler())  # what a catalogue warns of stands in the table
    ready = await initialise(named_config(ctx) or default_path())
    person = person_name(wishes.person or ready.person)
    done = await carry_out(order(person=person), ready.config)
    async with open_installation(load_config(ready.config.source)) as here:
        accounts, link = Accounts(here.store, here.clock), ready.link if person == ready.person else None
        if link is None and not await accounts.passkeys_of(person):
            link = invitation_link(here.config.public_url, await accounts.invite(person, by=operator()))
    return Written(done=done, config=here.config, link=link, stopped=stop_unattended(here.config))


def _may_prompt(file: ClientFile, wishes: Wishes) -> bool | None:
    if wishes.client_prompt is not None:
        return wishes.client_prompt == "yes"
    if not wishes.asks:
        return None
    say(f"When a destructive call waits, {file.client.title} itself can ask you. That proves that the client said yes,")
    say("not that you did: some clients answer without asking. Otherwise you approve on a page, with a passkey.")
    return agreed(f"may {file.client.title}'s own prompt answer?", usually=False)


def _list_clients(ctx: typer.Context, *, json: bool) -> None:
    found = files_here()
    if json:
        print_json([{"client": one.client.name, "file": str(one.path), "state": _state(one.path)} for one in found])
        return
    table(
        ("CLIENT", "FILE", "STATE", "TO WRAP IT"),
        (
            (one.client.title, str(one.path), _state(one.path), command_line(ctx, "wrap", str(one.path)))
            for one in found
        ),
        empty="no file of a known client is here; name the one in which yours keeps its MCP servers: "
        f"{command_line(ctx, 'wrap', 'CONFIG.json')}",
    )


def _state(path: Path) -> str:
    try:
        servers = [value for place in client_file.read(path).places for value in place.servers.values()]
    except ConfigError:
        return "no servers, or not to be understood"
    ours = sum(client_file.is_ours(value) for value in servers)
    left = len(servers) - ours
    return f"{left} server{'' if left == 1 else 's'}" + (", wrapped" if ours else "")
