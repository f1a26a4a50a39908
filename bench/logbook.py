"""A log of any length, made without a gateway: calls of some agents, decided and done, chained as the store does."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from mcp_authz.installation import utc_now
from mcp_authz.rules.keys import Sealer
from mcp_authz.rules.log import GENESIS, record_bytes, record_hash
from mcp_authz.store.sqlite import SqliteStore

RARE_AGENT: Final = "night-watch"
RARE_WORD: Final = "kestrel"
RARE_EVERY: Final = 200_000  # records
_BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PAGE: Final = 10_000


async def filled(path: Path, records: int) -> None:
    """There is a store at `path` with so many records; nothing else is in it."""
    store = SqliteStore.open(path, sealer=Sealer(bytes(32)), clock=utc_now)
    await store.aclose()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        previous, row = GENESIS, 0
        rows = _rows(records)
        while page := [one for _, one in zip(range(_PAGE), rows, strict=False)]:
            db.execute("BEGIN")
            for kind, at, call, fields in page:
                row += 1
                body = record_bytes(sequence=row, previous=previous, kind=kind, at=at, call=call, fields=fields)
                previous = record_hash(body)
                db.execute("INSERT INTO log (sequence, body, hash) VALUES (?, ?, ?)", (row, body, previous))
            db.execute("UPDATE log_head SET sequence = ?, hash = ?", (row, previous))
            db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def call_of(number: int) -> str:
    """The id of the call that record `number` belongs to."""
    return f"c_{hashlib.sha256(str((number + 1) // 2).encode()).hexdigest()[:26]}"


def _rows(records: int) -> Iterator[tuple[str, datetime, str, dict[str, Any]]]:
    for number in range(1, records + 1):
        at = _BEGAN + timedelta(milliseconds=number * 37)
        make = _decision if number % 2 else _outcome
        yield ("decision" if number % 2 else "outcome"), at, call_of(number), make(number)


def _decision(number: int) -> dict[str, Any]:
    agent = RARE_AGENT if number % RARE_EVERY == 1 else f"agent-{number % 23}"
    word = RARE_WORD if number % RARE_EVERY == 1 else "fix the flaky tests"
    verdict = {"decision": "permit", "because": ["read-is-permitted"]}
    if number % 100 == 1:
        verdict = {"decision": "deny", "because": ["scope"], "reason": "insufficient_scope", "detail": "no pr:write"}
    return {
        "actor": f"agent:{agent}",
        "key": hashlib.sha256(agent.encode()).hexdigest()[:43],
        "client": agent,
        "proof": "signed",
        "token": f"t_{number % 997:024d}",
        "subject": f"user:person-{number % 11}",
        "session": f"s_{number % 499:024d}",
        "purpose": word,
        "mode": "delegated",
        "chain": ["agent:planner", f"agent:{agent}"],
        "link": f"l_{number % 499:024d}",
        "links": [f"l_{number % 89:024d}", f"l_{number % 499:024d}"],
        "tool": f"acme__tool_{number % 31}",
        "server": "acme",
        "action": "pr.list",
        "environment": "staging",
        "hazard": "read",
        "resource": {"repo": "acme/api"},
        "arguments": ["owner", "repo"],
        "arguments_digest": hashlib.sha256(str(number).encode()).hexdigest(),
        "definition": hashlib.sha256(b"definition").hexdigest(),
        "policy": "scopes_and_hazard",
        **verdict,
    }


def _outcome(number: int) -> dict[str, Any]:
    agent = RARE_AGENT if (number - 1) % RARE_EVERY == 1 else f"agent-{(number - 1) % 23}"
    return {
        "outcome": "done",
        "actor": f"agent:{agent}",
        "tool": f"acme__tool_{(number - 1) % 31}",
        "milliseconds": number % 400,
        "result_digest": hashlib.sha256(str(number).encode()).hexdigest(),
    }
