"""A record of the log as a row of a table: the same columns for all kinds, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mcp_authz.rules.log import timestamp
from mcp_authz.rules.sentence import Written, sentence

COLUMNS: Final = (
    "sequence",
    "at",
    "kind",
    "call",
    "actor",
    "subject",
    "by",
    "session",
    "server",
    "tool",
    "method",
    "action",
    "environment",
    "hazard",
    "decision",
    "reason",
    "because",
    "policy",
    "hold",
    "approved_by",
    "assurance",
    "outcome",
    "milliseconds",
    "peer",
    "trace",
    "claimed_intent",
    "sentence",
    "hash",
)
_BLANK: Final = ("\t", "\r", "\n")
# Where a spreadsheet may take a formula to begin: also behind what it splits lines at (a `;`, in half of Europe),
# where it pays no heed to quotation marks inside of what it takes for a cell.
_RUNS: Final = re.compile(r"""(^|[;,|\t\r\n])([ "]*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])""")


def header() -> str:
    """The first line."""
    return _line(COLUMNS)


def row(record: Written, *, sequence: int, hash_: bytes) -> str:
    """One record as a line, with its end (RFC 4180)."""
    fields = record.fields
    approval = fields.get("approval")
    approval = approval if isinstance(approval, Mapping) else {}
    own = {
        "sequence": sequence,
        "at": timestamp(record.at),
        "kind": record.kind,
        "call": record.call,
        "approved_by": approval.get("by") or (fields.get("person") if record.kind == "approval" else None),
        "assurance": approval.get("assurance") or fields.get("assurance"),
        "sentence": sentence(record),
        "hash": hash_.hex(),
    }
    return _line(_cell(own[name] if name in own else fields.get(name)) for name in COLUMNS)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = _RUNS.sub(r"\1\2'", text)
    return f"'{text}" if text.startswith(_BLANK) else text


def _line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()
