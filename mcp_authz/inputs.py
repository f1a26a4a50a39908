"""What is kept of a decided call so that another policy can decide it again, and the decision that this comes to.

It has the call's arguments: it is only ever written sealed, and never into the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from mcp_authz.errors import InputError
from mcp_authz.evaluation import Asked
from mcp_authz.model import (
    Approval,
    Assurance,
    Classification,
    Decision,
    Deny,
    Hazard,
    HoldId,
    Obligation,
    Tool,
    ToolName,
)
from mcp_authz.policy.engine import PolicyAnswer, PolicyInput
from mcp_authz.policy.shadow import Gist
from mcp_authz.principals import Authentication
from mcp_authz.rules.decision import ApprovalFloor, decide
from mcp_authz.rules.obligation import Means, within_means
from mcp_authz.rules.scope import Scope

_APPROVAL: Final = "approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one call was decided upon, and what that came to: by policy and its obligations, before anything else."""

    document: PolicyInput = field(repr=False)
    needed: tuple[Scope, ...]  # the scopes of the call
    declared: tuple[str, ...]  # the attributes that the tool's entry declares, absent ones included
    own_rule: str | None  # the approval rule of the tool's entry
    gist: Gist
    because: tuple[str, ...]
    asks: tuple[Obligation, ...]  # what policy asked for beside its permit, approvals included

    @property
    def agent(self) -> str:
        """Who called."""
        return str(self.document["actor"]["id"])

    @property
    def tool(self) -> str:
        """What was called, by the name that callers use."""
        return str(self.document["resource"]["tool"])


def kept(asked: Asked, tool: Tool) -> dict[str, Any]:
    """Return what is kept of a call that policy was asked about, JSON values only; `read_kept` reads it."""
    decision, gist = asked.decided, Gist.of(asked.decided)
    asks = () if isinstance(decision, Deny) else decision.obligations
    return {
        "document": asked.document,
        "needed": list(asked.needed),
        "declared": sorted(tool.classification.resource),
        "own_rule": tool.classification.approval,
        "outcome": gist.outcome,
        "reason": gist.reason,
        "rules": list(gist.rules),
        "because": list(decision.because),
        "asks": [[one.kind, one.argument] for one in asks],
    }


def read_kept(value: Mapping[str, Any]) -> Kept:
    """Return what was kept.

    Raises:
        InputError: another version of the gateway kept it.
    """
    try:
        asks = tuple(Obligation(kind=kind, argument=argument) for kind, argument in value["asks"])
        carried = frozenset((one.kind, one.argument) for one in asks if one.kind != _APPROVAL)
        outcome = value["outcome"]
        return Kept(
            document=value["document"],
            needed=tuple(Scope(scope) for scope in value["needed"]),
            declared=tuple(value["declared"]),
            own_rule=value["own_rule"],
            gist=Gist(
                outcome=outcome,
                reason=value["reason"],
                rules=tuple(value["rules"]),
                obligations=carried if outcome == "permit" else frozenset(),
            ),
            because=tuple(value["because"]),
            asks=asks,
        )
    except (KeyError, TypeError, ValueError):
        raise InputError("the recorded input is of another version") from None


def decided_again(it: Kept, answer: PolicyAnswer, *, floor: ApprovalFloor, means: Means) -> Decision:
    """Return what this answer comes to for the same call, with the same approval, at the same time."""
    document = it.document
    arguments, resource = document["arguments"], document["resource"]
    decision = decide(
        call_digest=b"",
        tool=_tool(it),
        answer=answer,
        approval=_approval(document),
        floor=floor,
        authentication=_authentication(document),
        at=_time(document["time"]),
    )
    return within_means(decision, means, arguments=arguments, resource=resource)


def _tool(it: Kept) -> Tool:
    """The tool, as far as deciding looks at it."""
    resource = it.document["resource"]
    return Tool(
        name=ToolName(it.tool),
        server=resource["server"],
        tool=resource["tool"],
        environment=resource["environment"],
        definition={},
        digest=b"",
        classification=Classification(
            action=it.document["action"], hazard=Hazard(resource["hazard"]), scopes=(), approval=it.own_rule
        ),
    )


def _approval(document: PolicyInput) -> Approval | None:
    given = document["approval"]
    if given is None:
        return None
    return Approval(
        hold=HoldId(""),
        rules=tuple(given["rules"]),
        assurance=next(level for level in Assurance if level.label == given["assurance"]),
        by=(),
        approved_at=_time(given["approved_at"]),
    )


def _authentication(document: PolicyInput) -> Authentication | None:
    person = document["on_behalf_of"]
    if person is None or person["auth"] is None:
        return None
    auth = person["auth"]
    return Authentication(at=_time(auth["at"]), amr=tuple(auth["amr"]), issuer=person["issuer"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
