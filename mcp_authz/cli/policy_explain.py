"""`mcp-authz policy explain`: every step that a call takes, the rule that decides, and what would change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from mcp_authz.catalog import Catalog
from mcp_authz.cli.explained import Told, show, view
from mcp_authz.cli.invocation import asynchronous, installation
from mcp_authz.cli.options import Json, the_one
from mcp_authz.cli.output import print_json
from mcp_authz.cli.policy_recall import recalled, show_recalled, view_recalled
from mcp_authz.errors import InputError, NotFound, TokenRefused
from mcp_authz.evaluation import Evaluator
from mcp_authz.explaining import Explanation, explain, refused
from mcp_authz.installation import Installation
from mcp_authz.model import Tool
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.cedar_reading import Reading, read
from mcp_authz.policy.cedar_source import policies_in
from mcp_authz.policy.loading import make_engine, read_files
from mcp_authz.principals import Agent, AgentName, PersonName, Proof
from mcp_authz.rehearsal import rehearsal
from mcp_authz.remedies import Known, remedies
from mcp_authz.rules import strict_json
from mcp_authz.settings import approval_floor, impersonations, least_proof, server_rules
from mcp_authz.store.ports import Clock


@asynchronous
async def explain_(
    ctx: typer.Context,
    *,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who calls; cursor@alice for a client's agent.")
    ] = None,
    tool: Annotated[str | None, typer.Option(metavar="TOOL", help="What is called, such as files__read_file.")] = None,
    args: Annotated[
        str, typer.Option(metavar="JSON|@FILE", help="The arguments, as one JSON object or a file with one.")
    ] = "{}",
    for_: Annotated[
        str | None, typer.Option("--for", metavar="PERSON", help="For whom, where it acts for several.")
    ] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="In which session, where it has several.")] = None,
    proof: Annotated[
        Proof | None,
        typer.Option(
            parser=_proof,
            metavar="bearer|dpop|signed",
            help="How the call is proved. Else as `mcp-authz connect` proves it.",
        ),
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(parser=_time, metavar="TIME", help="When, such as 2026-01-31T12:00. Else now."),
    ] = None,
    call: Annotated[
        str | None, typer.Option(metavar="ID", help="Instead of all that: a call that the audit log has.")
    ] = None,
    json: Json = False,
) -> None:
    """Explain how a call is decided, step by step, and what would have to change. Nothing is called or recorded."""
    if call is not None:
        async with installation(ctx) as here:
            past = await recalled(here, call)
        if json:
            print_json(view_recalled(past))
        else:
            show_recalled(ctx, past)
        return
    if agent is None or tool is None:
        raise typer.BadParameter("say who calls what with --agent NAME --tool TOOL, or which call with --call ID")
    arguments = _arguments(args)
    async with installation(ctx) as here:
        clock = here.clock if at is None else lambda: at
        found = await _agent(here, agent)
        who = Who(agent=found, person=for_, session=session, proof=proof)
        told = await told_of(here, who, tool, arguments, clock)
    if json:
        print_json(view(told))
    else:
        show(ctx, told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who calls, as far as it was said."""

    agent: Agent
    person: str | None
    session: str | None
    proof: Proof | None


async def told_of(here: Installation, who: Who, tool: str, arguments: Mapping[str, Any], clock: Clock) -> Told:
    config = here.config
    texts = read_files(config, config.policy)
    engine = make_engine(config, config.policy, texts)
    least = least_proof(config)
    rules = {name: server_rules(name, server, least) for name, server in config.servers.items()}
    catalog = Catalog(store=here.store, rules=rules, clock=clock)
    await catalog.load_pins()
    evaluator = Evaluator(engine=engine, floor=approval_floor(config), means=config.means)
    explanation = await _explained(here, who, clock, by=evaluator, tool=catalog.find(tool), arguments=arguments)
    if (close := getattr(engine, "aclose", None)) is not None:
        await close()
    readings: tuple[Reading, ...] = ()
    asked = None if explanation.evaluation is None else explanation.evaluation.asked
    if asked is not None and isinstance(engine, CedarEngine):
        readings = read(policies_in(texts), asked.document, approvals=engine.approvals.values())
    return Told(
        agent=who.agent.name,
        tool=tool,
        explanation=explanation,
        readings=readings,
        remedies=remedies(explanation, await _known(here, who, clock)),
    )


async def _explained(
    here: Installation, who: Who, clock: Clock, *, by: Evaluator, tool: Tool | None, arguments: Mapping[str, Any]
) -> Explanation:
    sessions = await rehearsal(
        here.store, clock, issuer=here.config.public_url, impersonations=impersonations(here.config)
    )
    people = [person.name for person in await here.store.people()]
    subject = None if who.person is None else PersonName(the_one("person", who.person, people))
    named = who.session and the_one("session", who.session, [one.id for one in await here.store.sessions()])
    try:
        caller = await sessions.caller(who.agent, subject=subject, session=named, proof=who.proof)
    except NotFound as error:
        return refused("no_key", str(error))
    except TokenRefused as error:
        return refused("revoked", str(error))
    return replace(await explain(caller, tool, arguments, by=by, at=clock()), begins=sessions.begun is not None)


async def _agent(here: Installation, name: str) -> Agent:
    known = {agent.name: agent for agent in await here.store.agents()}
    return known[AgentName(the_one("agent", name, list(known)))]


async def _known(here: Installation, who: Who, clock: Clock) -> Known:
    """What the agent has for the person who was named, or for anybody."""
    grants = [grant for grant in await here.store.grants(agent=who.agent.name) if grant.status == "active"]
    sessions = [session for session, _ in await here.store.open_links(who.agent.name, clock(), since=None)]
    return Known(
        agent=who.agent,
        grants=[grant for grant in grants if clock() < grant.expires_at and who.person in (None, grant.subject)],
        sessions=[one for one in dict.fromkeys(sessions) if who.person in (None, one.subject)],
    )


def _arguments(text: str) -> Mapping[str, Any]:
    raw = Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
    try:
        return strict_json.parse_object(raw)
    except InputError as error:
        raise typer.BadParameter(f"--args: {error}") from None


def _proof(text: str) -> Proof:
    try:
        return Proof[text.upper()]
    except KeyError:
        raise typer.BadParameter("a proof is bearer, dpop or signed") from None


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise typer.BadParameter("write a time as 2026-01-31 or 2026-01-31T12:00") from None
