"""Secrets in every store, and once-only ids outside of calls."""

from __future__ import annotations

import asyncio
import itertools

from tests.store.conftest import Stores
from tests.store.world import once


async def test_every_process_gets_the_same_secret(stores: Stores) -> None:
    count = itertools.count()
    async with stores.open() as store, stores.open() as other:
        found = await asyncio.gather(
            *((store, other)[n % 2].secret("issuer", lambda: bytes([next(count)])) for n in range(20))
        )
        assert len(set(found)) == 1
    async with stores.open() as store:
        assert await store.secret("issuer", lambda: b"another") == found[0]
        assert await store.secret("other", lambda: b"another") == b"another"


async def test_of_two_that_use_an_id_one_is_the_first(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        answers = await asyncio.gather(*((store, other)[n % 2].remember(once("a")) for n in range(50)))
        assert answers.count(True) == 1
