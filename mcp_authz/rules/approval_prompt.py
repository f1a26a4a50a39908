"""The question that a client puts to its person about a held call, and how its answer reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp_authz.model import HeldCall
from mcp_authz.rules import session_request
from mcp_authz.rules.display import displayed, for_whom, visible

ANSWER: Final = "approval"
"""The key of our question among `inputRequests`."""

ELICIT: Final = "elicitation/create"

_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "approve": {"type": "boolean", "title": "Run this call once", "description": "No means: it does not run."}
    },
    "required": ["approve"],
}


def question(held: HeldCall) -> dict[str, Any]:
    """The elicitation by which a person is asked in a client of theirs (form mode)."""
    if held.tool == session_request.NAME:
        return {"mode": "form", "message": f"Give this session?\n\n{displayed(held)}", "requestedSchema": _terms(held)}
    return {"mode": "form", "message": f"Approve this call?\n\n{displayed(held)}", "requestedSchema": _SCHEMA}


def invitation(held: HeldCall, url: str) -> dict[str, Any]:
    """The elicitation by which the subject is sent to the page (URL mode); that it was opened is no answer."""
    asks = "asks for a session" if held.tool == session_request.NAME else f"asks to run {visible(held.tool)}"
    message = f"{held.actor} {asks}, for {for_whom(held)}. Open the page to see it whole, and to approve or deny it."
    return {"mode": "url", "message": message, "url": url, "elicitationId": held.id}


def _terms(held: HeldCall) -> dict[str, Any]:
    approve = {"type": "boolean", "title": "Give the session", "description": "No means: there is none."}
    return {"type": "object", "properties": {"approve": approve, **narrowing(held)}, "required": ["approve"]}


def narrowing(held: HeldCall) -> dict[str, Any]:
    """The fields by which a person may give less than was asked for; none where there is nothing to narrow."""
    if held.tool != session_request.NAME:
        return {}
    minutes = held.arguments["minutes"]
    return {
        "minutes": {
            "type": "integer",
            "title": "For how many minutes",
            "minimum": 1,
            "maximum": minutes,
            "default": minutes,
        },
        "only_reading": {"type": "boolean", "title": "Only the tools that read", "default": False},
    }


def read_terms(held: HeldCall, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the person narrowed in the prompt; nothing where there was nothing to narrow."""
    content = answer.get("content")
    if held.tool != session_request.NAME or not isinstance(content, dict):
        return {}
    terms = {"minutes": content["minutes"]} if "minutes" in content else {}
    if content.get("only_reading"):
        more = {*held.arguments["writes"], *held.arguments["held"]}
        terms["tools"] = [tool for tool in held.arguments["tools"] if tool not in more]
    return terms


def read_answer(answer: Any) -> bool | None:
    """Yes, no, or None when the person closed the question: only a plain accepted `true` is a yes."""
    if not isinstance(answer, dict):
        return None
    content = answer.get("content")
    match answer.get("action"):
        case "accept":
            return isinstance(content, dict) and content.get("approve") is True
        case "decline":
            return False
        case _:
            return None
