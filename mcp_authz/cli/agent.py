"""`mcp-authz agent`: agents as the operator registers them, and their keys."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mcp_authz import limits, views
from mcp_authz.agents import Agents, Enrolled
from mcp_authz.cli import elsewhere_commands, keyfile
from mcp_authz.cli.agent_code import code, refresh, say_code
from mcp_authz.cli.agent_edit import edit, shown_roles
from mcp_authz.cli.agent_enrol import enrol
from mcp_authz.cli.agent_files import replace_kept
from mcp_authz.cli.invocation import (
    advising,
    asynchronous,
    command_line,
    config_of,
    installation,
    named_gateway,
    operator,
)
from mcp_authz.cli.options import Json, duration
from mcp_authz.cli.output import facts, local, next_step, print_json, say, table
from mcp_authz.cli.scopes_taken import note_untaken
from mcp_authz.cli.states import shown_words
from mcp_authz.cli.token import token
from mcp_authz.config import Config
from mcp_authz.enrolment import Codes
from mcp_authz.errors import ConfigError, NotFound
from mcp_authz.fetching import Fetcher
from mcp_authz.hosted import HostedAgents
from mcp_authz.installation import Installation
from mcp_authz.principals import AgentName, Key
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.scope import Scope, parse_scopes

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)

PublicKeyText = Annotated[
    str | None,
    typer.Option(metavar="FILE|TEXT", help="Its Ed25519 public key: PEM, JWK or base64url, or a file with one."),
]
NewKeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", readable=False, help="Make a key, write its private half to FILE (PEM, only you can read it)."
    ),
]


_WHERE_FROM: Final = {"metadata_url": "hosted at", "client": "is a client", "parent": "child of", "ends_at": "ends"}


@app.callback()
def group() -> None:
    """Agents: enrol them, look at them, rotate their keys."""


@app.command()
@asynchronous
async def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9 and hyphens.")],
    *,
    owner: Annotated[str, typer.Option(metavar="PERSON", help="Who answers for it: a registered person.")],
    public_key: PublicKeyText = None,
    new_key: NewKeyFile = None,
    metadata_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="It is hosted elsewhere: its client id metadata document, where its keys are."
        ),
    ] = None,
    ceiling: Annotated[
        str, typer.Option(metavar="SCOPES", help="The most it can ever be granted: scopes, separated by spaces.")
    ] = "",
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="Add the scopes of [roles] ROLE to the ceiling. Repeatable."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label that policies can read. Repeatable.")
    ] = None,
    depth: Annotated[int, typer.Option(metavar="N", help="How many delegation steps it may start.")] = 0,
    delegates_to: Annotated[
        list[str] | None, typer.Option(metavar="AGENT", help="An agent that it may delegate to. Repeatable.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Its person sits at its client, and may be prompted there.")
    ] = False,
) -> None:
    """Enrol an agent: with a key, with the URL where its keys are, or with a one-time code to enrol from elsewhere."""
    key, private = _chosen_key(public_key, new_key)
    async with installation(ctx) as here:
        hosted = HostedAgents(here.store, here.clock, Fetcher())
        keys = await _keys_of(hosted, metadata_url, key)
        scopes = parse_scopes(ceiling) | _scopes_of(role or [], here.config)
        with (
            keyfile.written(new_key, private.to_pem()) if new_key and private else nullcontext(),
            advising(NotFound, f"register them with: {command_line(ctx, 'user', 'add', owner)}"),
        ):
            agent = await Agents(here.store, here.clock).add(
                name,
                owner=owner,
                key=keys[0] if keys else None,
                labels=_labels(label or []),
                roles=frozenset(role or []),
                ceiling=scopes,
                depth=depth,
                delegates_to=frozenset(AgentName(other) for other in delegates_to or []),
                interactive=interactive,
                metadata_url=metadata_url,
                by=operator(),
            )
        if len(keys) > 1:
            await hosted.refresh(name, by=operator())
        note_untaken(here.config, await here.store.pins(), parse_scopes(ceiling))
        made = None if keys else await Codes(here.store, here.clock).make(agent.name, by=operator())
    say(f"agent {agent.name} is enrolled, owned by {agent.owner}")
    for one in keys:
        _say_key(one, new_key)
    if made is not None:
        say("it has no key yet, and registers one by a one-time code")
        say_code(ctx, made)
    else:
        shown = shown_words(agent.ceiling, "SCOPES")
        next_step(command_line(ctx, "grant", "add", "--subject", owner, "--agent", agent.name, "--scope", shown))


@app.command("list")
@asynchronous
async def list_(ctx: typer.Context, json: Json = False) -> None:
    """List every agent."""
    if (there := named_gateway(ctx)) is not None:
        none = "no agents are there that you may look at"
        await elsewhere_commands.listed(there, "agents", partial(_say_agents, json=json, empty=none))
        return
    async with installation(ctx) as here:
        agents = [views.agent(agent) for agent in await here.store.agents()]
    none = f"no agents yet; {command_line(ctx, 'agent', 'add', 'NAME', '--owner', 'PERSON')} enrols one"
    _say_agents(agents, json=json, empty=none)


def _say_agents(agents: list[dict[str, Any]], *, json: bool, empty: str) -> None:
    if json:
        print_json(agents)
        return
    table(
        ("NAME", "OWNER", "STATUS", "CEILING", "DEPTH", "DELEGATES TO"),
        (
            (
                it["name"],
                it["owner"],
                it["status"],
                shown_words(it["ceiling"]),
                str(it["depth"]),
                shown_words(it["delegates_to"]),
            )
            for it in agents
        ),
        empty=empty,
    )


@app.command()
@asynchronous
async def show(
    ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")], json: Json = False
) -> None:
    """Show one agent with its keys."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_commands.one(there, "agents", name, partial(_say_elsewhere, json=json))
        return
    async with installation(ctx) as here:
        enrolled = await _enrolled(ctx, here, name)
        now = here.clock()
    agent = enrolled.agent
    if json:
        print_json({**views.agent(agent), "keys": views.keys(enrolled.keys)})
        return
    facts(
        [
            ("agent", agent.name),
            ("status", agent.status),
            ("owner", agent.owner),
            ("ceiling", shown_words(agent.ceiling, "nothing")),
            ("roles", shown_roles(agent, here.config)),
            ("labels", " ".join(f"{key}={value}" for key, value in sorted(agent.labels.items())) or "none"),
            ("delegates to", shown_words(agent.delegates_to, "nobody")),
            ("depth", str(agent.depth)),
            ("interactive", "yes" if agent.interactive else "no"),
            *([] if agent.metadata_url is None else [("hosted at", agent.metadata_url)]),
            *([] if agent.client is None else [("is a client", f"{agent.client}, for {agent.owner} alone; no key")]),
            *([] if agent.parent is None else [("child of", agent.parent)]),
            *([] if agent.ends_at is None else [("ends", local(agent.ends_at))]),
            *((f"key {number}", key_line(key, now)) for number, key in enumerate(enrolled.keys, 1)),
        ]
    )


def _say_elsewhere(agent: dict[str, Any], *, json: bool) -> None:
    """What the gateway elsewhere tells of one agent; its configuration, and so what its roles give now, is not here."""
    if json:
        print_json(agent)
        return
    facts(
        [
            ("agent", agent["name"]),
            ("status", agent["status"]),
            ("owner", agent["owner"]),
            ("ceiling", shown_words(agent["ceiling"], "nothing")),
            ("roles", shown_words(agent["roles"], "none")),
            ("labels", " ".join(f"{key}={value}" for key, value in sorted(agent["labels"].items())) or "none"),
            ("delegates to", shown_words(agent["delegates_to"], "nobody")),
            ("depth", str(agent["depth"])),
            ("interactive", "yes" if agent["interactive"] else "no"),
            *((told, agent[it]) for it, told in _WHERE_FROM.items() if agent[it] is not None),
            *((f"key {number}", f"{it['thumbprint']}, {it['status']}") for number, it in enumerate(agent["keys"], 1)),
        ]
    )


@app.command()
@asynchronous
async def rotate(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    public_key: PublicKeyText = None,
    new_key: NewKeyFile = None,
    overlap: Annotated[
        timedelta,
        typer.Option(
            parser=duration(at_least=timedelta(0), at_most=limits.KEY_OVERLAP),
            metavar="DURATION",
            help="How long what was issued to the old key still counts.",
        ),
    ] = "10m",  # type: ignore[assignment]  # as it is written on the command line
) -> None:
    """Give an agent a new key; the old one cannot sign in any more."""
    key, private = _chosen_key(public_key, new_key)
    kept = None if key is not None else _kept_file(ctx, name)
    async with installation(ctx) as here:
        enrolled, agents = await _enrolled(ctx, here, name), Agents(here.store, here.clock)
        if kept is not None:
            key = await replace_kept(kept, agents, enrolled, overlap, by=operator())
        elif key is not None:
            with keyfile.written(new_key, private.to_pem()) if new_key and private else nullcontext():
                await agents.rotate(name, key, overlap, by=operator())
        until = here.clock() + overlap
    say(f"agent {name} has a new key; what was issued to older keys counts until {local(until)}")
    _say_key(key, kept or new_key)
    next_step(command_line(ctx, "agent", "show", name))


app.command()(edit)
app.command()(code)
app.command()(enrol)
app.command()(refresh)
app.command()(token)


def key_line(key: Key, now: datetime) -> str:
    """One key as a person reads it."""
    state: str = key.status
    if key.status == "active" and key.retires_at is not None:
        state = f"{'retired' if key.retires_at <= now else 'retires'} {local(key.retires_at)}"
    return f"{key.thumbprint}, {state}, added {local(key.added_at)}"


async def _enrolled(ctx: typer.Context, here: Installation, name: str) -> Enrolled:
    with advising(NotFound, f"the agents there are: {command_line(ctx, 'agent', 'list')}"):
        return await Agents(here.store, here.clock).show(name)


def _chosen_key(public_key: str | None, new_key: Path | None) -> tuple[PublicKey | None, PrivateKey | None]:
    if public_key is not None and new_key is not None:
        raise typer.BadParameter("give --public-key or --new-key, not both")
    if new_key is not None:
        keyfile.require_free(new_key)
        private = PrivateKey.generate()
        return private.public, private
    return (None if public_key is None else keyfile.public_key(public_key)), None


async def _keys_of(hosted: HostedAgents, url: str | None, key: PublicKey | None) -> tuple[PublicKey, ...]:
    """The keys that the agent begins with: its own, those of its document elsewhere, or none yet."""
    if url is None:
        return () if key is None else (key,)
    if key is not None:
        raise typer.BadParameter("give --metadata-url or a key, not both: its keys are those of its document")
    return await hosted.keys_at(url)


def _kept_file(ctx: typer.Context, name: str) -> Path:
    path = config_of(ctx).agent_key(name)
    if not path.exists():
        raise typer.BadParameter(f"give --public-key FILE|TEXT or --new-key FILE: its key is not in {path}")
    return path


def _say_key(key: PublicKey | None, new_key: Path | None) -> None:
    if key is not None:
        say(f"key {key.thumbprint}" + ("" if new_key is None else f", private half in {new_key}"))


def _scopes_of(roles: Iterable[str], config: Config) -> frozenset[Scope]:
    scopes: frozenset[Scope] = frozenset()
    for role in roles:
        if role not in config.roles:
            known = ", ".join(sorted(config.roles)) or "none"
            raise ConfigError(f"there is no role `{role}` in [roles] of the configuration; there are: {known}")
        scopes |= parse_scopes(config.roles[role])
    return scopes


def _labels(pairs: Iterable[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"`{pair}` is no label; write KEY=VALUE")
        labels[key] = value
    return labels
