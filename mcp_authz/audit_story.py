"""One call's story in one sentence: who asked, for whom, through whom, for what, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

from mcp_authz.rules.display import visible
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.ports import Event

_Told = TypeVar("_Told")

_BY: Mapping[str, str] = {
    "client": "in their own client",
    "client-other": "in another client",
    "signed-in": "while signed in",
    "passkey": "with a passkey",
}
_ENDED: Mapping[str, str] = {
    "done": "done",
    "tool-error": "the tool reported an error",
    "error": "it failed",
    "unknown": "interrupted, nobody can say whether it ran",
    "asked": "the tool server asked something",
}
_CUT_SHORT: Mapping[str, str] = {
    "revocation": "cancelled while it ran because what it stood on was revoked",
    "crash": "interrupted while it ran because the gateway stopped",
    "caller": "its caller cancelled it{after}",
    "shutdown": "the gateway was told to stop, and ended it{after}",
}
_OVER: Mapping[str, str] = {
    "expired": "nobody answered in time",
    "cancelled": "called off while it waited",
    "unknown": "nobody can say whether it ran",
}
_AFTER_A_VERDICT = frozenset({"approval_denied", "sent_back", "approval_expired", "approval_cancelled"})
_WHY: Mapping[str, str] = {
    "unknown_tool": "there is no such tool for it",
    "switched_off": "the tool is switched off",
    "stopped": "all calls were stopped",
    "quarantined": "the tool's definition had changed",
    "no_session": "it had no open session",
    "session_over": "its session was over",
    "consent_over": "what its person had agreed to was over",
    "proof_required": "it was not signed",
    "proof_invalid": "its signature was not one of this call",
    "arguments": "its arguments do not fit the tool",
    "scope_arguments": "an argument that decides on permission has a form that is not allowed",
    "insufficient_scope": "its authority does not cover it",
    "constraint": "its delegation does not permit these arguments",
    "budget": "its call budget was used up",
    "rate_limited": "there were too many such calls",
    "spent": "it would take more than is left of a budget",
    "policy": "policy does not permit it",
    "policy_error": "policy could not be decided",
    "stale_sign_in": "its person signed in too long ago",
    "too_many_holds": "too many of its calls wait",
    "revoked": "its authority was withdrawn",
    "changed": "the rules changed meanwhile",
    "replayed": "it was a repetition",
}
"""Why calls are denied, by code, as one tells somebody who was not there; what is not here is told by its code."""

_METHODS: Mapping[str, str] = {
    "resources/read": "to read a resource of",
    "prompts/get": "for a prompt of",
    "completion/complete": "for completions from",
}


def story(events: Sequence[Event]) -> str:
    """Return the story of one call from its records, oldest first: its decisions, verdicts on it, and its outcome."""
    decisions = [event.fields for event in events if event.kind == "decision"]
    rest = [event.fields for event in events if event.kind in {"approval", "outcome"} and "actor" in event.fields]
    if not decisions and not rest:
        return "nothing was decided about this call"
    asked = _asked(decisions[0]) if decisions else _asked_before(rest[0])
    return f"{asked}: {', '.join(_steps(events))}"


def told_once(records: Iterable[_Told], event: Callable[[_Told], Event]) -> Iterator[tuple[_Told, tuple[_Told, ...]]]:
    """Return each record, and with it those right behind it by which the same waiting call was asked for again."""
    for _, same in groupby(enumerate(records), lambda it: _waits_as(event(it[1])) or it[0]):
        first, *again = (record for _, record in same)
        yield first, tuple(again)


def times_again(count: int) -> str:
    """`; asked again 3 times until`, which a time follows."""
    return f"; asked again {'once' if count == 1 else f'{count} times'}, until"


def _waits_as(event: Event) -> tuple[str, str] | None:
    """What the records have in common by which a call waits that its client asks for now and then."""
    is_hold = event.kind == "decision" and event.fields.get("decision") == "hold" and event.fields.get("hold")
    return (str(event.fields["hold"]), sentence(event)) if is_hold else None


def _asked(f: Mapping[str, Any]) -> str:
    """The beginning: `coder, delegated by planner, for alice, asked to deploy.create (repo acme/api)`."""
    actor = _bare(f.get("actor"))
    chain = [_bare(name) for name in f.get("chain", ())]
    through = f", delegated by {', '.join(reversed(chain[:-1]))}" if len(chain) > 1 else ""
    subject = f.get("subject")
    whom = "" if subject is None else ", for itself" if subject == f.get("actor") else f", for {_bare(subject)}"
    attributes = ", ".join(f"{name} {visible(str(value))}" for name, value in sorted((f.get("resource") or {}).items()))
    return f"{actor}{through}{whom}, asked {_what(f)}" + (f" ({attributes})" if attributes else "")


def _asked_before(f: Mapping[str, Any]) -> str:
    """The beginning where the log begins behind it."""
    return f"{_bare(f['actor'])}'s call of {visible(str(f.get('tool')))}, whose beginning is not in the log"


def _what(f: Mapping[str, Any]) -> str:
    """What was asked, after `asked`: `for deploy.create`, `to read a resource of files`."""
    verb = _METHODS.get(str(f.get("method")))
    if verb is not None and f.get("server"):
        return f"{verb} {visible(str(f['server']))}"
    return f"for {visible(str(f.get('action') or f.get('tool') or f.get('method')))}"


def _steps(events: Sequence[Event]) -> list[str]:
    steps: list[str] = []
    last: Event | None = None
    answered = any("verdict" in event.fields for event in events if event.kind == "approval")
    for event in events:
        step = _step(event)
        if not answered and "approval" in event.fields:
            step = _approved(event.fields["approval"])
        if steps and event.kind == "decision" and event.fields.get("reason") in _AFTER_A_VERDICT:
            continue  # the verdict says so
        last = event if event.kind in {"decision", "approval", "outcome"} else last
        if step and (not steps or steps[-1] != step):
            steps.append(step)
    return [*steps, *_waiting(last)] or ["nothing else is on record"]


def _waiting(last: Event | None) -> list[str]:
    """What is still to come, where the last that is known is that the call waits."""
    if last is None:
        return []
    if last.kind == "decision":
        told = {"hold": ["nobody has answered"], "permit": ["no outcome is on record yet"]}
        return told.get(str(last.fields.get("decision")), [])
    if last.kind == "approval":
        return {"pending": ["others have to answer too"], "approved": ["not run"]}.get(
            str(last.fields.get("state")), []
        )
    return []


def _step(event: Event) -> str:
    f = event.fields
    match event.kind, f.get("decision"):
        case "decision", "hold":
            return "held"
        case "decision", "permit" if "approval" in f:
            return ""  # its verdicts say so
        case "decision", "permit":
            return "permitted" if "observed" not in f else _observed(f["observed"])
        case "decision", "replay":
            return "its outcome was given again"
        case "decision", "deny":
            return _denied(f)
        case "approval", _:
            return _verdict(f)
        case "outcome", _:
            return _outcome(f)
    return ""


def _outcome(f: Mapping[str, Any]) -> str:
    took = f.get("milliseconds")
    if f.get("ended_by") in _CUT_SHORT:
        after = f" after {_duration(took)}" if isinstance(took, int) else ""
        return f"{_CUT_SHORT[f['ended_by']].format(after=after)}, nobody can say how far it came"
    if f.get("ended_by") == "store":
        return "not run, because the gateway's store failed"
    ended = _ENDED.get(str(f.get("outcome")), str(f.get("outcome")))
    return f"{ended} in {_duration(took)}" if ended == "done" and isinstance(took, int) else ended


def _denied(f: Mapping[str, Any]) -> str:
    if f.get("sent_back_for"):
        return f"sent back for its person to agree to {visible(' '.join(f['sent_back_for']))}"
    if "sent_back_for" in f:
        return "sent back for its person to sign in again"
    if f.get("missing"):
        return f"sent back for a token with more scope ({visible(' '.join(f['missing']))})"
    return f"denied ({_why(f)})"


def _why(f: Mapping[str, Any]) -> str:
    """Why it was, or would be, denied; of a rule of policy its name."""
    reason, because = str(f.get("reason")), ", ".join(visible(str(rule)) for rule in f.get("because") or ())
    told = _WHY.get(reason, reason.replace("_", " "))
    return f"{told}: {because}" if reason == "policy" and because else told


def _observed(would: Mapping[str, Any]) -> str:
    instead = "held" if would.get("would") == "hold" else f"denied: {_why(would)}"
    return f"permitted in observe mode (it would have been {instead})"


def _approved(approval: Mapping[str, Any]) -> str:
    """What the decision has of verdicts whose own records are not there."""
    people = " and ".join(_bare(name) for name in approval.get("by") or ())
    return f"approved by {people} {_BY.get(str(approval.get('assurance')), '')}".rstrip()


def _verdict(f: Mapping[str, Any]) -> str:
    verb = {"approve": "approved", "deny": "denied", "send-back": "sent back"}.get(str(f.get("verdict")))
    if verb is None:
        return "" if f.get("state") in {"approved", None} else _OVER.get(str(f["state"]), str(f["state"]))
    said = f"{verb} by {_bare(f.get('person'))} {_BY.get(str(f.get('assurance')), '')}".rstrip()
    if f.get("standing"):
        said = f"{said} (standing approval {visible(str(f['standing']))})"
    quoted = visible(str(f.get("reason") or "")).replace('"', "'")
    return f'{said}, who said "{quoted}"' if quoted else said


def _duration(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _bare(name: object) -> str:
    text = visible(str(name))
    return text.split(":", 1)[1] if text.startswith(("agent:", "user:")) else text
