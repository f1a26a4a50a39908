"""One call's story in one sentence: who asked, for whom, through whom, for what, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_authz.rules.display import visible
from mcp_authz.store.ports import Event

_BY: Mapping[str, str] = {
    "client": "in their own client",
    "client-other": "in another client",
    "signed-in": "signed in",
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
}
_METHODS: Mapping[str, str] = {
    "resources/read": "to read a resource of",
    "prompts/get": "for a prompt of",
    "completion/complete": "for completions from",
}


def story(events: Sequence[Event]) -> str:
    """Return the story of one call from its records, oldest first: its decisions, verdicts on it, and its outcome."""
    decisions = [event.fields for event in events if event.kind == "decision"]
    if not decisions:
        return "nothing was decided about this call"
    parts = [_asked(decisions[0]), *_steps(events)]
    return f"{parts[0]}: {', '.join(parts[1:])}"


def _asked(f: Mapping[str, Any]) -> str:
    """The beginning: `coder, delegated by planner, for alice, asked to deploy.create (repo acme/api)`."""
    actor = _bare(f.get("actor"))
    chain = [_bare(name) for name in f.get("chain", ())]
    through = f", delegated by {', '.join(reversed(chain[:-1]))}" if len(chain) > 1 else ""
    subject = f.get("subject")
    whom = "" if subject is None else ", for itself" if subject == f.get("actor") else f", for {_bare(subject)}"
    attributes = ", ".join(f"{name} {visible(str(value))}" for name, value in sorted((f.get("resource") or {}).items()))
    return f"{actor}{through}{whom}, asked {_what(f)}" + (f" ({attributes})" if attributes else "")


def _what(f: Mapping[str, Any]) -> str:
    """What was asked, after `asked`: `for deploy.create`, `to read a resource of files`."""
    verb = _METHODS.get(str(f.get("method")))
    if verb is not None and f.get("server"):
        return f"{verb} {visible(str(f['server']))}"
    return f"for {visible(str(f.get('action') or f.get('tool') or f.get('method')))}"


def _steps(events: Sequence[Event]) -> list[str]:
    steps: list[str] = []
    for event in events:
        step = _step(event)
        if step and (not steps or steps[-1] != step):
            steps.append(step)
    return steps or ["nothing else is on record"]


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
            return f"denied ({f.get('reason')})"
        case "approval", _:
            return _verdict(f)
        case "outcome", _:
            if f.get("ended_by") in _CUT_SHORT:
                return f"{_CUT_SHORT[f['ended_by']]}, nobody can say how far it came"
            took = f.get("milliseconds")
            ended = _ENDED.get(str(f.get("outcome")), str(f.get("outcome")))
            return f"{ended} in {_duration(took)}" if ended == "done" and isinstance(took, int) else ended
    return ""


def _observed(would: Mapping[str, Any]) -> str:
    instead = "held" if would.get("would") == "hold" else "denied"
    return f"permitted in observe mode (else {instead})"


def _verdict(f: Mapping[str, Any]) -> str:
    verb = {"approve": "approved", "deny": "denied", "send-back": "sent back"}.get(str(f.get("verdict")))
    if verb is None:
        return "" if f.get("state") in {"approved", None} else str(f.get("state"))
    said = f"{verb} by {_bare(f.get('person'))} {_BY.get(str(f.get('assurance')), '')}".rstrip()
    return f"{said} (standing approval {visible(str(f['standing']))})" if f.get("standing") else said


def _duration(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _bare(name: object) -> str:
    text = visible(str(name))
    return text.split(":", 1)[1] if text.startswith(("agent:", "user:")) else text
