"""`mcp-authz policy explain --call`: a call that was decided, from its record and, where it is kept, its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from mcp_authz.audit import sentence
from mcp_authz.cli.explained import policy_lines, say_steps, say_wrapped, verdict, word
from mcp_authz.cli.invocation import command_line
from mcp_authz.cli.options import the_one
from mcp_authz.cli.output import local, next_step, say
from mcp_authz.explaining import Step, steps_to
from mcp_authz.inputs import decided_again, read_kept
from mcp_authz.installation import Installation
from mcp_authz.model import ApprovalRule, Decision, Deny, Hold, Permit, RuleId
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.cedar_reading import Reading, read
from mcp_authz.policy.cedar_source import policies_in
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.policy.loading import make_engine, read_files
from mcp_authz.rules.display import visible
from mcp_authz.settings import approval_floor
from mcp_authz.store.ports import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A decision of the log, and what the configured policy says of the same input now."""

    event: Event
    decision: Decision  # as it is on record
    steps: tuple[Step, ...]
    same_policy: bool  # whether the policy that decided is the configured one
    now: Decision | None  # None: the input is not kept, or policy was not asked
    answer: PolicyAnswer | None
    readings: tuple[Reading, ...]


async def recalled(here: Installation, call: str) -> Recalled:
    """Return what is known of the call with this id, or an id that begins like this.

    Raises:
        NotFound: there is no decision about it.
    """
    decided = await here.store.decision_of(call)
    if decided is None:
        records = await here.store.records(kind="decision", limit=10_000)
        known = sorted({record.event.call for record in records if record.event.call})
        decided = await here.store.decision_of(the_one("call", call, known))
        assert decided is not None  # noqa: S101 - it was among the records
    texts = read_files(here.config, here.config.policy)
    engine = make_engine(here.config, here.config.policy, texts)
    decision = _decision(decided.record.event.fields)
    now = answer = None
    readings: tuple[Reading, ...] = ()
    if decided.input is not None:
        kept = read_kept(decided.input)
        answer = await engine.evaluate(kept.document)
        now = decided_again(kept, answer, floor=approval_floor(here.config), means=here.config.means)
        if isinstance(engine, CedarEngine):
            readings = read(policies_in(texts), kept.document, approvals=engine.approvals.values())
    if (close := getattr(engine, "aclose", None)) is not None:
        await close()
    return Recalled(
        event=decided.record.event,
        decision=decision,
        steps=steps_to(decision),
        same_policy=decided.record.event.fields.get("policy") == engine.digest,
        now=now,
        answer=answer,
        readings=readings,
    )


def _decision(fields: Mapping[str, Any]) -> Decision:
    """The decision of a record, as far as it says."""
    because = tuple(RuleId(rule) for rule in fields.get("because", ()))
    match fields.get("decision"):
        case "deny":
            return Deny(code=str(fields.get("reason")), because=because, detail=str(fields.get("detail", "")))
        case "hold":
            rules = tuple(ApprovalRule(name=name) for name in fields.get("rules", ()))
            return Hold(call_digest=b"", rules=rules, because=because)
        case _:
            return Permit(call_digest=b"", approval=None, because=because)


def show_recalled(ctx: typer.Context, it: Recalled) -> None:
    """It is printed, for a terminal of 80 columns."""
    say_wrapped("", visible(f"{local(it.event.at)}: {sentence(it.event)}"))
    say()
    say_steps(it.steps)
    say()
    by = "the configured policy" if it.same_policy else "another policy than is configured now"
    say(f"{verdict(it.decision)}, by {by}")
    if it.answer is None or it.now is None:
        why = "policy was not asked about it, or its input is not kept ([audit] inputs_days)"
        say_wrapped("  ", f"what the configured policy says of it cannot be told: {why}")
    else:
        if not it.same_policy:
            say(f"the configured policy would say: {verdict(it.now)}")
        for line in policy_lines(it.answer, it.readings):
            say_wrapped("  ", visible(line))
    next_step(command_line(ctx, "audit", "list", "--call", str(it.event.call)))


def view_recalled(it: Recalled) -> dict[str, Any]:
    """Return it as one JSON object."""
    return {
        "call": it.event.call,
        "decision": word(it.decision),
        "reason": it.decision.code if isinstance(it.decision, Deny) else None,
        "because": list(it.decision.because),
        "steps": [step.view for step in it.steps],
        "same_policy": it.same_policy,
        "now": None if it.now is None else word(it.now),
        "policies": [reading.view for reading in it.readings if reading.in_scope],
    }
