"""The beginning of a real log is pruned, and what remains is verified: by what was signed, and by nothing else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from examples import verify_audit
from mcp_authz import limits
from mcp_authz.checkpoint_sinks import FileSink
from mcp_authz.checkpoints import Checkpoints, checkpoint_keys
from mcp_authz.cli.verification import Proof, Verified, kept_checkpoints, verify
from mcp_authz.errors import ConfigError, StoreError
from mcp_authz.retention import Archived, Kept, Prunable, prunable, prune, remove_pruned
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.store.offline import log_file, stored_records
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import Time, event, open_hold, settle

KEY, NEXT = PrivateKey.from_seed(bytes(range(32))), PrivateKey.from_seed(bytes(range(1, 33)))
KNOWN = {key.public.thumbprint: key.public for key in (KEY, NEXT)}
MONTH = limits.LOG_KEPT_LEAST


@dataclass
class Place:
    """A store that is pruned, and what was kept elsewhere."""

    directory: Path
    store: SqliteStore
    clock: Time

    @property
    def file(self) -> Path:
        return self.directory / "store.db"

    async def month(self, key: PrivateKey = KEY, records: int = 4) -> None:
        """Some records, a checkpoint, and a month goes by."""
        for number in range(records):
            await self.store.append(replace(event(call=f"c_{number}"), at=self.clock()))
        sink = FileSink(path=self.directory / "checkpoints.txt")
        issuer = "https://authz.example.com"
        made = Checkpoints(store=self.store, clock=self.clock, issuer=issuer, signing=lambda: key, sinks=[sink])
        assert await made.write() is not None
        self.clock.pass_(MONTH)

    async def prune(self, archive: str | None = None, keep: timedelta = MONTH) -> Archived | None:
        what = await prunable(self.store, keep, self.clock())
        assert isinstance(what, Prunable), what
        to = None if archive is None else self.directory / archive
        return await prune(self.store, self.clock, what, path=self.file, by="user:operator", archive=to)

    def verified(self, *archives: str, elsewhere: bool = False, keys: dict[str, PublicKey] | None = None) -> Verified:
        proof = Proof(
            checkpoints=kept_checkpoints(self.directory / "checkpoints.txt") if elsewhere else None,
            keys=KNOWN if elsewhere and keys is None else keys,
            archives=tuple(self.directory / name for name in archives),
        )
        return verify(self.file, lambda done, of: None, proof)


@asynccontextmanager
async def a_place(directory: Path) -> AsyncIterator[Place]:
    clock = Time()
    store = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=clock)
    try:
        yield Place(directory, store, clock)
    finally:
        await store.aclose()


async def test_what_remains_is_verified_at_every_moment_and_the_archives_with_it_are_one_chain(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        for key in (KEY, KEY, NEXT):
            await place.month(key)
        whole = place.verified(elsewhere=True)
        assert whole.broken is None and whole.first == 1
        first = await place.prune("one.jsonl", keep=2 * MONTH)
        assert first is not None
        (base,) = {(await place.store.log_base()).sequence}
        between = place.verified()  # the rows are there still, and lead to where the log begins
        assert between.broken is None and between.first == 1 and between.pruned is not None
        while await place.store.remove_pruned(2):
            left = place.verified(elsewhere=True)
            assert left.broken is None and left.first <= base + 1
        assert place.verified().first == base + 1 and stored_records(place.file)[0].sequence == base + 1
        await place.month(NEXT)
        await place.prune("two.jsonl", keep=2 * MONTH)
        await remove_pruned(place.store)
        for proved in (place.verified(), place.verified(elsewhere=True), place.verified(keys=KNOWN)):
            assert proved.broken is None and proved.first > base + 1
            assert proved.pruned is not None and proved.pruned.archive == "two.jsonl"
        together = place.verified("one.jsonl", "two.jsonl", elsewhere=True)
        assert together.broken is None and together.first == 1
        assert place.verified("two.jsonl").broken is None
        assert place.verified("one.jsonl").broken is not None  # what is between is missing
        keys = (await checkpoint_keys(place.store))["keys"]
        assert {key["kid"] for key in keys} == set(KNOWN)  # also of the one whose records are gone


async def test_nothing_is_pruned_without_a_checkpoint_nor_what_is_needed_still(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        await place.store.append(event())
        place.clock.pass_(2 * MONTH)
        found = await prunable(place.store, MONTH, place.clock())
        assert isinstance(found, Kept) and "there is no checkpoint" in found.why
        await place.month()
        found = await prunable(place.store, 2 * MONTH, place.clock())
        assert isinstance(found, Kept) and "no checkpoint is older than 60d" in found.why
        kept_on = replace(event("decision", "c_x"), input={"call": "x"}, at=place.clock() + 12 * MONTH)
        await place.store.append(kept_on)
        number, _ = await place.store.head()
        await place.month()
        what = await prunable(place.store, MONTH, place.clock())
        assert isinstance(what, Prunable) and what.head.sequence < number
        await place.prune()
        found = await prunable(place.store, MONTH, place.clock())
        assert isinstance(found, Kept) and f"record {number} is needed still" in found.why


async def test_a_log_that_is_broken_is_not_pruned(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        await place.month()
        with closing(sqlite3.connect(place.file)) as db, db:
            db.execute("DROP TRIGGER log_is_never_altered")
            db.execute("UPDATE log SET body = CAST(replace(body, 'c_1', 'c_9') AS BLOB) WHERE sequence = 2")
        with pytest.raises(StoreError, match="record 2 was altered"):
            await place.prune("one.jsonl")
        assert not (tmp_path / "one.jsonl").exists() and (await place.store.log_base()).sequence == 0


def cut_anywhere(db: sqlite3.Connection) -> None:
    """To a record that no checkpoint names, with everything that the store itself says made to fit."""
    (hash_,) = db.execute("SELECT hash FROM log WHERE sequence = 3").fetchone()
    (chain,) = db.execute("SELECT hash FROM log WHERE sequence = 1").fetchone()
    db.execute("UPDATE log_base SET sequence = 3, hash = ?, chain = ?, told = 9", (hash_, chain))
    db.execute("DELETE FROM log WHERE sequence <= 3")


def cut_where_a_checkpoint_ends(db: sqlite3.Connection) -> None:
    (hash_,) = db.execute("SELECT hash FROM log WHERE sequence = 5").fetchone()
    (chain,) = db.execute("SELECT hash FROM log WHERE sequence = 1").fetchone()
    db.execute("UPDATE log_base SET sequence = 5, hash = ?, chain = ?, told = 6", (hash_, chain))
    db.execute("DELETE FROM log WHERE sequence <= 5")


def cut_without_a_base(db: sqlite3.Connection) -> None:
    db.execute("DROP TRIGGER log_is_never_cut")
    db.execute("DELETE FROM log WHERE sequence <= 5")


@pytest.mark.parametrize(
    ("cut", "why"),
    [
        (cut_anywhere, "no record says that it begins behind 3"),
        (cut_where_a_checkpoint_ends, "no record says that it begins behind 5"),
        (cut_without_a_base, "record 1 is missing"),
    ],
)
async def test_a_beginning_that_was_cut_by_somebody_else_is_found(
    tmp_path: Path, cut: Callable[[sqlite3.Connection], None], why: str
) -> None:
    async with a_place(tmp_path) as place:
        await place.month()
        await place.month()
        with closing(sqlite3.connect(place.file)) as db, db:
            cut(db)
        for found in (place.verified(), place.verified(elsewhere=True)):
            assert found.broken is not None and why in found.broken.why


async def test_a_beginning_with_a_record_and_a_checkpoint_of_the_attackers_own_is_found_by_keys_kept_elsewhere(
    tmp_path: Path,
) -> None:
    """Who writes all of a log anew, signed by a key of their own, is believed by nobody who has the real keys."""
    mallory = PrivateKey.from_seed(bytes(range(2, 34)))
    async with a_place(tmp_path) as place:
        await place.month(mallory)
        await place.month(mallory)
        await place.prune()
        await remove_pruned(place.store)
        assert place.verified().broken is None  # the store's own word, which is worth no more than that
        found = place.verified(keys=KNOWN).broken
        assert found is not None and "no checkpoint by a key that is known" in found.why
        found = place.verified(elsewhere=True).broken
        assert found is not None and "not among those given" in found.why


async def test_an_independent_verifier_knows_where_a_pruned_log_begins(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        await place.month()
        await place.month(NEXT)
        await place.prune("one.jsonl", keep=2 * MONTH)
        await remove_pruned(place.store)
    with log_file(place.file) as log:
        lines = [row.body + b"\n" for row in log.after(0, 1000)]
    rest, both = tmp_path / "rest.jsonl", tmp_path / "both.jsonl"
    rest.write_bytes(b"".join(lines))
    both.write_bytes((tmp_path / "one.jsonl").read_bytes() + rest.read_bytes())
    kept, keys = str(tmp_path / "checkpoints.txt"), tmp_path / "keys.json"
    jwks = [{**key.public.jwk, "kid": key.public.thumbprint} for key in (KEY, NEXT)]
    keys.write_text(json.dumps({"keys": jwks}))
    assert verify_audit.main(str(rest)) == 1  # nobody but a checkpoint says that it may begin there
    for file in (rest, both, tmp_path / "one.jsonl"):
        code = verify_audit.main(str(file), kept, str(keys))
        assert code == (1 if file.name == "one.jsonl" else 0)  # an archive alone ends before the newest checkpoint
    assert verify_audit.main(str(tmp_path / "one.jsonl")) == 0
    rest.write_bytes(b"".join(lines[1:]))
    assert verify_audit.main(str(rest), kept, str(keys)) == 1


async def test_a_log_cannot_be_pruned_behind_a_held_call(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        await settle(place.store)
        await open_hold(place.store)
        await place.store.append(event("decision", "h_1"))
        assert await place.store.needed_from() is not None


async def test_an_archive_of_other_records_is_never_replaced(tmp_path: Path) -> None:
    """A restored log can come to the same numbers again: the archive of what was lost is all there is of that."""
    async with a_place(tmp_path) as place:
        await place.month()
        await place.month()
        (tmp_path / "one.jsonl").write_bytes(b"of another epoch")
        with pytest.raises(ConfigError, match="is of other records; move it away"):
            await place.prune("one.jsonl", keep=2 * MONTH)
        assert (tmp_path / "one.jsonl").read_bytes() == b"of another epoch"
        assert (await place.store.log_base()).sequence == 0
        (tmp_path / "one.jsonl").unlink()
        what = await prunable(place.store, MONTH, place.clock())
        assert isinstance(what, Prunable)
        lines = stored_records(place.file, limit=what.head.sequence)
        (tmp_path / "two.jsonl").write_bytes(b"".join(row.body + b"\n" for row in lines))  # as a killed process left it
        assert await place.prune("two.jsonl") is not None
        left = [it.name for it in tmp_path.iterdir()]  # noqa: ASYNC240 - a directory of a test
        assert not [name for name in left if name.startswith(".")]
