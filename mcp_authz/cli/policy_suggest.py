"""`mcp-authz policy suggest`: the least that an agent's recorded calls needed, as commands and as a policy."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from mcp_authz import limits
from mcp_authz.cli.audit_options import moment
from mcp_authz.cli.invocation import asynchronous, command_line, installation
from mcp_authz.cli.options import Json, the_one
from mcp_authz.cli.output import print_json, say
from mcp_authz.cli.recorded_calls import RecordedCalls, Wanted, progress
from mcp_authz.errors import NotFound
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.cedar_writing import permits
from mcp_authz.principals import Agent, AgentName
from mcp_authz.rules.display import visible
from mcp_authz.suggesting import MOST, Needs

_WIDTH: Final = 100
_RAN: Final = frozenset({"permit", "hold"})
_NOT_LOOKED_AT: Final = (
    "arguments other than the attributes of resources, persons and their groups, times, chains, and how many calls; "
    "calls that were denied; whether held calls were approved; delegating to other agents (the action `delegate`)"
)


@asynchronous
async def suggest(
    ctx: typer.Context,
    *,
    agent: Annotated[str, typer.Option(metavar="NAME", help="Whose calls are looked at.")],
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME|DURATION", help="Only after 2026-01-31, 2026-01-31T12:00 or 2h ago. Else all kept."),
    ] = None,
    values: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="How many different values are listed one by one.")
    ] = MOST,
    json: Json = False,
) -> None:
    """Suggest the narrowest scopes and a Cedar policy for what an agent did. Nothing is changed."""
    async with installation(ctx) as here:
        known = {one.name: one for one in await here.store.agents()}
        found = known[AgentName(the_one("agent", agent, list(known)))]
        start = None if since is None else moment(since, here.clock())
        calls = RecordedCalls(here.store, Wanted(agent=found.name, since=start))
        needs = await _needs(calls, found, values)
        names = here.config.means.names
    if not needs.calls:
        raise NotFound(
            f"no call of `{found.name}` that ran or was held is on record with its input; [audit] inputs_days"
        )
    text = permits(needs.permitted)
    CedarEngine.load({"suggestion": text}, names=names)
    if json:
        print_json(_view(ctx, needs, calls, found, text))
        return
    for line in _comments(ctx, needs, calls, found):
        say(f"// {line}".rstrip())
    say()
    say(text.rstrip("\n"))


async def _needs(calls: RecordedCalls, agent: Agent, values: int) -> Needs:
    needs = Needs(agent=agent.name, most=values)
    with progress() as tell:
        async for record, kept in calls.each(tell):
            if record.event.fields.get("decision") in _RAN:
                needs.add(kept, record.event.fields)
    return needs


def _commands(ctx: typer.Context, needs: Needs, agent: Agent) -> Iterator[str]:
    """What gives exactly these scopes; a client's agent has what its person agrees to, which no command gives."""
    if agent.client is not None:
        return
    yield command_line(ctx, "agent", "edit", agent.name, "--ceiling", " ".join(needs.ceiling.narrowest))
    for subject, scopes in sorted(needs.by_subject.items()):
        if subject.startswith("user:"):
            person, words = subject.removeprefix("user:"), " ".join(scopes.narrowest)
            yield command_line(ctx, "grant", "add", "--subject", person, "--agent", agent.name, "--scope", words)


def _comments(ctx: typer.Context, needs: Needs, calls: RecordedCalls, agent: Agent) -> Iterator[str]:
    """What is said of the suggestion, each line a comment, so that the whole is a policy file."""
    decided = needs.decided
    yield f"What {agent.name} did: {decided['permit']} permitted, {decided['hold']} held calls."
    if decided["observed"]:
        yield f"And {decided['observed']} that ran only because their server is in observe mode: look at them first."
    yield "This permits it again and nothing else. Nothing of it is in force yet."
    yield ""
    yield from _wrapped(f"Scopes: {' '.join(needs.ceiling.narrowest) or 'none'}")
    if needs.ceiling.widened:
        yield from _wrapped(f"  `*` stands for more than {needs.most} different values that were seen")
    if len(needs.ceiling.narrowest) > limits.SCOPES:
        yield f"  more than {limits.SCOPES} are too many for one grant; a smaller --values puts them together"
    if agent.client is not None:
        yield "  a person gives them to this client by agreeing; no command does"
    if needs.delegated:
        yield from _wrapped(
            f"  {needs.delegated} of the calls were delegated: the agents before it need these scopes too"
        )
    for command in _commands(ctx, needs, agent):
        yield visible(command)
    yield ""
    for tool, name in needs.left_open:
        yield from _wrapped(f"Not limited: {tool}, {visible(name)}; too many values, or values that cannot be listed")
    yield "If your policy has forbids, copy them: what they look at may be more than what is looked at here."
    yield from _wrapped("Destructive calls still wait for approval, whatever is permitted here.")
    yield from _wrapped(f"Not looked at: {_NOT_LOOKED_AT}.")
    if (said := calls.said()) is not None:
        yield from _wrapped(f"{said[0].upper()}{said[1:]}.")
    yield f"next: {command_line(ctx, 'policy', 'replay', '--agent', agent.name, '--policy', 'FILE.cedar')}"


def _wrapped(text: str) -> list[str]:
    indent = text[: len(text) - len(text.lstrip())]
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent or "  ", break_long_words=False, break_on_hyphens=False)


def _view(ctx: typer.Context, needs: Needs, calls: RecordedCalls, agent: Agent, text: str) -> dict[str, Any]:
    return {
        "agent": agent.name,
        "calls": needs.calls,
        "decided": dict(needs.decided),
        "scopes": list(needs.ceiling.narrowest),
        "widened": list(needs.ceiling.widened),
        "commands": list(_commands(ctx, needs, agent)),
        "policy": text,
        "not_limited": [{"tool": tool, "attribute": name} for tool, name in needs.left_open],
        "left_out": dict(calls.left_out),
    }
