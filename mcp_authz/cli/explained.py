"""How an explanation of a call is printed: a line for each step, then what decided, then what would change it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import typer

from mcp_authz.cli.invocation import command_line
from mcp_authz.cli.output import next_step, say
from mcp_authz.explaining import Explanation, Step
from mcp_authz.model import Decision, Deny, Hold, Permit
from mcp_authz.policy.cedar_reading import Reading, closest
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.remedies import Remedy
from mcp_authz.rules.display import visible

_WIDTH: Final = 80
_MARKS: Final = {
    "passed": "\N{CHECK MARK}",
    "failed": "\N{BALLOT X}",
    "held": "\N{HORIZONTAL ELLIPSIS}",
    "observed": "!",
    "assumed": "~",
    "not reached": "\N{MIDDLE DOT}",
}
_SHOWN: Final = 3  # permits that came close; the others are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is printed."""

    agent: str
    tool: str
    explanation: Explanation
    readings: tuple[Reading, ...]  # of Cedar's policies, where policy was asked
    remedies: tuple[Remedy, ...]


def show(ctx: typer.Context, told: Told) -> None:
    """The explanation is printed, for a terminal of 80 columns."""
    it = told.explanation
    say(f"{visible(told.agent)} calls {visible(told.tool)}{_whom(it)}")
    say()
    say_steps(it.steps, begins=it.begins)
    say()
    say_wrapped("", verdict(it.decision))
    for line in _policy(told):
        say_wrapped("  ", visible(line))
    if told.remedies:
        say()
        say("what would change it:" if isinstance(it.decision, Deny) else "what it waits for:")
    for remedy in told.remedies:
        say_wrapped("  - ", visible(remedy.text))
    for command in [one.command for one in told.remedies if one.command][:1]:
        next_step(command_line(ctx, *command))


def say_steps(steps: Sequence[Step], *, begins: bool = False) -> None:
    """A line for each step; `begins`: its session would begin with the sign-in."""
    for step in steps:
        detail = "one would begin at the sign-in" if begins and step.name == "session" else step.detail
        head = f" {_MARKS[step.result]} {step.number:>4}  {step.name:<12} "
        say_wrapped(head, visible(detail or _quiet(step.result)))


def _quiet(result: str) -> str:
    return "not reached" if result == "not reached" else ""


def say_wrapped(head: str, text: str) -> None:
    """One entry is printed, its further lines under its first word."""
    lines = textwrap.wrap(text, _WIDTH - len(head), break_long_words=False, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        say(f"{head if number == 0 else ' ' * len(head)}{line}".rstrip())


def _whom(it: Explanation) -> str:
    session = None if it.caller is None else it.caller.session
    return "" if session is None else f" for {visible(session.principal.partition(':')[2])}: {visible(session.purpose)}"


def verdict(decision: Decision) -> str:
    """The decision in capitals, as it is printed."""
    match decision:
        case Deny(code=code):
            return f"DENIED ({code})"
        case Hold(rules=rules):
            return f"HELD for approval ({', '.join(rule.name for rule in rules)})"
        case Permit(observed=None):
            return "PERMITTED"
        case Permit():
            return "PERMITTED, because its server is only observed; it would not be otherwise"


def _policy(told: Told) -> Iterator[str]:
    """What policy has to do with it, where it was asked."""
    evaluation = told.explanation.evaluation
    if evaluation is not None and evaluation.asked is not None:
        yield from policy_lines(evaluation.asked.answer, told.readings)


def policy_lines(answer: PolicyAnswer, readings: Sequence[Reading]) -> Iterator[str]:
    """Which rules decided, or which came closest."""
    by_id = {reading.policy.id: reading for reading in readings}
    for rule in answer.because:
        reading = by_id.get(rule)
        effect = "decided" if reading is None else "forbids it" if reading.policy.effect == "forbid" else "permits it"
        yield f"policy `{rule}`{_place(reading)} {effect}{_while(reading)}"
    for error in answer.errors:
        yield f"error: {error}"
    if not answer.permit and not answer.because and not answer.errors:
        yield from _silence(readings)


def _place(reading: Reading | None) -> str:
    return "" if reading is None else f" ({reading.policy.place})"


def _while(reading: Reading | None) -> str:
    if reading is None or reading.policy.effect != "forbid":
        return ""
    conditions = reading.policy.conditions
    telling = [one for one in conditions if "has" not in one.body] or conditions  # `has` only guards what is read
    return f" while {' and '.join(one.text for one in telling)}" if telling else ", always"


def _silence(readings: Sequence[Reading]) -> Iterator[str]:
    """A denial by silence: the permits that came closest, and what stopped each."""
    near = closest(readings)
    if not near:
        yield "no permit is about this agent, action and tool" if readings else "no rule permits it"
        return
    yield "no permit applies to it; the closest:"
    for reading in near[:_SHOWN]:
        yield f"policy `{reading.policy.id}`{_place(reading)} needs {reading.stopped_by}{_found(reading)}"
    if len(near) > _SHOWN:
        yield f"and {len(near) - _SHOWN} more"


def _found(reading: Reading) -> str:
    if reading.failed:
        return ", which cannot be evaluated: a value is absent or of another type"
    facts = [f"{f.path} is {'absent' if f.absent else f.value}" for f in reading.facts if not f.value.startswith("{")]
    return f"; {', '.join(facts)}" if facts else ""


def view(told: Told) -> dict[str, Any]:
    """Return the explanation as one JSON object."""
    it = told.explanation
    asked = None if it.evaluation is None else it.evaluation.asked
    return {
        "agent": told.agent,
        "tool": told.tool,
        "subject": None if it.caller is None or it.caller.session is None else it.caller.session.principal,
        "session": None if it.begins or it.caller is None or it.caller.session is None else it.caller.session.id,
        "decision": word(it.decision),
        "reason": it.decision.code if isinstance(it.decision, Deny) else None,
        "because": list(it.decision.because),
        "steps": [step.view for step in it.steps],
        "policies": [reading.view for reading in told.readings if reading.in_scope],
        "input": None if asked is None else dict(asked.document),
        "remedies": [{"text": one.text, "command": list(one.command)} for one in told.remedies],
    }


def word(decision: Decision) -> str:
    """The decision in one word."""
    return {Deny: "deny", Hold: "hold", Permit: "permit"}[type(decision)]
