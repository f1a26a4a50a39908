"""`mcp-authz revoke`: stops one thing, and all that descends from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import typer

from mcp_authz import views
from mcp_authz.administration import Administration, at_the_store
from mcp_authz.cli import elsewhere_revoke
from mcp_authz.cli.hold_over import say_over
from mcp_authz.cli.invocation import asynchronous, command_line, installation, named_gateway, operator
from mcp_authz.cli.options import Json, Why, named, the_one, why
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.cli.revoke_more import revoke_everything, revoke_server, revoke_tool, say_stopped
from mcp_authz.cli.states import shown_subject
from mcp_authz.installation import Installation
from mcp_authz.model import HoldId
from mcp_authz.revocation import Stopped
from mcp_authz.rules.display import visible
from mcp_authz.rules.keys import b64url
from mcp_authz.running import RunningCall
from mcp_authz.store.ports import RevocableKind, Store

app = typer.Typer(rich_markup_mode=None, add_completion=False)

Kind = Literal[
    "link",
    "session",
    "grant",
    "agent",
    "client",
    "key",
    "passkey",
    "person",
    "hold",
    "approval",
    "tool",
    "server",
    "everything",
]

_EFFECT = {
    "link": "who holds it, and whoever they delegated to, cannot use it any more",
    "session": "nobody can work in it any more",
    "grant": "no session can be started from it, and those that were have ended",
    "agent": "it cannot sign in, and nothing that it held or handed on can be used",
    "client": "it is nobody's agent any more, and can ask nobody to be",
    "key": "it signs nobody in, and tokens that were issued to it are refused",
    "passkey": "it signs nobody in and approves nothing, and what it approved does not run",
    "person": "nobody acts for them, and they approve nothing",
    "hold": "the call does not run",
    "approval": "calls like the one that it was given with are held again",
}


@app.command()
@asynchronous
async def revoke(
    ctx: typer.Context,
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What it is.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Its name; or its id, or enough of it.")] = None,
    *,
    of: Annotated[
        str | None, typer.Option(metavar="SUBJECT", help="Of `everything`: user:NAME, agent:NAME or client:ID.")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(metavar="TIME|DURATION", help="Of `everything`: made before 2026-01-31T12:00, 2h ago, or now."),
    ] = None,
    reason: Why = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would stop, and change nothing.")] = False,
    json: Json = False,
) -> None:
    """Stop something, and all that descends from it, at once: the next call of it, and those that run."""
    there, reason = named_gateway(ctx), why(reason, dry_run=dry_run)
    if kind == "everything":
        if of is None or before is None or name is not None:
            raise typer.BadParameter("name whose with --of, and until when with --before")
        if there is not None:
            await elsewhere_revoke.sweep(ctx, there, of, before, reason=reason, dry_run=dry_run, json=json)
            return
        async with installation(ctx) as here:
            await revoke_everything(ctx, here, of, before, reason=reason, dry_run=dry_run, json=json)
        return
    if name is None or of is not None or before is not None:
        raise typer.BadParameter(f"name the {kind}; --of and --before go with `everything`")
    if there is not None:
        await elsewhere_revoke.revoke(ctx, there, kind, name, reason=reason, dry_run=dry_run, json=json)
        return
    async with installation(ctx) as here:
        if kind == "tool":
            await revoke_tool(ctx, here, name, reason=reason, dry_run=dry_run, json=json)
        elif kind == "server":
            await revoke_server(ctx, here, name, reason=reason, dry_run=dry_run, json=json)
        else:
            await _revoke(ctx, here, kind, name, reason=reason, dry_run=dry_run, json=json)


async def _revoke(
    ctx: typer.Context,
    here: Installation,
    kind: RevocableKind,
    name: str,
    *,
    reason: str,
    dry_run: bool,
    json: bool,
) -> None:
    name = name.removeprefix({"agent": "agent:", "person": "user:"}.get(kind, ""))
    administration, actor = Administration(here.store, here.clock), at_the_store(operator())
    full = the_one(kind, await administration.full(kind, name), await _names(here.store, kind))
    running = await administration.running(actor, kind, full)
    if dry_run:
        stopped = await administration.foresee(actor, kind, full)
    else:
        stopped = await administration.revoke(actor, kind, full, reason=reason)
    owned = await _owned(here.store, full) if kind == "person" else []
    if json:
        print_json({"kind": kind, "name": full, "dry_run": dry_run, **_view(stopped, running)})
        return
    if stopped.already and kind == "hold":
        await say_over(ctx, here, HoldId(full))
        return
    if stopped.already:
        say(f"{kind} {full} is revoked already; nothing was changed")
        return
    say(f"{kind} {full} would be revoked" if dry_run else f"{kind} {full} is revoked: {_EFFECT[kind]}")
    would = "would stop" if dry_run else "stopped"
    for session, link in stopped.links:
        whom = shown_subject(session.subject)
        say(f"{would}: agent {link.holder} for {whom}, {visible(session.purpose)}: link {link.id}")
    say_stopped(stopped.holds, running, dry_run=dry_run)
    if not stopped.links and not stopped.holds and not running:
        say("nothing that was open stands on it")
    if owned:
        say(f"still active, owned by {full}: {' '.join(owned)}")
    if dry_run:
        next_step(command_line(ctx, "revoke", *named(kind, full, "--reason", reason)))
    else:
        next_step(command_line(ctx, "audit", "list", "--kind", "revocation"))


async def _names(store: Store, kind: RevocableKind) -> list[str]:
    """Every name that a thing of this kind has."""
    match kind:
        case "agent":
            return [agent.name for agent in await store.agents()]
        case "client":
            return [client.id for client in await store.clients()]
        case "person":
            return [person.name for person in await store.people()]
        case "grant":
            return [grant.id for grant in await store.grants()]
        case "session":
            return [session.id for session in await store.sessions()]
        case "link":
            return [link.id for session in await store.sessions() for link in await store.links(session.id)]
        case "hold":
            return list(await store.hold_ids())
        case "approval":
            return [standing.terms.id for standing in await store.standing_approvals()]
        case "passkey":
            holders = [person.name for person in await store.people()]
            return [b64url(it.credential) for name in holders for it in await store.passkeys_of(name)]
        case "key":
            agents = [f"agent:{agent.name}" for agent in await store.agents()]
            people = [f"user:{person.name}" for person in await store.people()]
            return [key.thumbprint for holder in agents + people for key in await store.keys_of(holder)]


async def _owned(store: Store, person: str) -> list[str]:
    """Agents that go on without their owner, which is worth knowing."""
    return [agent.name for agent in await store.agents() if agent.owner == person and agent.status == "active"]


def _view(stopped: Stopped, running: Iterable[RunningCall]) -> dict[str, Any]:
    return {
        "already_revoked": stopped.already,
        "links": [
            {"id": link.id, "holder": link.holder, "session": session.id, "subject": session.subject}
            for session, link in stopped.links
        ],
        "holds": list(stopped.holds),
        "running": views.running(running),
    }
