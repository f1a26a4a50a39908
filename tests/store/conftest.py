"""Every kind of store there is, opened as often as a test needs it, each time on the same database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcp_authz.rules.keys import Sealer
from mcp_authz.store.ports import Store
from mcp_authz.store.sqlite import SqliteStore
from tests.store.world import Time

SEALER = Sealer(b"k" * 32)


@dataclass(frozen=True)
class Stores:
    """One database that can be opened several times at once, as several processes would."""

    clock: Time
    open: Callable[[], AbstractAsyncContextManager[Store]]


def sqlite(directory: Path) -> Stores:
    clock = Time()

    @asynccontextmanager
    async def open_() -> AsyncIterator[Store]:
        store = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=clock)
        try:
            yield store
        finally:
            await store.aclose()

    return Stores(clock=clock, open=open_)


@pytest.fixture(params=[sqlite], ids=["sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    made: Stores = request.param(tmp_path)
    return made
