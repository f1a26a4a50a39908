"""What is known here of a chain that was just signed: whose ceiling it is over, so that the gateway would refuse it."""

from __future__ import annotations

import shlex
from functools import reduce

import typer

from mcp_authz.cli.delegate_sources import AtHand, known_agent
from mcp_authz.cli.invocation import advising, command_line
from mcp_authz.cli.scopes_taken import note_untaken
from mcp_authz.client.delegation import Description
from mcp_authz.errors import DelegationError
from mcp_authz.principals import Agent
from mcp_authz.rules.delegation import uncovered
from mcp_authz.rules.scope import common, parse_scopes


def require_under_ceilings(ctx: typer.Context, here: AtHand, chain: Description, to: str) -> None:
    """The last link gives no more than everybody in the chain may have, as far as this machine knows them.

    Nobody is known where the gateway's store is not at hand, and then the gateway alone says it.

    Raises:
        DelegationError: it does; with what is over whose ceiling, and the `--scope` that would fit.
    """
    given, agents = chain.leaf.scope, _known(here, chain, to)
    fits = reduce(common, (agent.ceiling for agent in agents), given)
    for agent in agents:
        if over := uncovered(tuple(sorted(given)), agent.ceiling):
            show = f"nothing of it fits; see: {command_line(ctx, 'agent', 'show', agent.name)}"
            instead = f"give what fits: --scope {shlex.quote(' '.join(sorted(fits)))}" if fits else show
            with advising(DelegationError, instead):
                what = " ".join(f"`{scope}`" for scope in over)
                raise DelegationError(f"{what} is over the ceiling of `{agent.name}`, and the gateway would refuse it")


def note_typed(here: AtHand, issuer: str, scope: str | None) -> None:
    """A person has read which of the scopes that they typed no tool takes, where that is known here."""
    store = here.of_gateway(issuer)
    if scope is not None and store is not None and here.config is not None:
        note_untaken(here.config, store.pins, parse_scopes(scope))


def _known(here: AtHand, chain: Description, to: str) -> tuple[Agent, ...]:
    """The agents of the chain from the last one on, which this machine has the store for."""
    store = here.of_gateway(chain.issuer)
    by_key = [known_agent(here, link.holder, chain.issuer) for link in reversed(chain.links)]
    by_name = [agent for agent in (() if store is None else store.agents) if agent.name == to]
    return tuple({agent.name: agent for agent in [*by_key, *by_name] if agent is not None}.values())
