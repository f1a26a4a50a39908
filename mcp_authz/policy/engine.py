"""The port that policy engines implement: one input document in, one answer out, never a raise (DESIGN section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mcp_authz.model import Obligation, RuleId

PolicyInput = Mapping[str, Any]
"""The document of `policy.document.policy_input`: JSON values only, the same for every engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswer:
    """What a policy says about one input.

    A permit may carry obligations. An approval that the input lacks is the obligation `approval` with the name of its
    rule: the call would be permitted once that rule is met. `errors` is never empty when the engine could not decide,
    and then `permit` is False.
    """

    permit: bool
    because: tuple[RuleId, ...]
    obligations: tuple[Obligation, ...] = ()
    errors: tuple[str, ...] = ()
    revision: str = ""  # of the policy that decided, where an engine elsewhere tells it; its own word


class PolicyEngine(Protocol):
    """A policy decision point."""

    @property
    def digest(self) -> str:
        """Hex SHA-256 over the policy set; changes whenever an answer could."""

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        """Return the answer; whatever goes wrong is an answer with `permit=False` and `errors`, never a raise."""


def current(engine: PolicyEngine) -> PolicyEngine:
    """Return the engine that answers now: whoever asks twice, or writes down what was asked, takes it once.

    An engine that stands for others, as `policy.live.LivePolicy` does, says which one by `current`.
    """
    held: PolicyEngine = getattr(engine, "current", engine)
    return held
