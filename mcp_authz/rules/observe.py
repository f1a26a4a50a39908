"""Observe mode: what a server's first day permits although it would be denied or held, and what it never does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from mcp_authz.model import Classification, Decision, Deny, Hazard, Hold, Observed, Permit, RuleId, Tool
from mcp_authz.rules.obligation import carried_out

OBSERVED_DENIALS: Final = frozenset({"insufficient_scope", "constraint", "policy"})
"""Denials by scopes, constraints and policy; whatever cannot be decided stays denied, and so does all the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observing:
    """A server is in observe mode; of its destructive tools, those with exactly these names are observed too."""

    destructive: frozenset[str] = frozenset()


def is_observed(observing: Observing | None, tool: str, classification: Classification) -> bool:
    """Whether calls of this tool are observed: never what destroys, or nobody classified, unless it is named."""
    if observing is None:
        return False
    return classification.hazard is not Hazard.DESTRUCTIVE or tool in observing.destructive


def observe(decision: Decision, *, tool: Tool, call_digest: bytes, earlier: Deny | None = None) -> Decision:
    """Return a permit that says what would have been decided, or what was decided where that is not observed.

    `earlier` is the denial that an earlier step came to; it was passed over so that policy could be asked.
    """
    if not tool.observed or (isinstance(decision, Deny) and decision.code not in OBSERVED_DENIALS):
        return decision
    if earlier is not None and earlier.code not in OBSERVED_DENIALS:
        return earlier
    asked = () if isinstance(decision, Deny) else carried_out(decision.obligations)  # it runs, so they are carried out
    would = earlier if earlier is not None else decision
    match would:
        case Permit():
            return would
        case Hold(because=because, rules=rules):
            seen = Observed(would="hold", reason="approval", because=because, rules=tuple(rule.name for rule in rules))
        case Deny(code=code, because=because, detail=detail):
            seen = Observed(would="deny", reason=code, because=because, detail=detail)
        case _:
            assert_never(would)
    because = (RuleId("observe-mode"),)
    return Permit(call_digest=call_digest, approval=None, because=because, obligations=asked, observed=seen)
