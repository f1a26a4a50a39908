"""`mcp-authz agent edit`: what a registered agent may have, changed; the next call counts by it."""

from __future__ import annotations

from typing import Annotated

import typer

from mcp_authz import views
from mcp_authz.changing import Changes, change_agent
from mcp_authz.cli.invocation import advising, asynchronous, command_line, installation, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.cli.scopes_taken import note_untaken
from mcp_authz.cli.states import shown_words
from mcp_authz.config import Config
from mcp_authz.errors import NotFound
from mcp_authz.principals import Agent
from mcp_authz.rules.delegation import uncovered
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.settings import role_scopes


@asynchronous
async def edit(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    *,
    ceiling: Annotated[
        str | None,
        typer.Option(metavar="SCOPES", help="The most it can be granted from now on, beside what its roles have."),
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="The roles it has from now on. Repeatable.")
    ] = None,
    no_roles: Annotated[bool, typer.Option("--no-roles", help="It has no role any more.")] = False,
    depth: Annotated[int | None, typer.Option(metavar="N", help="How many delegation steps it may start.")] = None,
    delegates_to: Annotated[
        list[str] | None,
        typer.Option(
            "--delegates-to",
            "--may-delegate-to",
            metavar="AGENT",
            help="The agents that it may delegate to from now on. Repeatable.",
        ),
    ] = None,
    no_delegates: Annotated[bool, typer.Option("--no-delegates", help="It may delegate to nobody any more.")] = False,
    json: Json = False,
) -> None:
    """Change what an agent may have; what is not named stays."""
    changes = Changes(
        ceiling=None if ceiling is None else parse_scopes(ceiling),
        depth=depth,
        delegates_to=_chosen(delegates_to, no_delegates, "--delegates-to", "--no-delegates"),
        roles=_chosen(role, no_roles, "--role", "--no-roles"),
    )
    if changes == Changes():
        raise typer.BadParameter("say what becomes otherwise: --ceiling, --role, --depth or --delegates-to")
    async with installation(ctx) as here:
        with advising(NotFound, f"the agents there are: {command_line(ctx, 'agent', 'list')}"):
            agent = await change_agent(
                here.store, here.clock, name, changes, roles=role_scopes(here.config), by=operator()
            )
        note_untaken(here.config, await here.store.pins(), changes.ceiling or ())
    if json:
        print_json(views.agent(agent))
        return
    say(f"agent {agent.name} may have: {shown_words(agent.ceiling, 'nothing')}")
    say(f"depth {agent.depth}, delegates to {shown_words(agent.delegates_to, 'nobody')}")
    next_step(command_line(ctx, "agent", "show", agent.name))


def shown_roles(agent: Agent, config: Config) -> str:
    """The agent's roles with their scopes; one of which the configuration says something else by now is pointed out."""
    scopes, shown = role_scopes(config), []
    for role in sorted(agent.roles):
        if role not in scopes:
            shown.append(f"{role} (not in [roles] any more)")
        elif uncovered(tuple(scopes[role]), agent.ceiling):
            shown.append(f"{role} (has more in [roles] by now; give it again with `agent edit`)")
        else:
            shown.append(f"{role} ({shown_words(scopes[role])})")
    return ", ".join(shown) or "none"


def _chosen(named: list[str] | None, none: bool, option: str, opposite: str) -> frozenset[str] | None:
    """What was named; nothing at all with the opposite option, and None where neither was given."""
    if named and none:
        raise typer.BadParameter(f"give {option} or {opposite}, not both")
    return frozenset(named or ()) if named or none else None
