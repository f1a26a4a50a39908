"""What is decided about one call, from facts alone: deny beats hold beats permit, and silence is a denial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mcp_authz.errors import InputError
from mcp_authz.model import Approval, ApprovalRule, Decision, Deny, Hazard, Hold, Obligation, Permit, RuleId, Tool
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.principals import Authentication
from mcp_authz.rules.freshness import demanded, is_fresh
from mcp_authz.rules.obligation import unreadable

REASONS: Final[dict[str, str]] = {
    "unknown_tool": "There is no such tool. List the tools to see what you can call.",
    "unknown_task": "There is no such task of yours, or its time is up. Make the call again if it is still needed.",
    "quarantined": (
        "This tool is in quarantine: its definition changed since it was accepted. Do not retry; an operator has to "
        "look at the change and accept it."
    ),
    "switched_off": (
        "This tool was switched off for everybody. Do not retry; go on without it, and tell the person you act for."
    ),
    "stopped": (
        "The gateway forwards no calls at present: an operator has stopped all of them. Nothing was run. Do not retry; "
        "stop here, and tell the person you act for."
    ),
    "no_session": (
        "You have no open session with a person, so you cannot call tools. Ask for one with authz__request_session, "
        "or name the session in your sign-in assertion if you have several."
    ),
    "session_over": "Your session has ended or was idle for too long. Ask for a new one with authz__request_session.",
    "consent_over": (
        "What the person you act for agreed to was ended, or not used for too long. Do not retry; tell them that your "
        "client has to connect again."
    ),
    "whose_session": (
        "You act for several people, so nobody can say whom to ask. Name the person by the claim `subject` when you "
        "sign in."
    ),
    "child": (
        "You are a child of another agent and work in what it delegated to you; you can ask nobody for more. Report to "
        "the agent that named you."
    ),
    "client": (
        "You ask for no session here: the person you act for agrees in their browser. Call the tool that you need, and "
        "your client sends them there by itself."
    ),
    "impersonating": "You act in a person's place, and so you can ask for no other session. Use what this one permits.",
    "nobody_to_ask": "The person whom you could ask for a session is gone. An operator has to look at it.",
    "proof_required": (
        "This tool takes only calls that are signed one by one with the agent's own key, and this one is not. Do not "
        "retry it like this. `mcp-authz connect` and its client library sign every call by themselves: tell the person "
        "who set up your client to use one of them."
    ),
    "proof_invalid": (
        "The signed proof that came with this call is not one of it. Sign exactly this call, with the key that you "
        "signed in with, for this gateway, and send it at once; or leave the proof out where none is needed."
    ),
    "links_invalid": "The signed links that came with this request are not those of your access token. Sign in again.",
    "arguments": "The arguments do not fit the tool's input schema.",
    "scope_arguments": (
        "An argument that decides which permission is needed has a form that is not allowed: "
        "use 1 to 128 of letters, digits, dot, underscore and hyphen."
    ),
    "insufficient_scope": "Your authority does not cover this call. Do not retry; ask for a session that includes it.",
    "step_up_limit": (
        "The person you act for has been asked for more too often in the last hour, and is not asked again now. Do not "
        "retry; go on without this call, and tell them what you could not do."
    ),
    "stale_sign_in": (
        "Policy asks for a person who has signed in a short while ago, and your session does not stand on such a "
        "sign-in. Do not retry. Tell the person you act for: they have to sign in and start a session for this, or do "
        "it themselves."
    ),
    "constraint": "Your delegation does not permit these arguments. Stay within what was delegated to you.",
    "budget": "The call budget of your session or delegation is used up. Ask the person you act for for more.",
    "rate_limited": "Policy permits only so many of these calls in a time. Nothing was run; wait, and call again.",
    "spent": (
        "This call would take more than is left of its budget. Nothing was run. Do not retry it unchanged; ask for "
        "less, or tell the person you act for."
    ),
    "policy": "Policy does not permit this call. Do not retry it unchanged.",
    "policy_error": "The policy could not be decided, so the call is denied. An operator has to look at it.",
    "obligation": "Policy asks for something that this gateway cannot do, so the call is denied.",
    "approval_denied": "A person was asked and said no. Do not ask again for the same call.",
    "sent_back": "A person was asked and sent this call back. Change it as they say, and make that call instead.",
    "approval_cancelled": "This call was called off while it waited. Do not repeat it unless you are asked to.",
    "approval_expired": "Nobody approved this call in time. Call again if it is still needed.",
    "approval_used": "This approval has been used; it was good for one run. A new call needs a new approval.",
    "too_many_holds": "Too many of your calls wait for approval. Wait until some are answered.",
    "cannot_be_shown": (
        "This call cannot be shown to a person in full, so nobody can approve it. Send fewer or shorter arguments."
    ),
    "revoked": "Your authority for this call was withdrawn.",
    "changed": "The rules changed while this call was decided. Call again.",
    "replayed": "This proof, or this requestState, has been used before; each counts once. Nothing was run.",
    "header_mismatch": "A header of the request contradicts an argument of the call.",
    "unknown_hold": "No held call that waits for your answer has this id, or only one whose id begins like this.",
    "cannot_decide": "This held call cannot be answered from here.",
    "request_state": "The requestState is not valid for you and this call. Call again without it.",
}
"""Reason codes and the fixed text that a caller sees for each; a model must be able to act on it."""

DPOP_REQUIRED: Final = (
    "This tool takes only access tokens that are bound to a key (DPoP), and this one is a bearer token. Do not retry "
    "like this. `mcp-authz connect` binds its tokens by itself: tell the person who set up your client."
)
"""What is said for `proof_required` where a token of another kind would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalFloor:
    """The approval rules of the configuration: by name, and which of them each hazard demands."""

    rules: Mapping[str, ApprovalRule]
    by_hazard: Mapping[Hazard, str]


def required_rules(tool: Tool, obligations: tuple[Obligation, ...], floor: ApprovalFloor) -> tuple[str, ...]:
    """Every approval rule that must be met: the hazard's, the tool's own, and policy's; policy can only add."""
    names = [
        floor.by_hazard.get(tool.classification.hazard),
        tool.classification.approval,
        *(o.argument for o in obligations if o.kind == "approval"),
    ]
    return tuple(dict.fromkeys(name for name in names if name))


def stale_sign_in(answer: PolicyAnswer, authentication: Authentication | None, at: datetime) -> Deny | None:
    """The denial of what policy permits only to a person who signed in lately, where that is not known."""
    try:
        longest = demanded(answer.obligations)
    except InputError as error:
        return Deny(code="obligation", because=answer.because, detail=f"step_up: {error}")
    if longest is None or is_fresh(authentication, longest, at):
        return None
    seconds = int(longest.total_seconds())
    shown = "no sign-in is known" if authentication is None else f"it was at {authentication.at:%Y-%m-%dT%H:%M:%SZ}"
    detail = f"signed in no longer than {seconds} s ago is asked for; {shown}"
    return Deny(code="stale_sign_in", because=answer.because, detail=detail, max_age=longest)


def decide(
    *,
    call_digest: bytes,
    tool: Tool,
    answer: PolicyAnswer,
    approval: Approval | None,
    floor: ApprovalFloor,
    authentication: Authentication | None,
    at: datetime,
) -> Decision:
    """Steps 12 and 13: what policy, its obligations and the approval floor make of a call that passed steps 7 to 11.

    `authentication` is how the person signed in to agree to what the call stands on; None where nobody did.
    """
    if answer.errors:
        return Deny(code="policy_error", because=answer.because, detail="; ".join(answer.errors))
    if not answer.permit:
        return Deny(code="policy", because=answer.because or (RuleId("no-policy-permits"),))
    if (wrong := unreadable(answer.obligations)) is not None:
        return Deny(code="obligation", because=answer.because, detail=wrong)
    if (stale := stale_sign_in(answer, authentication, at)) is not None:
        return stale
    needed = required_rules(tool, answer.obligations, floor)
    missing = [name for name in needed if name not in floor.rules]
    if missing:
        return Deny(code="obligation", because=answer.because, detail=f"unknown approval rules: {', '.join(missing)}")
    given = set(approval.rules) if approval is not None else set()
    if not given.issuperset(needed):
        return Hold(
            call_digest=call_digest,
            rules=tuple(floor.rules[name] for name in needed),
            because=answer.because,
            obligations=answer.obligations,
        )
    return Permit(
        call_digest=call_digest,
        approval=approval.hold if approval is not None and needed else None,
        because=answer.because,
        obligations=answer.obligations,
    )
