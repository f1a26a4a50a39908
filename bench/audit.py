"""What the log costs: appends per second, records verified per second, and how long a question takes by its length.

Questions are asked of a log that was made beforehand, its file in the system's memory; the rare ones have five answers
in a million records, and none is helped by an index but the one for a call.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.logbook import RARE_AGENT, RARE_WORD, call_of, filled
from mcp_authz.cli.verification import verify
from mcp_authz.installation import utc_now
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.keys import Sealer
from mcp_authz.store.ports import Event
from mcp_authz.store.sqlite import SqliteStore

WRITERS: Final = (1, 64)
ROUNDS: Final = 5
ASKED: Final[Mapping[str, Filter]] = {
    "the newest 50": Filter(),
    "--agent, one of 23": Filter(agent="agent-3"),
    "--agent, a rare one": Filter(agent=RARE_AGENT),
    "--decision deny": Filter(decision="deny"),
    "--call, the oldest": Filter(call=call_of(1)),
    "--text, a rare word": Filter(text=RARE_WORD),
    "--person, nobody": Filter(person="nobody"),
}


async def audit(directory: Path, *, lengths: tuple[int, ...], appends: int) -> dict[str, Any]:
    """Appends and verified records per second, and milliseconds of each question by the length of the log."""
    written = {str(writers): await _appends(directory / f"w{writers}.db", writers, appends) for writers in WRITERS}
    verified, asked = {}, {}
    for length in lengths:
        path = directory / f"{length}.db"
        await filled(path, length)
        verified[str(length)] = max(_verified(path) for _ in range(3))
        asked[str(length)] = await _questions(path)
    return {"appends": written, "verified": verified, "asked": asked}


async def _appends(path: Path, writers: int, appends: int) -> float:
    """Appends per second of so many writers, each of whom waits for the disk before the next."""
    store = SqliteStore.open(path, sealer=Sealer(bytes(32)), clock=utc_now)

    async def write() -> None:
        for _ in range(appends // writers):
            await store.append(Event(kind="decision", at=utc_now(), call="c_1", fields={"actor": "agent:a", "n": 1}))

    began = time.perf_counter()
    await asyncio.gather(*(write() for _ in range(writers)))
    taken = time.perf_counter() - began
    await store.aclose()
    return appends // writers * writers / taken


def _verified(path: Path) -> float:
    began = time.perf_counter()
    found = verify(path, lambda _, __: None)
    if found.broken is not None:
        raise AssertionError(f"the log does not hang together: {found.broken}")
    return found.records / (time.perf_counter() - began)


async def _questions(path: Path) -> dict[str, float]:
    store = SqliteStore.open(path, sealer=Sealer(bytes(32)), clock=utc_now)
    took = {}
    for name, wanted in ASKED.items():
        taken = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await store.search(wanted, limit=50)
            taken.append((time.perf_counter() - began) * 1000)
        took[name] = statistics.median(taken)
    await store.aclose()
    return took
