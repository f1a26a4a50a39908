"""What the page shows of a held call: the facts of `rules.display`, one by one, everything in them made visible."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from mcp_authz.approvals import Context
from mcp_authz.model import ApprovalRule, Assurance, Hazard, HeldCall, HoldState
from mcp_authz.passkey import Passkey, SignIn
from mcp_authz.principals import Mode, Person
from mcp_authz.rules import session_request
from mcp_authz.rules.difference import Difference
from mcp_authz.rules.display import displayed, for_whom, shown_arguments, shown_name, through, visible
from mcp_authz.rules.hold import counts_for, is_eligible, is_enough, may_deny, met, wants_reason, was_sent_back
from mcp_authz.rules.standing_approval import StandingApproval, may_stand, sentence

HAZARDS: Final[Mapping[Hazard, str]] = {
    Hazard.READ: "changes nothing",
    Hazard.WRITE: "changes something",
    Hazard.DESTRUCTIVE: "hard to undo",
}

STATES: Final[Mapping[HoldState, str]] = {
    HoldState.PENDING: "Waits for an answer.",
    HoldState.APPROVED: "Approved. It runs once, when the agent makes the call again.",
    HoldState.DENIED: "Denied. It does not run.",
    HoldState.EXPIRED: "Too late. Its time ran out, and it does not run.",
    HoldState.CANCELLED: "Called off. It does not run.",
    HoldState.CLAIMED: "Approved, and running now.",
    HoldState.DONE: "Approved, and done.",
    HoldState.FAILED: "Approved. It ran, and the tool reported an error.",
    HoldState.UNKNOWN: "Approved, but it was interrupted. Nobody can say whether it ran; it is not run again.",
}

SENT_BACK: Final = "Sent back. It does not run; the agent is told what the call should be instead."

ENDS_WITH: Final[Mapping[str, str]] = {
    "rule": "when the time of its rule is up",
    "session": "when the session of the agent ends",
    "delegation": "when the delegation of the agent ends",
    "standing": "when the standing approval ends that permits it",
}

_ASSURANCE: Final[Mapping[str, str]] = {
    "client": "an answer in their own client is enough",
    "client-other": "an answer in another client of theirs is enough",
    "signed-in": "signed in or with a key, at least",
    "passkey": "with a passkey",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownValue:
    """A value as lines of text with nothing hidden in them; `kind` tells a text from what looks like it."""

    kind: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRule:
    """One rule, and how far it is."""

    name: str
    who: str
    how: str
    approved: tuple[str, ...]
    quorum: int
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDifference:
    """One argument before and now; `lines` instead where both are texts of lines: (`same`, `out` or `in`, the line)."""

    name: str
    before: ShownValue | None
    now: ShownValue | None
    lines: tuple[tuple[str, str], ...]


def shown_value(value: Any) -> ShownValue:
    """Return the value as text: a text by its lines, anything else as JSON."""
    if isinstance(value, str):
        return ShownValue(kind="text", lines=tuple(visible(line) for line in value.split("\n")))
    kind = {bool: "yes or no", int: "number", float: "number", list: "list", dict: "object"}.get(type(value), "nothing")
    lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
    return ShownValue(kind=kind, lines=tuple(map(visible, lines)))


def shown_values(arguments: Mapping[str, Any]) -> list[tuple[str, ShownValue]]:
    """Return every argument by its name, in the order of the call."""
    return [(shown_name(name), shown_value(value)) for name, value in arguments.items()]


def _has_marks(name: str, value: ShownValue) -> bool:
    """Whether something in it is written in a way that takes a word of explanation."""
    return (value.kind == "text" and len(value.lines) > 1) or any("\\" in text for text in (name, *value.lines))


def _shown_difference(one: Difference) -> ShownDifference:
    before, now = (shown_value(value[0]) if value else None for value in (one.before, one.now))
    lines: tuple[tuple[str, str], ...] = ()
    if (
        before is not None
        and now is not None
        and before.kind == now.kind
        and max(len(before.lines), len(now.lines)) > 1
    ):
        lines = tuple(changed_lines(before.lines, now.lines))
    return ShownDifference(name=shown_name(one.name), before=before, now=now, lines=lines)


def changed_lines(before: Sequence[str], now: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The lines that are gone and those that are new, in their place, each with the lines beside it."""
    groups = SequenceMatcher(None, before, now, autojunk=False).get_grouped_opcodes(1)
    for number, group in enumerate(groups):
        if number:
            yield "cut", ""
        for kind, old, old_end, new, new_end in group:
            if kind == "equal":
                yield from (("same", line) for line in now[new:new_end])
            else:
                yield from (("out", line) for line in before[old:old_end])
                yield from (("in", line) for line in now[new:new_end])


def heading(held: HeldCall) -> str:
    """What is asked, in so few words that the tool stands in the heading."""
    if held.tool == session_request.NAME:
        return f"{held.actor} asks for a session"
    return f"{held.actor} asks to run {visible(held.tool)}"


def state_of(held: HeldCall) -> tuple[str, str]:
    """The word for where the call stands, and a sentence."""
    if was_sent_back(held):
        return "sent back", SENT_BACK
    return held.state.value, STATES[held.state]


def summary(held: HeldCall) -> dict[str, Any]:
    """Return what the list shows of a held call."""
    return {
        "id": held.id,
        "heading": heading(held),
        "hazard": held.hazard.value,
        "hazard_says": HAZARDS[held.hazard],
        "purpose": visible(held.purpose),
        "subject": for_whom(held),
        "actor": held.actor,
        "tool": visible(held.tool),
        "state": held.state.value,
        "state_word": state_of(held)[0],
        "state_says": state_of(held)[1],
        "asked_at": held.asked_at,
        "expires_at": held.expires_at,
        "ended_at": held.ended_at,
        "answered_by": [verdict.person for verdict in held.verdicts],
    }


def full(held: HeldCall, context: Context, who: Person, people: dict[str, Person]) -> dict[str, Any]:
    """Return everything that an approver is shown before they answer (DESIGN section 10)."""
    request = held.tool == session_request.NAME and held.shredded_at is None
    return {
        **summary(held),
        "sentence": visible(session_request.sentence(held.arguments, held.actor)) if request else None,
        "alike": [] if not may_stand(held) else [_freeable(name, value) for name, value in held.arguments.items()],
        "may_stand": may_stand(held),
        "narrowing": _narrowing(held.arguments) if request else None,
        "owner": held.owner,
        "chain": list(through(held)),
        "arguments": shown_values(held.arguments),
        "has_marks": any(_has_marks(name, value) for name, value in shown_values(held.arguments)),
        "is_whole": shown_arguments(held.arguments) is not None,
        "shredded_at": held.shredded_at,
        "rules": [_rule(held, rule, people) for rule in held.rules],
        "ends_with": ENDS_WITH[held.ends_with],
        "verdicts": held.verdicts,
        "signed": displayed(held),
        "needs_reason": wants_reason(who, held),
        "may_deny": may_deny(who, held),
        "has_answered": any(verdict.person == who.name for verdict in held.verdicts),
        "last": context.last,
        "differences": [_shown_difference(one) for one in context.differences],
        "same_ran": context.same_ran,
    }


def _freeable(name: str, value: Any) -> dict[str, Any]:
    """One argument that calls like this one may have another value of, and what the page begins with."""
    line = isinstance(value, str) and value != "" and _is_plain(value)
    written = json.dumps(value, ensure_ascii=False)
    return {
        "name": json.dumps(name),  # for the script: nothing hidden stands in the page
        "shown": shown_name(name),
        "is_text": line,
        "listed": value if line else written if _is_plain(written) else json.dumps(value),
        "root": value.rpartition("/")[0] or "/" if line and "/" in value else None,
    }


def _is_plain(text: str) -> bool:
    """Whether the text can stand in a field as it is: on one line, and every character of it is seen."""
    return visible(text) == text.replace("\\", "\\\\")


def ahead(standing: StandingApproval) -> dict[str, Any]:
    """Return what the list shows of a standing approval."""
    return {
        "id": standing.terms.id,
        "permits": sentence(standing.terms),
        "left": standing.terms.most - standing.used,
        "most": standing.terms.most,
        "expires_at": standing.terms.expires_at,
    }


def way_to_approve(held: HeldCall, who: Person, sign_in: SignIn, *, passkeys: Sequence[Passkey]) -> str:
    """Return how this person can approve: by `passkey` whoever has one, by `sign-in` where that counts, else `none`.

    What counts as a sign-in is one that a provider vouches for: a cookie that a passkey gave proves no more than that
    a passkey was there once, and the passkey is gone.
    """
    if passkeys:
        return "passkey"
    enough = is_enough(who, held, Assurance.SIGNED_IN)
    return "sign-in" if enough and sign_in.authentication.issuer is not None else "none"


def may_answer(held: HeldCall, who: Person) -> bool:
    """Whether a rule of this hold names the person: nobody else is shown anything of it."""
    return any(is_eligible(who, held, rule) for rule in held.rules)


def _rule(held: HeldCall, rule: ApprovalRule, people: dict[str, Person]) -> ShownRule:
    approved = [
        v.person for v in held.verdicts if (p := people.get(v.person)) is not None and counts_for(v, p, held, rule)
    ]
    who = " or ".join(_who(by, held) for by in rule.by)
    parts = [_ASSURANCE[rule.assurance.label]]
    if rule.outside_chain:
        parts.append(f"not by {held.subject}")
    if rule.reason:
        parts.append("with a reason")
    return ShownRule(
        name=visible(rule.name),
        who=f"{rule.quorum} of {who}" if rule.quorum > 1 else who,
        how=", ".join(parts),
        approved=tuple(approved),
        quorum=rule.quorum,
        met=met(held, rule, people),
    )


def _who(by: str, held: HeldCall) -> str:
    kind, _, name = by.partition(":")
    if by == "subject":
        return f"{held.subject}, {_SUBJECT[held.mode]}"
    if by == "owner":
        return f"{held.owner}, who owns the agent"
    return f"anybody in the group {visible(name)}" if kind == "group" else visible(name)


_SUBJECT: Final = {
    Mode.OWN: "who owns the first agent",
    Mode.DELEGATED: "for whom it runs",
    Mode.IMPERSONATED: "whom it impersonates",
}


def _narrowing(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request for a session its approver may make less."""
    notes = {
        **dict.fromkeys(arguments["writes"], "changes something"),
        **dict.fromkeys(arguments["held"], "held each time"),
    }
    return {"minutes": arguments["minutes"], "tools": [(tool, notes.get(tool, "")) for tool in arguments["tools"]]}
