"""What a table of records has in it is text to every spreadsheet, whichever separator it splits lines at."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime

import pytest

from mcp_authz.rules import record_csv
from mcp_authz.store.ports import Event

RUN = "=cmd|' /C calc'!A0"
HOSTILE = (
    RUN,
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\uff1d1",
    f"a;{RUN}",
    f"a\n{RUN}",
    f"a\r\n;{RUN}",
    f'a";{RUN}',
    f"a\t{RUN}",
    f"a|{RUN}",
    f"a; {RUN}",
)
_CELL = re.compile(r"[;\t\n\r,|]")


def row(text: str) -> str:
    fields = {"actor": "agent:a", "tool": text, "reason": text, "because": ["x", text], "claimed_intent": text}
    event = Event(kind="administration", at=datetime(2026, 1, 1, tzinfo=UTC), fields={**fields, "summary": text})
    return record_csv.row(event, sequence=1, hash_=bytes(32))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_begins_a_formula_wherever_a_spreadsheet_splits_the_line(text: str) -> None:
    (cells,) = csv.reader(io.StringIO(row(text), newline=""))
    assert len(cells) == len(record_csv.COLUMNS)
    # One that splits at another character pays no heed to quotation marks that do not stand at a cell's beginning.
    for piece in [*cells, *_CELL.split(row(text))]:
        assert not piece.lstrip(' "').startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")), piece


def test_what_is_no_formula_stays_as_it_is() -> None:
    for text in ("a-b", "pr:read, pr:write", "1 + 1 = 2; so it is", "a=b", "me@example.com"):
        (cells,) = csv.reader(io.StringIO(row(text), newline=""))
        assert text in cells
