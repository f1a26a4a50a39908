"""Attack 42, exhaustively: each byte of a real log, of what was exported of it, and of what was kept elsewhere."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from examples import verify_audit
from mcp_authz import limits
from mcp_authz.audit_excerpts import excerpt_of
from mcp_authz.checkpoint_sinks import FileSink
from mcp_authz.checkpoints import Checkpoints
from mcp_authz.cli.verification import Proof, Verified, kept_checkpoints, verify_log
from mcp_authz.errors import AuthzError
from mcp_authz.retention import Prunable, prunable, prune, remove_pruned
from mcp_authz.rules.checkpoint import FIRST, Checkpoint, Head, read_checkpoint, sign_checkpoint
from mcp_authz.rules.excerpt import verify_excerpt
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.log import record_bytes, record_hash
from mcp_authz.rules.merkle import root
from mcp_authz.store.offline import LogFile
from tests.world import World, world

KEY, NEXT = PrivateKey.from_seed(bytes(range(32))), PrivateKey.from_seed(bytes(range(1, 33)))
KNOWN = {key.public.thumbprint: key.public for key in (KEY, NEXT)}
OPEN = Proof()


@dataclass(frozen=True)
class Evidence:
    """What a gateway left behind: its store, whole and pruned, and what was kept elsewhere of both."""

    whole: bytes
    pruned: bytes
    checkpoints: tuple[str, ...]
    excerpt: dict[str, Any]

    @property
    def covered(self) -> int:
        """The last record that a checkpoint vouches for."""
        return read_checkpoint(self.checkpoints[-1], KNOWN).heads[0].sequence


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Of a gateway that let a call through, with checkpoints by two keys, a month between them."""
    return asyncio.run(gathered(tmp_path_factory.mktemp("gateway")))


async def gathered(directory: Path) -> Evidence:
    async with world(directory) as w:
        coder = await w.ready("coder", "deploy")
        await w.call(coder, "acme__deploy", owner="acme", repo="api", environment="staging", version="1.4.0")
        await checkpoint(w, KEY)
        of_calls = [record for record in await w.records() if record.event.call is not None]
        excerpt = await excerpt_of(w.store, of_calls, gateway=w.config.public_url, evidence={})
        w.clock.advance(limits.LOG_KEPT_LEAST + timedelta(days=1))
        await w.person("carol")
        await checkpoint(w, NEXT)
        await w.person("dave")
        file = directory / "data" / "store.db"
        whole = content(file)
        what = await prunable(w.store, limits.LOG_KEPT_LEAST, w.clock())
        assert isinstance(what, Prunable), what
        await prune(w.store, w.clock, what, path=file, by="user:operator", archive=None)
        await remove_pruned(w.store)
        kept = kept_checkpoints(directory / "checkpoints.txt")
        return Evidence(whole=whole, pruned=content(file), checkpoints=kept, excerpt=excerpt)


async def checkpoint(w: World, key: PrivateKey) -> None:
    file = FileSink(path=w.config.data.parent / "checkpoints.txt")
    made = Checkpoints(store=w.store, clock=w.clock, issuer=w.config.public_url, signing=lambda: key, sinks=[file])
    assert await made.write() is not None


TABLES = {
    "log": ("sequence", "body", "hash"),
    "log_head": ("sequence", "hash"),
    "log_base": ("sequence", "hash", "chain", "told"),
}


def content(file: Path) -> bytes:
    """The log of a store, and nothing else of it: no guards, no index that would not take what is no JSON."""
    with closing(sqlite3.connect(":memory:")) as log, closing(sqlite3.connect(file)) as db:
        for table, names in TABLES.items():
            columns = ", ".join(names)
            log.execute(f"CREATE TABLE {table} ({columns.replace('sequence', 'sequence INTEGER PRIMARY KEY')})")
            rows = db.execute(f"SELECT {columns} FROM {table}")  # noqa: S608 - constants
            log.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", rows)  # noqa: S608
        log.commit()
        return log.serialize()


class Store:
    """A log in the hands of somebody who may write it, without its guards."""

    def __init__(self, content: bytes) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.deserialize(content)
        self.log = LogFile(Path("store.db"), self.db)

    def set(self, table: str, column: str, value: object, sequence: int | None = None) -> None:
        """The column has this value, in this row."""
        where = "" if sequence is None else f" WHERE sequence = {sequence}"
        self.db.execute(f"UPDATE {table} SET {column} = ?{where}", (value,))  # noqa: S608 - constants

    def verified(self, proof: Proof = OPEN) -> Verified:
        return verify_log(self.log, lambda done, of: None, proof)

    def rows(self) -> list[tuple[int, bytes, bytes]]:
        return self.db.execute("SELECT sequence, body, hash FROM log ORDER BY sequence").fetchall()

    def write(self, rows: list[tuple[int, bytes, bytes]], *, head: bool = False) -> None:
        """The log has these rows, and if so wanted its head fits them."""
        self.db.execute("DELETE FROM log")
        self.db.executemany("INSERT INTO log (sequence, body, hash) VALUES (?, ?, ?)", rows)
        if head:
            self.db.execute("UPDATE log_head SET sequence = ?, hash = ?", (rows[-1][0], rows[-1][2]))


def flipped(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The data with one byte altered, for each of them; which of its bits depends on the place."""
    for place, byte in enumerate(data):
        yield place, data[:place] + bytes([byte ^ 1 << place % 8]) + data[place + 1 :]


@pytest.mark.parametrize("which", ["whole", "pruned"])
def test_each_byte_of_each_record_and_each_hash_is_found_at_its_place(evidence: Evidence, which: str) -> None:
    store = Store(getattr(evidence, which))
    assert store.verified().broken is None and len(store.rows()) > 5
    for sequence, body, hash_ in store.rows():
        for column, value in (("body", body), ("hash", hash_)):
            for place, altered in flipped(value):
                store.set("log", column, altered, sequence)
                broken = store.verified().broken
                assert broken is not None and broken.sequence == sequence, (column, place, altered)
            store.set("log", column, value, sequence)
    assert store.verified().broken is None


@pytest.mark.parametrize("which", ["whole", "pruned"])
def test_each_bit_of_where_the_log_begins_and_ends_and_of_each_number_is_found(evidence: Evidence, which: str) -> None:
    store = Store(getattr(evidence, which))
    for table in ("log_head", "log_base"):
        names = [name for name in ("sequence", "told") if name == "sequence" or table == "log_base"]
        hashes = [name for name in ("hash", "chain") if name == "hash" or table == "log_base"]
        for name in names:
            (value,) = store.db.execute(f"SELECT {name} FROM {table}").fetchone()  # noqa: S608 - constants
            for other in (*(value ^ 1 << bit for bit in range(62)), -1, -value - 1):
                store.set(table, name, other)
                assert store.verified().broken is not None, (table, name, other)
            store.set(table, name, value)
        for name in hashes:
            (value,) = store.db.execute(f"SELECT {name} FROM {table}").fetchone()  # noqa: S608 - constants
            for _, altered in flipped(value):
                store.set(table, name, altered)
                assert store.verified().broken is not None, (table, name, altered)
            store.set(table, name, value)
    taken = {sequence for sequence, _, _ in store.rows()}
    for sequence in sorted(taken):
        for other in {sequence ^ 1 << bit for bit in range(62)} - taken:
            store.set("log", "sequence", other, sequence)
            assert store.verified().broken is not None, (sequence, other)
            store.set("log", "sequence", sequence, other)
    assert store.verified().broken is None


Rows = list[tuple[int, bytes, bytes]]


def renumbered(rows: Rows, first: int) -> Rows:
    return [(number, body, hash_) for number, (_, body, hash_) in enumerate(rows, first)]


TAMPERINGS: dict[str, Callable[[Rows, int], Rows]] = {
    "dropped": lambda rows, n: rows[:n] + rows[n + 1 :],
    "dropped, the rest moved up": lambda rows, n: renumbered(rows[:n] + rows[n + 1 :], rows[0][0]),
    "doubled": lambda rows, n: renumbered(rows[: n + 1] + rows[n:], rows[0][0]),
    "swapped": lambda rows, n: renumbered([*rows[:n], *rows[n : n + 2][::-1], *rows[n + 2 :]], rows[0][0]),
    "moved to the end": lambda rows, n: renumbered([*rows[:n], *rows[n + 1 :], rows[n]], rows[0][0]),
    "cut": lambda rows, n: rows[:n],
    "beginning cut": lambda rows, n: rows[n + 1 :],
}


@pytest.mark.parametrize("which", ["whole", "pruned"])
@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_each_record_dropped_doubled_moved_or_cut_is_found_where_it_was(
    evidence: Evidence, which: str, tampering: str
) -> None:
    store = Store(getattr(evidence, which))
    rows = store.rows()
    for place in range(len(rows)):
        tampered = TAMPERINGS[tampering](rows, place)
        if tampered == rows:
            continue  # the last one has nothing to be swapped with
        store.write(tampered)
        broken = store.verified().broken
        assert broken is not None, place
        if tampering not in {"doubled", "beginning cut"}:
            assert broken.sequence == rows[place][0], (place, broken)


def anew(rows: Rows, place: int) -> Rows:
    """The log written anew from there on, every hash as it should be."""
    forged, previous = rows[:place], rows[place - 1][2] if place else bytes(32)
    for sequence, body, _ in rows[place:]:
        record = json.loads(body)
        fields = {**record["fields"], "summary": "nothing happened"}
        made = record_bytes(
            sequence=sequence,
            previous=previous,
            kind="administration",
            at=datetime.fromisoformat(record["at"]),
            call=record["call"],
            fields=fields,
        )
        previous = record_hash(made)
        forged.append((sequence, made, previous))
    return forged


def test_a_fork_that_hangs_together_is_found_by_checkpoints_kept_elsewhere_which_say_between_what_it_parts(
    evidence: Evidence,
) -> None:
    store = Store(evidence.whole)
    rows, proof = store.rows(), Proof(checkpoints=evidence.checkpoints, keys=KNOWN)
    assert store.verified(proof).vouched == evidence.covered
    ends = [read_checkpoint(text, KNOWN).heads[0].sequence for text in evidence.checkpoints]
    for place in range(len(rows)):
        for fork in (anew(rows, place), rows[: place + 1]):
            store.write(fork, head=True)
            assert store.verified().broken is None  # what the log says of itself hangs together
            broken = store.verified(proof).broken
            is_cut = len(fork) < len(rows)
            end = next((end for end in ends if end >= rows[place][0] + is_cut), None)
            if end is None:
                assert broken is None  # no checkpoint goes so far: documented
            else:
                assert broken is not None and broken.sequence == (end if place else 1 if not is_cut else end), broken


def test_who_has_the_key_as_well_is_found_by_checkpoints_kept_elsewhere_and_by_nothing_else(evidence: Evidence) -> None:
    store = Store(evidence.whole)
    fork = anew(store.rows(), 3)
    leaves = [hash_ for _, _, hash_ in fork]
    head = Head(chain=leaves[0], sequence=len(fork), hash=leaves[-1], after=0, root=root(leaves))
    at = datetime.fromisoformat(json.loads(fork[-1][1])["at"])
    made = Checkpoint(number=1, previous=FIRST, issuer="https://authz.example.com", at=at, heads=(head,))
    store.write(fork, head=True)
    theirs = sign_checkpoint(made, KEY)
    assert store.verified(Proof(checkpoints=(theirs,), keys=KNOWN)).broken is None  # the key alone shows nothing
    for kept in (evidence.checkpoints, (*evidence.checkpoints, theirs), (theirs, *evidence.checkpoints)):
        assert store.verified(Proof(checkpoints=kept, keys=KNOWN)).broken is not None


@pytest.mark.parametrize("which", ["whole", pytest.param("pruned", marks=pytest.mark.thorough)])
def test_each_byte_of_the_kept_checkpoints_is_found_by_both_verifiers(
    evidence: Evidence, which: str, tmp_path: Path
) -> None:
    store, file = Store(getattr(evidence, which)), tmp_path / "checkpoints.txt"
    log, keys = exported(store, tmp_path)
    read = verify_audit.read_log(log)
    known = {jwk["kid"]: jwk for jwk in json.loads(keys.read_text())["keys"]}
    for place, altered in flipped("".join(f"{text}\n" for text in evidence.checkpoints).encode()):
        file.write_bytes(altered)
        assert store.verified(Proof(checkpoints=kept_checkpoints(file), keys=KNOWN)).broken is not None, place
        with pytest.raises((verify_audit.BadSignatureError, ValueError, KeyError)):
            texts = altered.decode().removesuffix("\n").split("\n")
            verify_audit.check(read, texts, known)
    assert verify_audit.check(read, list(evidence.checkpoints), known) == evidence.covered


def exported(store: Store, directory: Path) -> tuple[Path, Path]:
    """The files of a chain as `audit export` writes it, and of the public keys."""
    log, keys = directory / "log.jsonl", directory / "keys.json"
    log.write_bytes(b"".join(body + b"\n" for _, body, _ in store.rows()))
    jwks = [{**key.jwk, "kid": key.thumbprint} for key in KNOWN.values()]
    keys.write_text(json.dumps({"keys": jwks}))
    return log, keys


def test_each_byte_of_an_exported_chain_is_found_by_the_independent_verifier(
    evidence: Evidence, tmp_path: Path
) -> None:
    """Two lines at a time, of which the first one is altered: the lines around them have no part in it."""
    rows, log = Store(evidence.pruned).rows(), tmp_path / "pair.jsonl"
    for (_, body, _), (_, following, _) in pairwise(rows):
        for place, altered in flipped(body + b"\n"):
            log.write_bytes(altered + following + b"\n")
            with pytest.raises((ValueError, KeyError, TypeError)):
                print(verify_audit.read_log(log), place)
    for _, altered in flipped(rows[-1][1]):  # nobody else knows the hash of the last one
        log.write_bytes(altered)
        with suppress(ValueError, KeyError, TypeError):
            assert verify_audit.read_log(log)[1][-1] != rows[-1][2].hex()


@pytest.mark.parametrize("which", ["whole", "pruned"])
def test_an_exported_chain_that_was_altered_is_found_by_the_independent_verifiers_command(
    evidence: Evidence, which: str, tmp_path: Path
) -> None:
    log, keys = exported(Store(getattr(evidence, which)), tmp_path)
    kept, data = tmp_path / "checkpoints.txt", log.read_bytes()
    kept.write_text("".join(f"{text}\n" for text in evidence.checkpoints))
    assert verify_audit.main(*map(str, (log, kept, keys))) == 0
    log.write_bytes(data[:99] + b"X" + data[100:])
    assert verify_audit.main(*map(str, (log, kept, keys))) == 1


def test_each_byte_of_an_excerpt_is_found_or_says_the_same(evidence: Evidence) -> None:
    said = shown(evidence.excerpt)
    assert said
    for place, altered in flipped(json.dumps(evidence.excerpt, indent=1).encode()):
        try:
            found = shown(json.loads(altered))
        except (AuthzError, ValueError, AttributeError):
            continue
        assert found == said, place


def shown(document: dict[str, Any]) -> list[tuple[int, Any, Any]]:
    """What an excerpt proves; what no checkpoint covers is the gateway's word alone."""
    entries = verify_excerpt(document, KNOWN)
    return [(one.sequence, one.body, one.checkpoint) for one in entries if one.checkpoint is not None]
