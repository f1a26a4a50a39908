"""`mcp-authz session`: one use of a grant for one task, and who holds which part of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, TypedDict

import typer
from rich.text import Text
from rich.tree import Tree

from mcp_authz import limits, views
from mcp_authz.cli import elsewhere_commands
from mcp_authz.cli.grant import find_grant
from mcp_authz.cli.invocation import advising, asynchronous, command_line, installation, named_gateway, operator
from mcp_authz.cli.options import Json, duration, the_one
from mcp_authz.cli.output import draw, local, next_step, print_json, say, shortener, table
from mcp_authz.cli.scopes_taken import note_untaken
from mcp_authz.cli.states import Open, link_state, session_state, shown_budget, shown_subject, shown_words, what_is_open
from mcp_authz.cli.tools_typed import Tools, Where, shown_tools, typed_tools
from mcp_authz.errors import DelegationError, NotFound
from mcp_authz.installation import Installation
from mcp_authz.principals import Grant, Link, LinkId, Mode, Session, SessionId
from mcp_authz.rules.display import visible
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.settings import impersonations

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)


@app.callback()
def group() -> None:
    """Sessions: one use of a grant for one task, as a tree of delegations."""


@app.command()
@asynchronous
async def start(
    ctx: typer.Context,
    *,
    agent: Annotated[str, typer.Option(metavar="AGENT", help="Which agent works.")],
    subject: Annotated[str | None, typer.Option(metavar="PERSON", help="For whom.")] = None,
    purpose: Annotated[str, typer.Option(metavar="TEXT", help="What for, as approvers and auditors will read it.")],
    grant: Annotated[
        str | None, typer.Option(metavar="ID", help="Which grant; needed when there are several between the two.")
    ] = None,
    scope: Annotated[
        str | None, typer.Option(metavar="SCOPES", help="Less than the grant: scopes, separated by spaces.")
    ] = None,
    lifetime: Annotated[
        timedelta,
        typer.Option(
            "--for", parser=duration(at_most=limits.SESSION_LIFETIME), metavar="DURATION", help="How long, 12h at most."
        ),
    ] = "12h",  # type: ignore[assignment]  # as it is written on the command line
    max_calls: Annotated[int | None, typer.Option(metavar="N", help="How many calls, in all.")] = None,
    tools: Tools = None,
    where: Where = None,
    depth: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="How many steps it may be delegated on. Else as many as its agent may."),
    ] = None,
    own: Annotated[
        bool, typer.Option("--own", help="The agent works for itself, without a person; this needs --scope.")
    ] = False,
    impersonate: Annotated[
        bool,
        typer.Option("--impersonate", help="Tool servers take it for the person, where [[impersonation]] permits it."),
    ] = False,
    json: Json = False,
) -> None:
    """Start a session, so that the agent can work."""
    mode = _mode(subject, grant, scope, own=own, impersonate=impersonate)
    async with installation(ctx) as here:
        sessions = Sessions(here.store, here.clock, impersonations=impersonations(here.config))
        bounds = _Bounds(purpose=purpose, lifetime=lifetime, max_calls=max_calls, max_depth=depth, by=operator())
        scopes = None if scope is None else parse_scopes(scope)
        with (
            advising(NotFound, f"see: {command_line(ctx, 'grant', 'list')}"),
            advising(DelegationError, _what_may_be(ctx, agent, mode)),
        ):
            if scopes is not None and mode is Mode.OWN:
                limited = await typed_tools(here.store, tools, where)
                session, root = await sessions.start_own(agent, scope=scopes, tools=limited, **bounds)
            else:
                found = await _grant(here, sessions, str(subject), agent, grant)
                limited = await typed_tools(here.store, tools, where, had=found.tools)
                session, root = await sessions.start(found, scope=scopes, tools=limited, mode=mode, **bounds)
        note_untaken(here.config, await here.store.pins(), scopes or ())
    if json:
        print_json({**views.session(session), "links": [views.link(root)]})
        return
    say(f"session {session.id} is open: {session.agent} works {_whom(session)} until {local(session.expires_at)}")
    say(f"link {root.id}: {shown_words(root.scope)}")
    for line in () if root.tools is None else shown_tools(root.tools):
        say(f"  only {line}")
    next_step(command_line(ctx, "session", "show", session.id))


class _Bounds(TypedDict):
    """What every session is started with."""

    purpose: str
    lifetime: timedelta
    max_calls: int | None
    max_depth: int | None
    by: str


def _mode(subject: str | None, grant: str | None, scope: str | None, *, own: bool, impersonate: bool) -> Mode:
    """How the agent stands to the person, once the options agree with each other."""
    if own and (subject is not None or grant is not None or impersonate):
        raise typer.BadParameter("--own is without a person; leave --subject, --grant and --impersonate out")
    if own and scope is None:
        raise typer.BadParameter("--own needs --scope; there is no grant whose scopes it could have")
    if not own and subject is None:
        raise typer.BadParameter("say for whom with --subject PERSON, or --own for the agent itself")
    return Mode.OWN if own else Mode.IMPERSONATED if impersonate else Mode.DELEGATED


def _what_may_be(ctx: typer.Context, agent: str, mode: Mode) -> str:
    """Where the bound stands that was asked for too much of."""
    if mode is Mode.IMPERSONATED:
        return "an [[impersonation]] table of the configuration names who, for whom and which scopes"
    show = command_line(ctx, "agent", "show", agent)
    return f"see: {show}" if mode is Mode.OWN else f"see: {command_line(ctx, 'grant', 'list')}, {show}"


async def _grant(here: Installation, sessions: Sessions, subject: str, agent: str, named: str | None) -> Grant:
    """The grant that was named, or the only one between the two."""
    if named is None:
        return await sessions.only_grant(subject, agent)
    found = await find_grant(here.store, named)
    if (found.subject, found.agent) != (subject, agent):
        raise NotFound(f"grant `{named}` is not one of `{subject}` to `{agent}`")
    return found


def _whom(session: Session) -> str:
    """Who it works for, in words that follow `works`."""
    whom = "in the place of" if session.mode is Mode.IMPERSONATED else "for"
    return f"{whom} {shown_subject(session.subject)}"


@app.command("list")
@asynchronous
async def list_(ctx: typer.Context, json: Json = False) -> None:
    """List every session, oldest first."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_commands.sessions(there, _say_sessions, json=json)
        return
    async with installation(ctx) as here:
        sessions, is_open = await here.store.sessions(), await what_is_open(here.store, here.clock())
    if json:
        print_json([{**views.session(session), "state": session_state(session, is_open)} for session in sessions])
        return
    _say_sessions(sessions, is_open)


def _say_sessions(sessions: Sequence[Session], is_open: Open) -> None:
    short = shortener(session.id for session in sessions)
    table(
        ("SESSION", "STATE", "AGENT", "FOR", "PURPOSE", "UNTIL", "CALLS"),
        (
            (
                short(session.id),
                session_state(session, is_open),
                session.agent,
                shown_subject(session.subject),
                session.purpose,
                local(session.expires_at),
                shown_budget(session.calls_made, session.max_calls),
            )
            for session in sessions
        ),
        empty="no sessions yet; `mcp-authz session start` opens one, and so does an agent with one grant that signs in",
    )


@app.command()
@asynchronous
async def show(
    ctx: typer.Context,
    session: Annotated[str, typer.Argument(metavar="ID", help="Enough of its id.")],
    json: Json = False,
) -> None:
    """Show one session as a tree: who holds what, how far down, until when, and what was revoked."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_commands.session(there, session, _say_session, json=json)
        return
    async with installation(ctx) as here:
        known = {found.id: found for found in await here.store.sessions()}
        found = known[SessionId(the_one("session", session, list(known)))]
        links, is_open = await here.store.links(found.id), await what_is_open(here.store, here.clock())
    if json:
        tree = [{**views.link(link), "state": link_state(link, is_open)} for link in links]
        print_json({**views.session(found), "state": session_state(found, is_open), "links": tree})
        return
    _say_session(found, links, is_open)


def _say_session(found: Session, links: Iterable[Link], is_open: Open) -> None:
    say(visible(f"session {found.id}: {session_state(found, is_open)}"))
    say(f"purpose: {visible(found.purpose)}")
    say(visible(f"mode: {found.mode.value}, {found.agent} works {_whom(found)}"))
    calls = shown_budget(found.calls_made, found.max_calls)
    say(f"from {local(found.started_at)} until {local(found.expires_at)}, {calls}")
    draw(_tree(found.principal, links, is_open))


def _tree(subject: str, links: Iterable[Link], is_open: Open) -> Tree:
    """Links come parents first, as the store lists them."""
    top = Tree(Text(visible(subject), style="bold"), guide_style="dim")
    links = list(links)
    short, nodes = shortener(link.id for link in links), dict[LinkId | None, Tree]()
    for link in links:
        nodes[link.id] = nodes.get(link.parent, top).add(_shown_link(link, short(link.id), link_state(link, is_open)))
    return top


def _shown_link(link: Link, id_: str, state: str) -> Text:
    shown = Text()
    shown.append(visible(f"agent:{link.holder}"), style="bold")
    shown.append(visible(f"  {id_}  "))
    shown.append(visible(state), style="green" if state == "open" else "red")
    shown.append(f"\n{visible(shown_words(link.scope))}")
    if link.tools is not None:
        shown.append("".join(f"\nonly {line}" for line in shown_tools(link.tools)))
    further = (
        f"may delegate {link.max_depth - link.depth} further" if link.max_depth > link.depth else "may not delegate"
    )
    calls = shown_budget(link.calls_made, link.max_calls)
    shown.append(f"\nuntil {local(link.expires_at)}, {calls}, depth {link.depth}, {further}", style="dim")
    if link.reason:
        shown.append(f"\nbecause: {visible(link.reason)}", style="dim")
    return shown
