"""Keys follow the store by themselves, whatever happens to it; what tool servers were given before counts after."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.key_rotation import KeyRotation
from mcp_authz.live_keys import LiveKeys, follow
from mcp_authz.published_keys import read_jwks
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import Time


@dataclass
class Place:
    """A store, and the context keys of a gateway that follows it."""

    path: Path
    clock: Time
    live: LiveKeys
    rotation: KeyRotation

    async def until(self, so: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not so():  # noqa: ASYNC110 - nobody tells when it has followed
                await anyio.sleep(0.01)

    def write(self, statement: str) -> None:
        """Somebody writes into the store with another program."""
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute(statement)


@asynccontextmanager
async def following(directory: Path) -> AsyncIterator[Place]:
    clock = Time()
    store, other = (SqliteStore.open(directory / "store.db", sealer=SEALER, clock=clock) for _ in range(2))
    live = await LiveKeys.load(store, "context", clock=clock)
    task = asyncio.create_task(follow(store, live))
    try:
        yield Place(path=directory / "store.db", clock=clock, live=live, rotation=KeyRotation(other, clock))
    finally:
        task.cancel()
        await store.aclose()
        await other.aclose()


async def test_who_was_given_the_published_keys_in_time_believes_the_next_one(tmp_path: Path) -> None:
    async with following(tmp_path) as place:
        old, message = place.live.signing.public, b"a call"
        await place.rotation.rotate("context", by="user:operator")
        await place.until(lambda: len(place.live.jwks["keys"]) == 2)
        given = read_jwks(place.live.jwks)
        assert place.live.signing.public == old
        place.clock.pass_(limits.KEY_PUBLISHED)
        new = place.live.signing
        assert new.public != old
        given[new.public.thumbprint].verify(message, new.sign(message))


async def test_a_key_that_cannot_be_read_changes_nothing_is_told_once_and_does_not_end_the_following(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path) as place:
        first = place.live.signing.public
        with caplog.at_level(logging.ERROR):
            place.write("INSERT INTO signing_keys VALUES ('mine', 'context', x'01', 0, 0, NULL, 'active', NULL)")
            await place.until(lambda: bool(caplog.records))
            await anyio.sleep(3 * limits.SIGNING_KEYS_READ.total_seconds())
        assert len(caplog.records) == 1 and "signing_keys:context:mine:seed" in caplog.text
        assert place.live.signing.public == first
        place.write("DELETE FROM signing_keys WHERE kid = 'mine'")
        new = await place.rotation.replace("context", by="user:operator")
        await place.until(lambda: place.live.signing.public.thumbprint == new.kid)


async def test_keys_that_cannot_be_read_for_long_do_not_count_until_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SIGNING_KEYS_STALE", timedelta(seconds=0.5))
    async with following(tmp_path) as place:
        counting, first = place.live.counting(limits.CONTEXT_KEY_OVERLAP), place.live.signing.public
        place.write("INSERT INTO signing_keys VALUES ('mine', 'context', x'01', 0, 0, NULL, 'active', NULL)")
        await place.until(lambda: not counting)
        assert place.live.jwks == {"keys": []}
        with pytest.raises(StoreError, match="no `context` key to sign with"):
            _ = place.live.signing
        place.write("DELETE FROM signing_keys WHERE kid = 'mine'")
        await place.until(lambda: set(counting) == {first.thumbprint})
