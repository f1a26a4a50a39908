"""A process of its own that works on a store: `python -m tests.store.process WHAT PATH NAME COUNT`.

It prints a line for each answer that it got, so that a test knows what was promised before it was killed.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from mcp_authz.model import HoldId, HoldState
from mcp_authz.store.ports import Rate, Spending
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import START, Time, admission, event, open_hold


async def append(store: SqliteStore, name: str, count: int) -> None:
    """Append records, one after the other."""
    for number in range(count):
        record = await store.append(event(by=name, number=number))
        print(record.sequence, flush=True)


async def keep(store: SqliteStore, name: str, count: int) -> None:
    """Append decisions with what they were decided upon, one after the other."""
    for number in range(count):
        call = f"{name}-{number}"
        record = await store.append(replace(event("decision", call), input={"call": call}))
        print(record.sequence, flush=True)


async def admit(store: SqliteStore, name: str, count: int) -> None:
    """Sixteen callers admit calls at once, each as fast as it can."""

    async def caller(number: int) -> None:
        for turn in range(count):
            call = f"{name}-{number}-{turn}"
            answer = await store.admit(admission(call))
            print(call if isinstance(answer, int) else answer.reason, flush=True)

    await asyncio.gather(*map(caller, range(16)))


async def spend(store: SqliteStore, name: str, count: int) -> None:
    """Sixteen callers at once: first from a budget that has 5, then under a limit of 15."""

    async def caller(number: int, turn: int) -> str:
        call = f"{name}-{number}-{turn}"
        limit = Rate(key="k", count=15, per=timedelta(days=1))
        budget = Spending(budget="money", account="s_1", amount=1, limit=5, expires_at=START + timedelta(hours=1))
        asked = admission(call, rates=(limit,)) if turn else admission(call, budgets=(budget,))
        answer = await store.admit(asked)
        return "admitted" if isinstance(answer, int) else answer.reason

    for turn in range(count):
        for said in await asyncio.gather(*(caller(number, turn) for number in range(16))):
            print(said, flush=True)


async def claim(store: SqliteStore, name: str, count: int) -> None:
    """Claim an approved hold, say so, and wait to be killed."""
    await open_hold(store)
    for come_from, to in ((HoldState.PENDING, HoldState.APPROVED), (HoldState.APPROVED, HoldState.CLAIMED)):
        await store.move_hold(HoldId("h_1"), come_from=come_from, to=to, event=None)
    print("claimed", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def wait(store: SqliteStore, name: str, count: int) -> None:
    """Wait for what others write, each time it is another number."""
    since = 0
    for _ in range(count + 1):
        since = await store.changed(since)
        print(since, flush=True)


async def main(what: str, path: str, name: str, count: str) -> None:
    store = SqliteStore.open(Path(path), sealer=SEALER, clock=Time())
    try:
        works = {"append": append, "keep": keep, "admit": admit, "spend": spend, "claim": claim, "wait": wait}
        await works[what](store, name, int(count))
    finally:
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
