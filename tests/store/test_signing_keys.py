"""The gateway's signing keys in every store: sealed, made once, replaced in one transaction, deleted when over."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.errors import Conflict, StoreError
from mcp_authz.principals import Thumbprint
from mcp_authz.rules.keys import PrivateKey, Sealer, b64url
from mcp_authz.signing_key import KeyUse, SigningKey, replaced_at, signer, state
from mcp_authz.store.ports import Event
from mcp_authz.store.schema import MIGRATIONS
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER, Stores
from tests.store.world import HOUR, MINUTE, START, Time, event

OLD, NEW, THIRD = (bytes([number]) * 32 for number in (1, 2, 3))


def kid_of(seed: bytes) -> str:
    return PrivateKey.from_seed(seed).public.thumbprint


def made(seed: bytes, *, signs_in: timedelta = timedelta(), use: KeyUse = "issuer", at: timedelta = timedelta()) -> Any:
    return SigningKey(
        kid=Thumbprint(kid_of(seed)), use=use, made_at=START + at, signs_from=START + at + signs_in, seed=seed
    )


def recorded(before: Sequence[SigningKey]) -> Event:
    return event(replaces=[key.kid for key in before])


def contents(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.iterdir())


async def test_every_process_gets_the_same_first_key_and_each_use_its_own(stores: Stores) -> None:
    seeds = iter(bytes([number]) * 32 for number in range(1, 60))
    async with stores.open() as store, stores.open() as other:
        found = await asyncio.gather(
            *((store, other)[n % 2].begin_signing("issuer", lambda: next(seeds)) for n in range(20))
        )
        assert len(set(found)) == 1 and len(found[0]) == 1
        context = await store.begin_signing("context", lambda: next(seeds))
        assert context[0].kid != found[0][0].kid
    async with stores.open() as store:
        assert await store.signing_keys("issuer") == found[0]


async def test_a_rotated_key_signs_when_its_time_comes_and_the_one_before_ends_when_it_was_said(stores: Stores) -> None:
    async with stores.open() as store:
        await store.begin_signing("issuer", lambda: OLD)
        await store.begin_signing("context", lambda: THIRD)
        stores.clock.pass_(MINUTE)
        new, end = made(NEW, signs_in=10 * MINUTE, at=MINUTE), START + HOUR
        await store.rotate_signing_key(new, recorded, retire_others_at=end)
        keys = await store.signing_keys("issuer")
        assert keys == (replace(made(OLD), retires_at=end), new)
        times = {START + 10 * MINUTE: "signing", START + 11 * MINUTE: "replaced", end: "retired"}
        assert {at: state(keys[0], keys, at) for at in times} == times
        assert [state(keys[1], keys, at) for at in times] == ["next", "signing", "signing"]
        assert replaced_at(keys[0], keys) == new.signs_from and replaced_at(new, keys) is None
        assert signer(keys, START - HOUR) == keys[0]  # a clock that was set back does not leave the gateway without
        record = (await store.records())[-1]
        assert record.event.fields == {"replaces": [kid_of(OLD)]}
        assert [key.retires_at for key in await store.signing_keys("context")] == [None]


async def test_while_a_key_waits_for_its_time_there_is_no_other(stores: Stores) -> None:
    async with stores.open() as store:
        await store.begin_signing("issuer", lambda: OLD)
        await store.rotate_signing_key(made(NEW, signs_in=MINUTE), recorded, retire_others_at=START + HOUR)
        with pytest.raises(Conflict, match="does not sign yet"):
            await store.rotate_signing_key(made(THIRD, signs_in=MINUTE), recorded, retire_others_at=START + HOUR)
        assert len(await store.signing_keys("issuer")) == 2 and (await store.head())[0] == 2
        stores.clock.pass_(MINUTE)
        later = made(THIRD, signs_in=MINUTE, at=MINUTE)
        await store.rotate_signing_key(later, recorded, retire_others_at=START + 3 * HOUR)
        ends = {key.kid: key.retires_at for key in await store.signing_keys("issuer")}
        assert ends == {kid_of(OLD): START + HOUR, kid_of(NEW): START + 3 * HOUR, kid_of(THIRD): None}


async def test_of_two_rotations_at_once_one_is_made(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        await store.begin_signing("issuer", lambda: OLD)
        done = await asyncio.gather(
            store.rotate_signing_key(made(NEW, signs_in=MINUTE), recorded, retire_others_at=START + HOUR),
            other.rotate_signing_key(made(THIRD, signs_in=MINUTE), recorded, retire_others_at=START + HOUR),
            return_exceptions=True,
        )
        assert [type(one) for one in done if one is not None] == [Conflict]
        assert len(await store.signing_keys("issuer")) == 2


async def test_a_key_that_is_replaced_at_once_leaves_nothing_to_sign_or_verify_with(stores: Stores) -> None:
    async with stores.open() as store:
        await store.begin_signing("issuer", lambda: OLD)
        await store.rotate_signing_key(made(NEW, signs_in=10 * MINUTE), recorded, retire_others_at=START + HOUR)
        stores.clock.pass_(MINUTE)
        third = made(THIRD, at=MINUTE)
        await store.replace_signing_keys(third, recorded)
        keys = await store.signing_keys("issuer")
        assert {key.kid: (key.status, key.seed) for key in keys} == {
            kid_of(OLD): ("revoked", None),
            kid_of(NEW): ("revoked", None),
            kid_of(THIRD): ("active", THIRD),
        }
        for at in (START, START + MINUTE, START + 20 * MINUTE, START + 100 * HOUR):
            assert signer(keys, at) == third and replaced_at(third, keys) is None
        assert set((await store.records())[-1].event.fields["replaces"]) == {kid_of(OLD), kid_of(NEW)}


async def test_the_seed_of_a_key_that_is_over_is_deleted_by_the_next_rotation(stores: Stores) -> None:
    async with stores.open() as store:
        await store.begin_signing("issuer", lambda: OLD)
        await store.rotate_signing_key(made(NEW), recorded, retire_others_at=START + HOUR)
        stores.clock.pass_(HOUR)
        assert state((keys := await store.signing_keys("issuer"))[0], keys, START + HOUR) == "retired"
        await store.rotate_signing_key(made(THIRD, at=HOUR), recorded, retire_others_at=START + 9 * HOUR)
        keys = await store.signing_keys("issuer")
        assert [key.seed for key in keys] == [None, NEW, THIRD]
        assert not keys[0].counts(START)  # also for a clock that was set back


async def test_a_seed_is_nowhere_in_the_files_and_opens_only_in_its_own_row(tmp_path: Path) -> None:
    path, seeds = tmp_path / "store.db", (bytes(range(32)), bytes(range(32, 64)))
    store = SqliteStore.open(path, sealer=SEALER, clock=Time())
    try:
        await store.begin_signing("issuer", lambda: seeds[0])
        await store.rotate_signing_key(made(seeds[1]), recorded, retire_others_at=START + HOUR)
        everything = contents(tmp_path)  # also the write-ahead log
    finally:
        await store.aclose()
    everything += contents(tmp_path)
    for seed in seeds:
        assert kid_of(seed).encode() in everything
        assert not any(form in everything for form in (seed, seed.hex().encode(), b64url(seed).encode()))
        assert repr(seed) not in repr(made(seed))
    with pytest.raises(StoreError, match="not the key the store was made with"):
        SqliteStore.open(path, sealer=Sealer(b"x" * 32), clock=Time())
    first, second = map(kid_of, seeds)
    with closing(sqlite3.connect(path)) as db, db:  # whoever can write the file has no key of their own to put there
        swap = "UPDATE signing_keys SET seed = (SELECT seed FROM signing_keys WHERE kid = ?) WHERE kid = ?"
        db.execute(swap, (second, first))
    await unreadable(path, "issuer", f"signing_keys:issuer:{first}:seed")


async def test_a_key_of_one_use_is_none_of_the_other_and_one_that_is_not_sealed_is_none(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore.open(path, sealer=SEALER, clock=Time())
    try:
        await store.begin_signing("context", lambda: OLD)
        await store.begin_signing("issuer", lambda: NEW)
    finally:
        await store.aclose()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE signing_keys SET purpose = 'issuer' WHERE kid = ?", (kid_of(OLD),))
    await unreadable(path, "issuer", f"signing_keys:issuer:{kid_of(OLD)}:seed")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE signing_keys SET seed = ? WHERE kid = ?", (OLD, kid_of(OLD)))
    await unreadable(path, "issuer", "does not open")


async def unreadable(path: Path, use: KeyUse, why: str) -> None:
    store = SqliteStore.open(path, sealer=SEALER, clock=Time())
    try:
        with pytest.raises(StoreError, match=why):
            await store.signing_keys(use)
    finally:
        await store.aclose()


@pytest.mark.parametrize("schema", [5, 6])
async def test_the_key_of_an_older_store_stays_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: int
) -> None:
    path = tmp_path / "store.db"
    with monkeypatch.context() as older:
        older.setattr("mcp_authz.store.schema.MIGRATIONS", MIGRATIONS[:schema])
        for later in ("tidy", "begin_witness"):  # they look at tables of later schemas
            older.setattr(f"mcp_authz.store.sqlite.{later}", lambda *_, **__: None)
        store = SqliteStore.open(path, sealer=SEALER, clock=Time())
        await store.secret("issuer-key", lambda: OLD)
        await store.secret("context-key", lambda: NEW)
        await store.secret("pairwise-key", lambda: THIRD)
        await store.aclose()
    store = SqliteStore.open(path, sealer=SEALER, clock=Time())
    try:
        for use, seed in (("issuer", OLD), ("context", NEW)):
            (key,) = await store.begin_signing(use, lambda: THIRD)  # type: ignore[arg-type]
            assert (key.kid, key.seed, key.retires_at) == (kid_of(seed), seed, None)
        assert await store.secret("pairwise-key", lambda: OLD) == THIRD
        kept = store._reader.ask(lambda tx: tx.db.execute("SELECT name FROM secrets").fetchall())
        assert {name for (name,) in kept} == {"pairwise-key", "sealing-key-check"}
    finally:
        await store.aclose()


async def test_the_first_key_of_each_use_is_on_record_and_every_public_key_stays(stores: Stores) -> None:
    async with stores.open() as store:
        await store.begin_signing("issuer", lambda: OLD)
        await store.begin_signing("issuer", lambda: THIRD)  # there is one
        (record,) = await store.records(kind="administration")
        assert (record.event.fields["use"], record.event.fields["key"]) == ("issuer", kid_of(OLD))
        await store._writer.run(lambda tx: tx.db.execute("UPDATE signing_keys SET public = NULL"))  # type: ignore[attr-defined]  # as before
        stores.clock.pass_(MINUTE)
        await store.replace_signing_keys(made(NEW, at=MINUTE), recorded)
        keys = await store.signing_keys("issuer")
        assert [(key.seed, key.public) for key in keys] == [
            (None, PrivateKey.from_seed(OLD).public.raw),
            (NEW, PrivateKey.from_seed(NEW).public.raw),
        ]
