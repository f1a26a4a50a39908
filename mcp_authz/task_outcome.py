"""What the call of a task came to: as it is kept beside its hold, and as its owner may read it by now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from mcp_authz import audit
from mcp_authz.catalog import known_to
from mcp_authz.forwarding import INTERNAL_ERROR
from mcp_authz.holding import why_ended
from mcp_authz.model import Deny, HeldCall, HoldState, RuleId, ToolCall
from mcp_authz.outcome import Broken, Forwarded, Outcome, Refused, Replayed
from mcp_authz.parts import Parts
from mcp_authz.principals import Caller
from mcp_authz.rules import session_request
from mcp_authz.rules.redaction import Withheld
from mcp_authz.rules.task import Task

_PASSING: Final = frozenset(
    {
        "replayed",
        "links_invalid",
        "proof_invalid",
        "rate_limited",
        "approval_used",
        "revoked",
        "session_over",
        "stopped",
    }
)


def is_passing(deny: Deny) -> bool:
    """Whether only this poll is refused: the call still waits for one that brings what this one lacked, or is later."""
    return bool(deny.missing) or deny.max_age is not None or deny.needs is not None or deny.code in _PASSING


def is_news(outcome: Broken | Forwarded | Refused, held: HeldCall) -> bool:
    """Whether the hold alone would not say this about its call."""
    match outcome:
        case Forwarded():
            return held.state is not HoldState.DONE
        case Broken():
            return True
        case Refused():
            return held.state in {HoldState.PENDING, HoldState.APPROVED, HoldState.CLAIMED, HoldState.FAILED}


def kept(outcome: Broken | Forwarded | Refused) -> Mapping[str, Any]:
    """The outcome as JSON."""
    match outcome:
        case Forwarded(result=result):
            return {"result": dict(result)}
        case Broken(rpc_code=code, message=message, data=data, may_have_run=may_have_run):
            return {"broken": {"rpc_code": code, "message": message, "data": data, "may_have_run": may_have_run}}
        case Refused(deny=deny):
            because, told = list(deny.because), {"code": deny.code, "detail": deny.detail, "said": deny.said}
            return {"refused": {**told, "because": because}}


def came_to(call_id: str, task: Task, held: HeldCall) -> Outcome:
    """What the call came to that is over: what was kept of it, or what its hold says."""
    match task.outcome:
        case {"result": result}:
            return Forwarded(call_id=call_id, result=result)
        case {"broken": broken}:
            return Broken(call_id=call_id, **broken)
        case {"refused": refused}:
            because = tuple(RuleId(rule) for rule in refused["because"])
            return Refused(call_id=call_id, deny=Deny(**{**refused, "because": because}))
    if held.state is HoldState.DONE and held.result is not None:
        return Forwarded(call_id=call_id, result=held.result)
    if held.state in {HoldState.DENIED, HoldState.EXPIRED, HoldState.CANCELLED}:
        return Refused(call_id=call_id, deny=why_ended(held))
    return Replayed(call_id=call_id, held=held)


class TaskOutcomes:
    """Reads results again, through what policy lets their owner see by now."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def as_seen_now(self, ran: Forwarded, caller: Caller, task: Task) -> Forwarded | Refused | Broken:
        """The result as it may be read now, and a record that it was; or why it may not be read any more."""
        name, parts = str(task.call.get("name")), self._parts
        if name == session_request.NAME:  # it has no tool server, and says only what was agreed to
            return ran
        tool = known_to(caller, parts.catalog.find(name))
        if tool is None:
            return Refused(call_id=ran.call_id, deny=Deny(code="unknown_tool", because=(RuleId("unknown-tool"),)))
        call = ToolCall(tool=tool, arguments=task.call.get("arguments", {}))
        verdict = await parts.evaluator.evaluate(caller, call, approval=None, at=parts.clock())
        what = audit.what(call, verdict.resource, parts.evidence)
        if isinstance(verdict.decision, Deny):
            decided = audit.decided(verdict.decision, policy=verdict.policy)
        else:
            decided = {"decision": "replay", "hold": task.hold, "policy": verdict.policy}
        await parts.store.append(audit.decision_event(ran.call_id, parts.clock(), audit.who(caller), what, decided))
        if isinstance(verdict.decision, Deny):
            return Refused(call_id=ran.call_id, deny=verdict.decision)
        redacting = parts.obligations.redacting(verdict.decision)
        try:
            return ran if redacting is None else replace(ran, result=await redacting.members(ran.result))
        except Withheld as error:
            text = f"the result is withheld: {error}"
            return Broken(call_id=ran.call_id, rpc_code=INTERNAL_ERROR, message=text, data=None, may_have_run=True)
