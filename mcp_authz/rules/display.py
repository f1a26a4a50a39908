"""What a person is shown of a held call: everything, visibly, or nothing can be approved."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.model import ApprovalRule, HeldCall
from mcp_authz.principals import Mode
from mcp_authz.rules import session_request
from mcp_authz.rules.hidden_text import has_no_shape

# Categories whose characters have no shape of their own, or reorder and hide others (UAX #9, Unicode chapter 23).
_HIDDEN: Final = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
_STACKED: Final = frozenset({"Mn", "Me"})


_MARKS: Final = 4  # on one character; more of them hide the lines above and below
_PLAIN_NAME: Final = re.compile(r"[\w.$@/-]+")


def visible(text: str) -> str:
    """The text with every character that has no shape of its own, or hides others, shown as `\\u{...}`."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    shown, marks = list[str](), 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in _STACKED else 0
        shown.append(_spelled(character) if marks > _MARKS else _shown(character))
    return "".join(shown)


def shown_name(name: str) -> str:
    """The name of an argument, visibly; as JSON where it is no plain name, so that none looks like name and value."""
    return visible(name if _PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False))


def _shown(character: str) -> str:
    if character == "\\":
        return "\\\\"  # so that a spelled-out escape cannot pass for a hidden character, or the other way round
    category = unicodedata.category(character)
    if category in _HIDDEN or (character != " " and category == "Zs") or has_no_shape(character):
        return _spelled(character)
    return character


def _spelled(character: str) -> str:
    return f"\\u{{{ord(character):04x}}}"


def shown_arguments(arguments: Mapping[str, Any]) -> str | None:
    """One line for each argument, values as JSON, everything visible; None when it is too much to be shown whole."""
    lines = [
        f"  {shown_name(name)}: {visible(json.dumps(value, ensure_ascii=False))}" for name, value in arguments.items()
    ]
    text = "\n".join(lines)
    return text if len(text) <= limits.ARGUMENTS_SHOWN else None


def shown_rule(rule: ApprovalRule, mode: Mode = Mode.DELEGATED) -> str:
    """One rule as a person reads it."""
    subject = _SUBJECT[mode]
    who = " or ".join(subject if by == "subject" else visible(by) for by in rule.by)
    parts = [f"{rule.quorum} of: {who}" if rule.quorum > 1 else who]
    if rule.outside_chain:
        parts.append(f"not {subject}")
    parts.append(f"at least {rule.assurance.label}")
    if rule.reason:
        parts.append("with a reason")
    return f"{visible(rule.name)}: {', '.join(parts)}"


def for_whom(held: HeldCall) -> str:
    """For whom a call runs, in few words: `alice`, `itself, owner alice`, or `alice, impersonated`."""
    match held.mode:
        case Mode.OWN:
            return f"itself, owner {held.subject}"
        case Mode.IMPERSONATED:
            return f"{held.subject}, impersonated"
        case Mode.DELEGATED:
            return held.subject


def through(held: HeldCall) -> tuple[str, ...]:
    """The principals that the call comes from, in order; it starts with the person, where there is one."""
    person = () if held.mode is Mode.OWN else (f"user:{held.subject}",)
    return *person, *(f"agent:{name}" for name in held.chain)


_SUBJECT: Final = {
    Mode.OWN: "the owner of the first agent",
    Mode.DELEGATED: "the person it acts for",
    Mode.IMPERSONATED: "the person it impersonates",
}
_ENDS_WITH: Final = {
    "rule": "the time its rule gives",
    "session": "the session",
    "delegation": "the delegation",
    "standing": "the standing approval",
}


def _asks(held: HeldCall) -> str:
    """What is asked, in one line."""
    if held.tool == session_request.NAME and held.shredded_at is None:
        return visible(session_request.sentence(held.arguments, held.actor))
    return f"{held.actor} asks to run {visible(held.tool)} ({held.hazard.value})"


def displayed(held: HeldCall) -> str:
    """The text an approver sees, whole; its digest is part of what they sign."""
    if held.shredded_at is not None:
        arguments: str | None = f"  shredded {held.shredded_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    else:
        arguments = shown_arguments(held.arguments)
    some = bool(held.arguments) or held.shredded_at is not None
    return "\n".join(
        [
            _asks(held),
            f"for {for_whom(held)}, through {' -> '.join(through(held))}",
            f"purpose: {visible(held.purpose) or '(none given)'}",
            "arguments:" if some else "arguments: none",
            *([] if not some else [arguments if arguments is not None else "  (too large to be shown)"]),
            "needs:",
            *(f"  {shown_rule(rule, held.mode)}" for rule in held.rules),
            f"ends: {held.expires_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, with {_ENDS_WITH[held.ends_with]}",
            f"hold: {held.id}",
        ]
    )


def displayed_digest(held: HeldCall) -> bytes:
    """SHA-256 over the UTF-8 bytes of `displayed`, 32 bytes."""
    return hashlib.sha256(displayed(held).encode()).digest()
