"""Why a call is decided as it is: the steps of the road in the order in which they are taken (DESIGN section 5).

What decides is the gateway's own code, asked once (`Evaluator.evaluate`); each reason code belongs to one step, so that
what comes before it was passed and what comes after it was not reached. Nothing is recorded, and nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from mcp_authz.catalog import known_to
from mcp_authz.errors import ScopeError
from mcp_authz.evaluation import Evaluation, Evaluator
from mcp_authz.model import Decision, Deny, Hold, Permit, RuleId, Tool, ToolCall
from mcp_authz.principals import Caller, Link
from mcp_authz.rules.scope import Scope

Result = Literal["passed", "failed", "held", "observed", "assumed", "not reached"]

STEP_OF: Final[Mapping[str, str]] = {
    "no_key": "sign-in",
    "revoked": "standing",
    "unknown_tool": "tool",
    "switched_off": "tool",
    "quarantined": "tool",
    "proof_required": "proof",
    "arguments": "arguments",
    "no_session": "session",
    "session_over": "session",
    "consent_over": "session",
    "scope_arguments": "scopes",
    "insufficient_scope": "scopes",
    "constraint": "constraints",
    "policy": "policy",
    "policy_error": "policy",
    "stale_sign_in": "obligations",
    "obligation": "obligations",
    "spent": "obligations",
    "rate_limited": "obligations",
    "budget": "budget",
}
"""The step that each reason code is the refusal of."""

ROAD: Final[Mapping[str, str]] = {
    "sign-in": "3",
    "possession": "4",
    "standing": "5, 6",
    "tool": "7",
    "proof": "8",
    "arguments": "9",
    "session": "12",  # asked before step 10: without a chain there is nothing that could cover a scope
    "scopes": "10",
    "constraints": "11",
    "policy": "12",
    "obligations": "12",
    "approval": "13",
    "budget": "14",
}
"""The steps in the order in which they are taken, with their numbers in the table of the road."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, and what came of it."""

    name: str
    result: Result
    detail: str = ""

    @property
    def number(self) -> str:
        """Its number in the table of the road."""
        return ROAD[self.name]

    @property
    def view(self) -> Mapping[str, str]:
        """As one JSON object."""
        return {"step": self.name, "number": self.number, "result": self.result, "detail": self.detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What is decided about one call, step by step."""

    steps: tuple[Step, ...]
    decision: Decision
    caller: Caller | None  # None: it could not even be identified
    tool: Tool | None
    evaluation: Evaluation | None  # None: it was not evaluated
    begins: bool = False  # whether the session that it is in would begin with the sign-in
    needed: tuple[Scope, ...] = ()  # the scopes that these arguments need, where they can be filled in


async def explain(
    caller: Caller, tool: Tool | None, arguments: Mapping[str, Any], *, by: Evaluator, at: datetime
) -> Explanation:
    """Return how this call would be decided, and by which step."""
    if tool is None or known_to(caller, tool) is None:
        deny = Deny(code="unknown_tool", because=(RuleId("unknown-tool"),))
        return Explanation(steps=steps_to(deny, caller, None), decision=deny, caller=caller, tool=tool, evaluation=None)
    call = ToolCall(tool=tool, arguments=arguments)
    evaluation = await by.evaluate(caller, call, approval=None, at=at)
    decision = evaluation.decision
    if isinstance(decision, Permit) and (spent := spent_by(caller)) is not None:  # as step 14 will find
        decision = Deny(code="budget", because=(RuleId("budget"),), detail=spent)
    return Explanation(
        steps=steps_to(decision, caller, call),
        decision=decision,
        caller=caller,
        tool=tool,
        evaluation=evaluation,
        needed=_needed(call),
    )


def refused(code: str, detail: str) -> Explanation:
    """The explanation of a call whose sender could not be identified: a 401, which is no decision about the call."""
    deny = Deny(code=code, because=(RuleId(code.replace("_", "-")),), detail=detail)
    return Explanation(steps=steps_to(deny, None, None), decision=deny, caller=None, tool=None, evaluation=None)


def spent_by(caller: Caller) -> str | None:
    """Whose budget of calls is used up; None where every one has a call left, as step 14 will ask."""
    if caller.session is None or caller.chain is None:
        return None
    held: list[Any] = [caller.session, *caller.chain.links]
    for one in held:
        if one.max_calls is not None and one.calls_made >= one.max_calls:
            what = f"link {one.id} of {one.holder}" if isinstance(one, Link) else f"session {one.id}"
            return f"{one.calls_made} of {one.max_calls} calls of {what} are made"
    return None


def _needed(call: ToolCall) -> tuple[Scope, ...]:
    try:
        return tuple(template.fill(call.arguments) for template in call.tool.classification.scopes)
    except ScopeError:
        return ()


def steps_to(decision: Decision, caller: Caller | None = None, call: ToolCall | None = None) -> tuple[Step, ...]:
    """Return the steps of a call with this decision; what the ones before it found is known with caller and call."""
    stop, result = _stopped(decision)
    return tuple(_each(stop, result, decision, caller, call))


def _stopped(decision: Decision) -> tuple[str | None, Result]:
    match decision:
        case Hold():
            return "approval", "held"
        case Deny(code=code):
            return STEP_OF.get(code, "obligations"), "failed"
        case Permit(observed=observed):
            return (None, "passed") if observed is None else (STEP_OF.get(observed.reason, "approval"), "observed")


def _each(
    stop: str | None, result: Result, decision: Decision, caller: Caller | None, call: ToolCall | None
) -> Iterator[Step]:
    reached = True
    for name in ROAD:
        if name == stop:
            yield Step(name=name, result=result, detail=_why(decision))
            reached = result == "observed"
        elif not reached:
            yield Step(name=name, result="not reached")
        else:
            assumed = name == "possession"
            yield Step(name=name, result="assumed" if assumed else "passed", detail=_what(name, caller, call))


def _why(decision: Decision) -> str:
    match decision:
        case Hold(rules=rules):
            return f"waits for {', '.join(rule.name for rule in rules)}"
        case Deny(code="policy", because=because):
            return f"says no: {', '.join(because)}"
        case Deny(detail=detail, code=code):
            return detail or code.replace("_", " ")
        case Permit(observed=observed):
            return "" if observed is None else observed.detail or observed.reason.replace("_", " ")


def _what(name: str, caller: Caller | None, call: ToolCall | None) -> str:
    """What a step that was passed found."""
    if caller is None:
        return ""
    session, chain = caller.session, caller.chain
    match name:
        case "sign-in":
            return "as its person's client" if caller.key is None else f"with key {caller.key}"
        case "possession":
            return f"{caller.proof.name.lower()}; --proof says otherwise"
        case "standing":
            return "in its own name" if chain is None else " > ".join(chain.agents)
        case "tool" if call is not None:
            by = call.tool.classification.by
            return f"{call.tool.classification.hazard.value}, action {call.tool.classification.action} (by {by})"
        case "proof" if call is not None:
            return f"{call.tool.classification.proof.name.lower()} is enough"
        case "session" if session is not None:
            return f"{session.id} of {session.principal}, until {session.expires_at.astimezone():%Y-%m-%d %H:%M %Z}"
        case "scopes" if call is not None:
            return " ".join(_needed(call))
        case "constraints" if chain is not None:
            bound = [link.id for link in chain.links if link.tools is not None]
            return f"of {', '.join(bound)}" if bound else "the chain has none"
        case _:
            return ""
