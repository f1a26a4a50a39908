"""How a record of the log reads as a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

SAID: Final = (
    "'s call of in ms approved denied now refused from before identity was known asked for delegated by itself "
    "permitted not run again the recorded outcome was given held sent back to agree sign more no rule permits it "
    "observe mode would have been client standing approval none it claims its caller cancelled gateway was stopped"
)
"""Every word that a sentence has and its record has not."""


_ENDED_BY: Final[Mapping[str, str]] = {"caller": "its caller cancelled it", "shutdown": "the gateway was stopped"}


class Written(Protocol):
    """A record as it is read: what happened, when, and what is known of it."""

    @property
    def kind(self) -> str:
        """What sort of thing happened."""

    @property
    def at(self) -> datetime:
        """When."""

    @property
    def call(self) -> str | None:
        """The call it belongs to."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """What is known of it, by name."""


def sentence(event: Written) -> str:
    """One record as a person reads it."""
    f = event.fields
    match event.kind:
        case "decision":
            return _decision_sentence(f)
        case "outcome":
            ended = f" ({_ENDED_BY.get(str(f['ended_by']), f['ended_by'])})" if f.get("ended_by") else ""
            took = "" if f.get("milliseconds") is None else f" in {f['milliseconds']} ms"
            came_of_it = f"{f.get('outcome')}{took}{ended}"
            return f"{_bare(f.get('actor'))}'s call of {f.get('tool')}: {came_of_it}"
        case "approval":
            verb = {"approve": "approved", "send-back": "sent back"}.get(str(f.get("verdict")), "denied")
            who_said = _answerer(f.get("person"), f.get("assurance"))
            said = f"{who_said} {verb} {_bare(f.get('actor'))}'s call of {f.get('tool')}"
            beforehand = f", standing approval {f['standing']}" if f.get("standing") else ""
            return f"{said} ({f.get('assurance')}{beforehand}): now {f.get('state')}"
        case "refusals":
            return f"{f.get('count')} refused from {f.get('source')} before identity was known: {f.get('reason')}"
        case _:
            said = f.get("summary") or ", ".join(
                f"{key} {_bare(value)}" for key, value in f.items() if _is_short(value)
            )
            whose = f" (by {_bare(f['by'])})" if event.kind == "revocation" and f.get("by") else ""
            return f"{event.kind}: {said}{_why_refused(event.kind, f)}{whose}"


def _why_refused(kind: str, f: Mapping[str, Any]) -> str:
    """Why something other than a call was refused; of a delegation `reason` is what the delegator said it was for."""
    why = f.get("detail") or (f.get("reason") if kind == "sign-in" else None)
    return f": {why}" if why and f.get("decision") == "deny" else ""


def _denied(f: Mapping[str, Any]) -> str:
    """The reason and the rules behind it; a rule that says the same again is left out."""
    reason = str(f.get("reason"))
    because = ", ".join(f.get("because", [])) or "no rule permits it"
    return reason if because.replace("-", "_") == reason else f"{reason}: {because}"


def _decision_sentence(f: Mapping[str, Any]) -> str:
    chain = [_bare(name) for name in f.get("chain", [])]
    actor = _bare(f.get("actor"))
    told = actor
    if len(chain) > 1:
        told += f", delegated by {', '.join(reversed(chain[:-1]))},"
    if "subject" in f:
        told += " for itself" if f["subject"] == f.get("actor") else f" for {_bare(f['subject'])}"
    asked = f" asked for {f.get('action') or f.get('tool') or f.get('method')}"
    attributes = f.get("resource") or {}
    if attributes:
        asked += f" ({', '.join(f'{key} {value}' for key, value in sorted(attributes.items()))})"
    match f.get("decision"):
        case "permit" if "approval" in f:
            by = ", ".join(_answerer(name, f["approval"]["assurance"]) for name in f["approval"]["by"])
            verdict = f"permitted, approved by {by} ({f['approval']['assurance']})"
        case "permit" if "observed" in f:
            verdict = _observed_verdict(f["observed"])
        case "permit":
            verdict = "permitted"
        case "hold":
            verdict = f"held for {', '.join(f.get('rules', []))}"
        case "replay":
            verdict = "not run again, the recorded outcome was given"
        case "deny" if f.get("sent_back_for"):
            verdict = f"sent back to agree to {' '.join(f['sent_back_for'])}"
        case "deny" if "sent_back_for" in f:
            verdict = "sent back to sign in again"
        case "deny" if f.get("missing"):
            verdict = f"sent back to sign in for more ({' '.join(f['missing'])})"
        case _:
            verdict = f"denied ({_denied(f)})"
    return f"{told}{asked}: {verdict}{_claims(f)}"


def _claims(f: Mapping[str, Any]) -> str:
    """What the caller says that it is for, in quotation marks that it cannot close."""
    said = str(f.get("claimed_intent") or "").replace('"', "'")
    return f'; it claims: "{said}"' if said else ""


def _observed_verdict(observed: Mapping[str, Any]) -> str:
    if observed.get("would") == "hold":
        return f"permitted in observe mode, would have been held for {', '.join(observed.get('rules', []))}"
    because = ", ".join(observed.get("because", []))
    return f"permitted in observe mode, would have been denied ({observed.get('reason')}: {because})"


def _answerer(name: object, assurance: object) -> str:
    # A prompt proves that the client answered, not that the person did; the record says so.
    return f"{_bare(name)}'s client" if assurance == "client" else _bare(name)


def _bare(name: object) -> str:
    text = str(name)
    return text.split(":", 1)[1] if text.startswith(("agent:", "user:")) else text


def _is_short(value: object) -> bool:
    return isinstance(value, str | int) and len(str(value)) <= 80
