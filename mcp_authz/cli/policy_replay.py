"""`mcp-authz policy replay`: recorded calls decided again by another policy, and which it would decide otherwise."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import typer

from mcp_authz.cli.audit_options import moment
from mcp_authz.cli.invocation import asynchronous, command_line, installation
from mcp_authz.cli.options import Json, the_one
from mcp_authz.cli.output import local, next_step, print_json, say, table
from mcp_authz.cli.policy_entries import typed_entries
from mcp_authz.cli.recorded_calls import RecordedCalls, Wanted, progress
from mcp_authz.inputs import Kept, decided_again
from mcp_authz.model import Decision, Deny
from mcp_authz.policy.engine import PolicyEngine
from mcp_authz.policy.loading import load_engine
from mcp_authz.policy.shadow import Gist
from mcp_authz.rules.decision import ApprovalFloor
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.obligation import Means
from mcp_authz.settings import approval_floor
from mcp_authz.store.ports import Record


@dataclass(slots=True, kw_only=True)
class Replayed:
    """What came of it: everything is counted, the newest differences are kept."""

    calls: int = 0
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)  # of differences: what was, what would be
    differences: deque[dict[str, Any]]


@asynchronous
async def replay(
    ctx: typer.Context,
    *,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME|DURATION", help="Only after 2026-01-31, 2026-01-31T12:00 or 2h ago. Else all kept."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTRY",
            help="The policy to ask, as the configuration names one. Else the configured one, as it is.",
        ),
    ] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Only calls of this agent.")] = None,
    tool: Annotated[str | None, typer.Option(metavar="TOOL", help="Only calls of this tool.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many differences, the newest ones.")] = 50,
    json: Json = False,
) -> None:
    """Decide recorded calls again, and list those that a policy would decide otherwise. Nothing is called."""
    async with installation(ctx) as here:
        config, store = here.config, here.store
        start = None if since is None else moment(since, here.clock())
        if agent is not None:
            the_one("agent", agent, [one.name for one in await store.agents()])
        entries = typed_entries(config, policy) if policy else config.policy
        calls = RecordedCalls(store, Wanted(agent=agent, tool=tool, since=start))
        again = Again(engine=load_engine(config, entries), floor=approval_floor(config), means=config.means)
        try:
            done = await again.decide(calls, limit)
        finally:
            await again.aclose()
    if json:
        print_json(_view(done, entries, calls))
    else:
        _show(ctx, done, entries, calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A policy, and everything else that decides with it, as they are now."""

    engine: PolicyEngine
    floor: ApprovalFloor
    means: Means

    async def decide(self, calls: RecordedCalls, limit: int) -> Replayed:
        """Return what these calls come to."""
        done = Replayed(differences=deque(maxlen=limit))
        with progress() as tell:
            async for record, kept in calls.each(tell):
                answer = await self.engine.evaluate(kept.document)
                decision = decided_again(kept, answer, floor=self.floor, means=self.means)
                done.calls += 1
                if (would := Gist.of(decision)) != kept.gist:
                    done.kinds[kept.gist.outcome, would.outcome] += 1
                    done.differences.append(_difference(record, kept, would, decision))
        return done

    async def aclose(self) -> None:
        """What the engine keeps open is closed."""
        if (close := getattr(self.engine, "aclose", None)) is not None:
            await close()


def _difference(record: Record, kept: Kept, would: Gist, decision: Decision) -> dict[str, Any]:
    """One call that would be decided otherwise; no argument of it is in here."""
    fields = record.event.fields
    return {
        "at": timestamp(record.event.at),
        "call": record.event.call,
        "agent": kept.agent,
        "subject": fields.get("subject"),
        "tool": kept.tool,
        "action": kept.document["action"],
        "observed": "observed" in fields,
        "was": _outcome(kept.gist) | {"because": list(kept.because)},
        "would": _outcome(would) | {"because": list(decision.because)},
        "detail": decision.detail if isinstance(decision, Deny) else "",
    }


def _outcome(gist: Gist) -> dict[str, Any]:
    return {
        "outcome": gist.outcome,
        "reason": gist.reason or None,
        "rules": list(gist.rules),
        "obligations": [f"{kind}({argument})" for kind, argument in sorted(gist.obligations)],
    }


def _view(done: Replayed, entries: tuple[str, ...], calls: RecordedCalls) -> dict[str, Any]:
    return {
        "policy": list(entries),
        "calls": done.calls,
        "same": done.calls - done.kinds.total(),
        "changes": [{"was": was, "would": would, "count": count} for (was, would), count in done.kinds.most_common()],
        "left_out": dict(calls.left_out),
        "differences": list(done.differences),
    }


def _show(ctx: typer.Context, done: Replayed, entries: tuple[str, ...], calls: RecordedCalls) -> None:
    if done.differences:
        rows = (
            (
                local(datetime.fromisoformat(it["at"])),
                f"{it['agent']} for {str(it['subject'] or '-').removeprefix('user:')}",
                it["tool"],
                f"{_told(it['was'])}{', but ran' if it['observed'] else ''}",
                _told(it["would"]),
                ", ".join(it["would"]["because"]) or it["detail"] or "-",
            )
            for it in done.differences
        )
        table(("TIME", "WHO", "TOOL", "WAS", "WOULD BE", "BECAUSE"), rows, empty="")
        if (more := done.kinds.total() - len(done.differences)) > 0:
            say(f"and {more} before these; --limit shows more")
    same = done.calls - done.kinds.total()
    say(f"{_calls(done.calls)} decided again by {', '.join(entries) or 'no policy'}: {_calls(same)} as before")
    for (was, would), count in done.kinds.most_common():
        say(f"{_calls(count)}: {was} then, {would}{', otherwise' if was == would else ''} now")
    if (said := calls.said()) is not None:
        say(said)
    if done.differences:
        next_step(command_line(ctx, "policy", "explain", "--call", str(done.differences[-1]["call"])))


def _told(it: Mapping[str, Any]) -> str:
    """An outcome in a cell: what it was, and for whom or with what."""
    more = [it["reason"], *it["rules"], *it["obligations"]]
    words = ", ".join(word for word in more if word)
    return f"{it['outcome']} ({words})" if words else str(it["outcome"])


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"
