"""What is asked for whatever policy says: the approval rules of the configuration, and whether they can be met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mcp_authz.model import ApprovalRule, Hazard
from mcp_authz.policy.lint import Finding
from mcp_authz.policy.lint_static import Around
from mcp_authz.rules.decision import ApprovalFloor


def look_at_approval(floor: ApprovalFloor, around: Around) -> Iterator[Finding]:
    """What holds calls though policy permits them, and rules that nobody there could meet."""
    for hazard, name in floor.by_hazard.items():
        text = f"every {hazard.value} call waits for [approval.{name}], whatever policy permits"
        yield Finding(severity="note", place="", text=f"{text}{_how_many(hazard, around)}")
    for tool in around.tools or ():
        own = tool.classification.approval
        if own is not None and own != floor.by_hazard.get(tool.classification.hazard):
            yield Finding(severity="note", place="", text=f"tool `{tool.name}` waits for [approval.{own}] too")
    for rule in floor.rules.values():
        if (problem := _unmet(rule, around.people)) is not None:
            yield Finding(severity="warning", place="", text=f"[approval.{rule.name}]: {problem}")


def _how_many(hazard: Hazard, around: Around) -> str:
    if around.tools is None:
        return ""
    count = sum(tool.classification.hazard is hazard for tool in around.tools)
    return f": {count} {'tool' if count == 1 else 'tools'}"


def _unmet(rule: ApprovalRule, people: Mapping[str, frozenset[str]] | None) -> str | None:
    """Why nobody can meet a rule; None where somebody can, or where it depends on the call."""
    if people is None or any(by in ("subject", "owner") for by in rule.by):
        return None
    named = {by.removeprefix("user:") for by in rule.by if by.startswith("user:")}
    groups = {by.removeprefix("group:") for by in rule.by if by.startswith("group:")}
    could = {name for name, of in people.items() if name in named or of & groups}
    if len(could) >= rule.quorum:
        return None
    who = ", ".join(rule.by)
    return f"nobody can meet it: it needs {rule.quorum} of {who}, and of them there are {len(could)}"
