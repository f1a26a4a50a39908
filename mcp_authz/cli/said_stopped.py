"""What was stopped, or would be, as sentences: told by the store here, or by a gateway elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mcp_authz.cli.output import say
from mcp_authz.rules.display import visible


def say_ended(holds: Iterable[str], running: Iterable[Mapping[str, Any]], *, dry_run: bool) -> None:
    """Say which held and running calls it is about."""
    would = "would stop" if dry_run else "stopped"
    for hold in holds:
        say(f"{would}: held call {visible(hold)}")
    for it in running:
        say(visible(f"{would}: running call {it['call']} of {it['tool']} by {it['actor']}"))


def say_off(kind: str, name: str, told: Mapping[str, Any], *, dry_run: bool) -> None:
    """Say what came of switching off a tool or a server."""
    if told["already_revoked"]:
        say(f"{kind} {name} is switched off already; nothing was changed")
        return
    say(f"{kind} {name} {'would be' if dry_run else 'is'} switched off: nobody can call it until it is accepted again")
    say_ended(told["holds"], told["running"], dry_run=dry_run)


def say_swept(subject: str, told: Mapping[str, Any], *, dry_run: bool) -> None:
    """Say what ended of a subject."""
    say(f"everything of {subject} from before then {'would be' if dry_run else 'is'} revoked")
    would = "would stop" if dry_run else "stopped"
    for kind, ids in told["ids"].items():
        if ids:
            say(visible(f"{would}: {len(ids)} {kind}{'s'[: len(ids) != 1]}: {' '.join(ids)}"))
    code = "invitation" if subject.startswith("user:") else "enrolment code"
    for count, what in ((told["sign_ins"], "sign-in"), (told["codes"], code)):
        if count:
            say(visible(f"{would}: {count} {what}{'s'[: count != 1]}"))
    say_ended(told["holds"], told["running"], dry_run=dry_run)
