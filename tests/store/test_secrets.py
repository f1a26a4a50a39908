"""Secrets in every store, and once-only ids outside of calls."""

from __future__ import annotations

import asyncio
import itertools

from mcp_authz.rules.keys import b64url
from mcp_authz.verdict_bundles import verdict_key
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


async def test_the_verdict_key_is_on_record_once_and_its_seed_nowhere(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        keys = {(await verdict_key(it)).public.thumbprint for it in (store, other, store)}
        seed = await store.secret("verdict-key", lambda: b"")
        (record,) = await store.records(kind="administration")
        assert {record.event.fields["key"]} == keys and record.event.fields["use"] == "verdict"
        assert seed.hex() not in str(record) and b64url(seed) not in str(record)
