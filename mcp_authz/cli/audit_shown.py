"""What `mcp-authz audit verify --excerpt` says of a bundle: its records, what is shown of them, and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Final, cast

import typer

from mcp_authz.audit_story import story, times_again, told_once
from mcp_authz.cli.audit_evidence import Shown
from mcp_authz.cli.output import local, print_json, say
from mcp_authz.errors import InputError
from mcp_authz.rules.display import visible
from mcp_authz.rules.excerpt import Excerpted
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.ports import Event, EventKind

_NONE: Final = (ArithmeticError, ValueError, LookupError, TypeError, AttributeError)  # what reading none ends in
_MARKS: Final = {"verified": "\N{CHECK MARK}", "wrong": "\N{BALLOT X}", "open": "?"}


def say_shown(shown: Shown, *, json: bool) -> None:
    """It is said what the bundle shows.

    Raises:
        typer.Exit: 1, something in it is not as it says.
        InputError: a record in it is none.
    """
    if json:
        print_json(_view(shown))
    else:
        _say(shown)
    if shown.is_wrong:
        raise typer.Exit(1)


def _view(shown: Shown) -> dict[str, object]:
    return {
        "ok": not shown.is_wrong,
        "records": [
            {"sequence": one.sequence, "checkpoint": _number(one), "record": dict(one.body)} for one in shown.records
        ],
        "findings": [{"verdict": one.verdict, "text": one.text} for one in shown.findings],
    }


def _say(shown: Shown) -> None:
    try:
        told = [*_lines(shown.records), "", visible(story(_calls(shown)))]
    except _NONE:  # anybody could have made what no checkpoint covers
        raise InputError("a record in the bundle is none that a gateway writes; do not rely on it") from None
    for line in told:
        say(line)
    covered = sum(one.checkpoint is not None for one in shown.records)
    every = len(shown.records)
    mark = _MARKS["verified" if 0 < covered == every else "open"]
    say(f"{mark} {covered} of {every} records are in the log that the gateway's checkpoints sign")
    for finding in shown.findings:
        say(f"{_MARKS[finding.verdict]} {finding.text}")
    wrong = sum(finding.verdict == "wrong" for finding in shown.findings)
    if wrong:
        say(f"{wrong} of these are wrong: do not rely on it")
    else:
        say("nothing is wrong; `?` is what it cannot show, nor does it show that nothing went unrecorded")


def _lines(records: Iterable[Excerpted]) -> Iterator[str]:
    """A line for each, or for several that say the same, by the same checkpoint."""
    for number, covered in groupby(records, _number):
        by = "no checkpoint: whoever made this file says so" if number is None else f"checkpoint {number}"
        for one, again in told_once(covered, _event):
            until = f"{times_again(len(again))} {local(_event(again[-1]).at)}" if again else ""
            event = _event(one)
            yield f"{local(event.at)}  {visible(sentence(event))}{until}  ({by})"


def _calls(shown: Shown) -> list[Event]:
    return [_event(one) for one in shown.records if one.kind in {"decision", "approval", "outcome"}]


def _event(one: Excerpted) -> Event:
    return Event(
        kind=cast(EventKind, one.kind),
        at=datetime.fromisoformat(one.body["at"]),
        call=one.body["call"],
        fields=one.body["fields"],
    )


def _number(one: Excerpted) -> int | None:
    return None if one.checkpoint is None else one.checkpoint.number
