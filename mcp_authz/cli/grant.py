"""`mcp-authz grant`: what a person lets an agent do for them."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any

import typer

from mcp_authz import limits, views
from mcp_authz.cli import elsewhere_commands
from mcp_authz.cli.invocation import advising, asynchronous, command_line, installation, named_gateway, operator
from mcp_authz.cli.options import Json, duration, the_one
from mcp_authz.cli.output import facts, local, next_step, print_json, say, shortener, table
from mcp_authz.cli.scopes_taken import note_untaken
from mcp_authz.cli.states import shown_subject, shown_words
from mcp_authz.cli.tools_typed import Tools, Where, shown_tools, typed_tools
from mcp_authz.errors import DelegationError, NotFound
from mcp_authz.principals import Grant, GrantId
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Store

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)


@app.callback()
def group() -> None:
    """Grants: what a person lets an agent do for them."""


@app.command()
@asynchronous
async def add(
    ctx: typer.Context,
    *,
    subject: Annotated[str, typer.Option(metavar="PERSON", help="Who lets it.")],
    agent: Annotated[str, typer.Option(metavar="AGENT", help="Which agent may act for them.")],
    scope: Annotated[str, typer.Option(metavar="SCOPES", help="What it may do: scopes, separated by spaces.")],
    tools: Tools = None,
    where: Where = None,
    lifetime: Annotated[
        timedelta,
        typer.Option(
            "--for", parser=duration(at_most=limits.GRANT_LIFETIME), metavar="DURATION", help="How long, 90d at most."
        ),
    ] = "90d",  # type: ignore[assignment]  # as it is written on the command line
    json: Json = False,
) -> None:
    """Record that a person lets an agent act for them."""
    async with installation(ctx) as here:
        sessions = Sessions(here.store, here.clock)
        with (
            advising(DelegationError, f"what it can be granted: {command_line(ctx, 'agent', 'show', agent)}"),
            advising(NotFound, "see `mcp-authz user list` and `mcp-authz agent list`"),
        ):
            granted = await sessions.grant(
                subject,
                agent,
                scope=parse_scopes(scope),
                tools=await typed_tools(here.store, tools, where),
                lifetime=lifetime,
                by=operator(),
            )
        note_untaken(here.config, await here.store.pins(), granted.scope)
        between = [grant for grant in await sessions.active_grants(granted.agent) if grant.subject == granted.subject]
    if json:
        print_json(views.grant(granted))
        return
    say(f"{agent} may act for {subject} until {local(granted.expires_at)}")
    say(f"grant {granted.id}: {shown_words(granted.scope)}")
    for line in shown_tools(granted.tools) if granted.tools is not None else ():
        say(f"  only {line}")
    start = ("session", "start", "--agent", agent, "--subject", subject, "--purpose", "WHY")
    which = ("--grant", granted.id) if len(between) > 1 else ()
    next_step(command_line(ctx, *start, *which))


@app.command("list")
@asynchronous
async def list_(ctx: typer.Context, json: Json = False) -> None:
    """List every grant."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_commands.listed(there, "grants", partial(_say_grants, json=json))
        return
    async with installation(ctx) as here:
        now = here.clock()
        grants = [views.grant_now(grant, now) for grant in await here.store.grants()]
    _say_grants(grants, json=json)


def _say_grants(grants: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json(grants)
        return
    short = shortener(it["id"] for it in grants)
    table(
        ("GRANT", "SUBJECT", "AGENT", "STATE", "UNTIL", "SCOPE", "TOOLS"),
        (
            (
                short(it["id"]),
                shown_subject(it["subject"]),
                it["agent"],
                it["state"],
                local(datetime.fromisoformat(it["expires_at"])),
                shown_words(it["scope"]),
                "all that the scopes permit" if it["tools"] is None else shown_words(it["tools"]),
            )
            for it in grants
        ),
        empty="no grants yet; `mcp-authz grant add` makes one",
    )


@app.command()
@asynchronous
async def show(
    ctx: typer.Context,
    grant: Annotated[str, typer.Argument(metavar="ID", help="Enough of its id.")],
    json: Json = False,
) -> None:
    """Show one grant."""
    async with installation(ctx) as here:
        found, now = await find_grant(here.store, grant), here.clock()
    if json:
        print_json(views.grant_now(found, now))
        return
    facts(
        [
            ("grant", found.id),
            ("state", views.grant_state(found, now)),
            ("subject", shown_subject(found.subject)),
            ("agent", found.agent),
            ("scope", shown_words(found.scope)),
            *(("tools" if first else "", line) for first, line in _tool_facts(found)),
            ("granted", local(found.granted_at)),
            ("until", local(found.expires_at)),
        ]
    )


async def find_grant(store: Store, text: str) -> Grant:
    """Return the grant that `text` names or alone begins with.

    Raises:
        NotFound: there is none, or there are several.
    """
    found = await store.grant(GrantId(the_one("grant", text, [grant.id for grant in await store.grants()])))
    assert found is not None  # noqa: S101 - it was there a moment ago, and grants are never removed
    return found


def _tool_facts(grant: Grant) -> list[tuple[bool, str]]:
    return [(number == 0, line) for number, line in enumerate(shown_tools(grant.tools))]
