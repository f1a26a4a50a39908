"""What is written about a call; how it reads is `rules.sentence`."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.model import Approval, Deny, Hold, Observed, Permit, ToolCall
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.principals import Caller
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.claimed import claimed
from mcp_authz.rules.obligation import carried_out
from mcp_authz.rules.sentence import sentence
from mcp_authz.step_ups import StepUp
from mcp_authz.store.ports import Event

__all__ = [
    "Evidence",
    "claimed",
    "decided",
    "decision_event",
    "outcome_event",
    "revision",
    "sent_back",
    "sentence",
    "what",
    "who",
]

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

Values = Callable[[Mapping[str, Any], Callable[[object], str]], Mapping[str, Any]]
"""Shows of arguments what may be recorded, given what makes the digests of the others (`argument_values`)."""


class Evidence:
    """Digests of values that must not be guessed from the log: HMAC-SHA-256 under a key of this installation."""

    def __init__(self, key: bytes, *, values: Values | None = None) -> None:
        """`values` is what records show of arguments' values; None: nothing."""
        self._mac = hmac.new(key, digestmod="sha256")  # copied for each digest, so that the key is taken in once
        self._values = values

    def __repr__(self) -> str:
        return "<redacted>"

    def digest(self, value: object) -> str:
        """Hex HMAC over the canonical form of a JSON value."""
        return self._hex(canonical(value))

    def values(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The member that shows values of arguments, where the operator wants it; the store redacts it."""
        if self._values is None or not arguments:
            return {}
        return {"argument_values": self._values(arguments, self.digest)}

    def digest_of_result(self, result: object) -> str:
        """Hex HMAC over a tool server's result, which need not have a canonical form (it may hold any finite number).

        Raises:
            InputError: it is no JSON: some parsers let NaN and infinity through.
        """
        try:
            body = _ENCODER.encode(result).encode()
        except (TypeError, ValueError, RecursionError):
            raise InputError("the result cannot be written as JSON") from None
        return self._hex(body)

    def _hex(self, body: bytes) -> str:
        mac = self._mac.copy()
        mac.update(body)
        return mac.hexdigest()


def who(caller: Caller) -> dict[str, Any]:
    """The members of a record that say who acted, for whom, by which authority."""
    fields: dict[str, Any] = {
        "actor": f"agent:{caller.agent.name}",
        "key": caller.key,
        "client": caller.token.client_id,
        "proof": caller.proof.name.lower(),
        "token": caller.token.id,
    }
    if caller.session is not None and caller.chain is not None:
        fields |= {
            "subject": caller.session.principal,
            "session": caller.session.id,
            "purpose": caller.session.purpose,
            "mode": caller.session.mode.value,
            "chain": [f"agent:{name}" for name in caller.chain.agents],
            "link": caller.chain.leaf.id,
            "links": [link.id for link in caller.chain.links],
        }
    if caller.peer is not None:
        fields["peer"] = caller.peer
    return fields


def what(call: ToolCall, resource: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The members that say what was asked: attributes the operator declared, argument names, and one keyed digest."""
    return {
        "method": call.tool.method,
        "tool": call.tool.name,
        "server": call.tool.server,
        "action": call.tool.classification.action,
        "environment": call.tool.environment,
        "hazard": call.tool.classification.hazard.value,
        "resource": {name: _bounded(value, evidence) for name, value in resource.items()},
        "arguments": _names(call),
        "arguments_digest": evidence.digest(call.arguments),
        **evidence.values({name: call.arguments[name] for name in _known(call)}),
        "definition": call.tool.digest.hex(),
    }


def _names(call: ToolCall) -> list[str]:
    """The names of the arguments that the tool's definition has, and how many others there are."""
    known = _known(call)
    left_out = len(call.arguments) - len(known)
    return known if not left_out else [*known, f"({left_out} more)"]


def _known(call: ToolCall) -> list[str]:
    """The arguments that the tool's definition names, as many as are recorded.

    Any other name the caller made up: it could be a secret, and many or long ones would fill the log.
    """
    schema = call.tool.definition.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    declared = properties if isinstance(properties, Mapping) else {}
    return sorted(it for it in call.arguments if it in declared and len(it) <= limits.NAME)[: limits.NAMES_RECORDED]


def _bounded(value: object, evidence: Evidence) -> object:
    return value if isinstance(value, int | str) and len(str(value)) <= 256 else f"digest:{evidence.digest(value)}"


def decided(decision: Permit | Hold | Deny, *, policy: str, approval: Approval | None = None) -> dict[str, Any]:
    """The members that say what was decided, by which rules of which policy."""
    fields: dict[str, Any] = {"because": list(decision.because), "policy": policy}
    match decision:
        case Permit(observed=observed, obligations=obligations):
            fields["decision"] = "permit"
            if asked := carried_out(obligations):
                fields["obligations"] = [f"{one.kind}({one.argument})" for one in asked]
            if observed is not None:
                fields["observed"] = _observed(observed)
            if approval is not None:
                fields["approval"] = {
                    "hold": approval.hold,
                    "rules": list(approval.rules),
                    "assurance": approval.assurance.label,
                    "by": [f"user:{name}" for name in approval.by],
                }
        case Hold(rules=rules):
            fields |= {"decision": "hold", "rules": [rule.name for rule in rules]}
        case Deny(code=code, detail=detail, missing=missing, max_age=max_age):
            fields |= {"decision": "deny", "reason": code, "detail": detail[: limits.DETAIL_RECORDED]}
            if missing:
                fields["missing"] = list(missing)
            if max_age is not None:
                fields["max_age"] = int(max_age.total_seconds())
    return fields


def revision(answer: PolicyAnswer | None) -> dict[str, Any]:
    """The member that says which revision of a policy elsewhere decided, in the words of whoever decided."""
    return {} if answer is None or not answer.revision else {"policy_revision": answer.revision}


def sent_back(asked: StepUp) -> dict[str, Any]:
    """The member that says for which scopes a person will be asked; none: only to sign in again."""
    return {"sent_back_for": list(asked.scopes)}


def _observed(it: Observed) -> dict[str, Any]:
    fields: dict[str, Any] = {"would": it.would, "reason": it.reason, "because": list(it.because)}
    if it.rules:
        fields["rules"] = list(it.rules)
    return fields | ({"detail": it.detail[: limits.DETAIL_RECORDED]} if it.detail else {})


def decision_event(call_id: str, at: datetime, *parts: Mapping[str, Any]) -> Event:
    """The decision record of one call."""
    fields: dict[str, Any] = {}
    for part in parts:
        fields |= part
    return Event(kind="decision", at=at, call=call_id, fields=fields)


def outcome_event(
    call_id: str,
    *,
    started: datetime,
    ended: datetime,
    outcome: str,
    caller: Caller,
    call: ToolCall,
    result: str | None,
    hold: str | None = None,
    redacted: int | None = None,
    ended_by: str | None = None,
) -> Event:
    """The outcome record of one forwarded call: `done`, `tool-error`, `error` or `unknown`, and how long it took.

    `redacted` is how much of what was said was taken out; None where nothing had to be. `ended_by` says who
    or what cut the call short, where the gateway knows: `revocation`, `caller` or `shutdown`.
    """
    fields: dict[str, Any] = {
        "outcome": outcome,
        "actor": f"agent:{caller.agent.name}",
        "tool": call.tool.name,
        "milliseconds": round((ended - started).total_seconds() * 1000),
    }
    if caller.session is not None:  # so that whoever looks for a session or a person finds how its calls ended
        fields |= {"subject": caller.session.principal, "session": caller.session.id}
    if hold is not None:
        fields["hold"] = hold
    if result is not None:
        fields["result_digest"] = result
    if redacted is not None:
        fields["redacted"] = redacted
    if ended_by is not None:
        fields["ended_by"] = ended_by
    return Event(kind="outcome", at=ended, call=call_id, fields=fields)
