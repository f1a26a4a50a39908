"""Answering held calls from a client of the approver's own: who may, what they are asked, and how the answer reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final, Literal

from mcp_authz import limits
from mcp_authz.model import HeldCall, HoldState
from mcp_authz.principals import Caller, Mode, Person
from mcp_authz.rules import session_request
from mcp_authz.rules.approval_prompt import narrowing, read_terms
from mcp_authz.rules.display import displayed, for_whom, visible
from mcp_authz.rules.hold import is_eligible
from mcp_authz.rules.scope import DECIDE, Scope

LIST: Final = "held-calls"
ANSWER_ONE: Final = "decide-held-call"
HOLD: Final = "hold"

PROMPTS: Final[tuple[Mapping[str, Any], ...]] = (
    {
        "name": LIST,
        "title": "Held calls",
        "description": "The calls of agents that wait for your answer.",
    },
    {
        "name": ANSWER_ONE,
        "title": "Decide a held call",
        "description": "Shows you one held call whole, here or on its page, and takes your answer.",
        "arguments": [{"name": HOLD, "description": "Its id, or the beginning of it.", "required": True}],
    },
)
"""The gateway's own prompts; no server's has such a name, for theirs begin with `SERVER__`."""

APPROVE: Final = "approve"
DENY: Final = "deny"
SEND_BACK: Final = "send back"

_SHOWN_AT_ONCE: Final = 50  # held calls in one list


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAnswer:
    """What a person answered in a client of theirs."""

    approve: bool
    sent_back: bool = False
    reason: str = ""
    terms: Mapping[str, Any] = field(default_factory=dict)


def may_decide(caller: Caller) -> bool:
    """Whether this is the client of a person who signed in to it themselves, and let it answer held calls for them."""
    return was_given(caller, DECIDE)


def was_given(caller: Caller, scope: Scope) -> bool:
    """Whether this is the client of a person who signed in to it themselves, and gave it this personal scope.

    Token, link and grant each have the scope by its own name. What an agent with a key has, or what was delegated,
    counts for nothing here.
    """
    chain, session, grant, token = caller.chain, caller.session, caller.grant, caller.token
    if chain is None or session is None or grant is None or caller.person is None:
        return False
    if caller.agent.client is None or caller.key is not None or caller.agent.owner != caller.person.name:
        return False
    if session.mode is not Mode.DELEGATED or len(chain.links) != 1 or token.subject != f"user:{caller.person.name}":
        return False
    return scope in token.scope and scope in chain.leaf.scope and scope in grant.scope


def waits_for(person: Person, held: HeldCall) -> bool:
    """Whether the hold waits for an answer of this person: a rule names them, and they have not spoken."""
    if held.state is not HoldState.PENDING or any(verdict.person == person.name for verdict in held.verdicts):
        return False
    return any(is_eligible(person, held, rule) for rule in held.rules)


def found(text: object, waiting: Iterable[HeldCall]) -> HeldCall | None:
    """The one hold with this id, or whose id alone begins like this."""
    if not isinstance(text, str) or not text:
        return None
    matching = [held for held in waiting if held.id.startswith(text)]
    exact = [held for held in matching if held.id == text]
    return (exact or matching)[0] if exact or len(matching) == 1 else None


def form(held: HeldCall, *, may_approve: bool, page: str) -> dict[str, Any]:
    """The elicitation by which an approver is shown the whole call and asked what becomes of it (form mode)."""
    choices = [APPROVE, DENY, SEND_BACK] if may_approve else [DENY, SEND_BACK]
    wanted = any(rule.reason for rule in held.rules)
    why = "To approve, say why. " if may_approve and wanted else ""
    elsewhere = "" if may_approve else f"\n\nTo approve it, open {page} : its rules ask for more than this client."
    properties = {
        "answer": {
            "type": "string",
            "title": "Your answer",
            "enum": choices,
            "description": "To send it back means no, and that the agent is to make another call instead.",
        },
        **(narrowing(held) if may_approve else {}),
        "reason": {
            "type": "string",
            "title": "Reason",
            "maxLength": limits.REASON,
            "description": f"{why}To send it back, say what the call should be. The agent reads it unless you approve.",
        },
    }
    return {
        "mode": "form",
        "message": f"What becomes of this call?\n\n{displayed(held)}{elsewhere}",
        "requestedSchema": {"type": "object", "properties": properties, "required": ["answer"]},
    }


def read_answer(held: HeldCall, answer: Any) -> ClientAnswer | None:
    """What the person answered; None when they closed the question, or answered nothing that was asked."""
    if not isinstance(answer, dict):
        return None
    if answer.get("action") == "decline":
        return ClientAnswer(approve=False)
    content = answer.get("content")
    if answer.get("action") != "accept" or not isinstance(content, dict):
        return None
    said, reason = content.get("answer"), content.get("reason", "")
    if said not in (APPROVE, DENY, SEND_BACK) or not isinstance(reason, str):
        return None
    return ClientAnswer(
        approve=said == APPROVE,
        sent_back=said == SEND_BACK,
        reason=reason[: limits.REASON],
        terms=read_terms(held, answer) if said == APPROVE else {},
    )


def listed(person: Person, waiting: Iterable[HeldCall], *, page: str) -> str:
    """What waits for this person, a line for each call; nothing in it is the agent's own text."""
    lines = [_line(held) for held in waiting]
    if not lines:
        return f"No call waits for {person.name}."
    count = "1 call waits" if len(lines) == 1 else f"{len(lines)} calls wait"
    more = [] if len(lines) <= _SHOWN_AT_ONCE else [f"and {len(lines) - _SHOWN_AT_ONCE} more: {page}"]
    end = f"{person.name} answers one with the prompt {ANSWER_ONE}, or at {page} . A model cannot answer them."
    return "\n".join([f"{count} for {person.name}:", *lines[:_SHOWN_AT_ONCE], *more, end])


def _line(held: HeldCall) -> str:
    until = f"until {held.expires_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f"- {held.id}: {_what(held)}, for {for_whom(held)}; {until}"


def _what(held: HeldCall) -> str:
    if held.tool == session_request.NAME:
        return f"{held.actor} asks for a session"
    return f"{held.actor} asks to run {visible(held.tool)} ({held.hazard.value})"


Came = Literal["answered", "closed", "opened", "not opened", "elsewhere"]


def told(held: HeldCall, came: Came, *, page: str) -> str:
    """What became of the hold, for the person who was asked and the model that reads it with them."""
    what = f"held call {held.id} ({_what(held)})"
    match held.state:
        case HoldState.PENDING if came == "answered":
            return f"Your answer to {what} is kept. It waits for another person, too."
        case HoldState.PENDING if came == "elsewhere":
            return f"Your client cannot show {what}. Open {page} to see it whole and to answer it."
        case HoldState.PENDING if came == "opened":
            return f"The page of {what} is open. It waits for your answer there: {page}"
        case HoldState.PENDING:
            return f"Nothing was answered: {what} still waits. Its page is {page}"
        case HoldState.APPROVED | HoldState.CLAIMED | HoldState.DONE | HoldState.FAILED | HoldState.UNKNOWN:
            runs = "It runs once, when the agent collects it" if held.state is HoldState.APPROVED else "It has started"
            return f"The {what} is approved. {runs}."
        case HoldState.DENIED:
            sent = any(verdict.sent_back for verdict in held.verdicts)
            return f"The {what} is {'sent back' if sent else 'denied'}. It does not run."
        case HoldState.EXPIRED | HoldState.CANCELLED:
            return f"The {what} is over ({held.state.value}). It does not run."
