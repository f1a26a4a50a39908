"""A log verified whole, from archives and the store as they lie on the disk: its chain, its beginning, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mcp_authz.errors import AuthzError, InputError, SignatureRefused
from mcp_authz.rules.checkpoint import (
    Checkpoint,
    Restore,
    chain_through,
    first_disagreement,
    first_gap,
    lost_by,
    read_checkpoint,
)
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.log import GENESIS, Break, Stored, first_break, place_of, record_hash
from mcp_authz.store.offline import LogFile, log_file
from mcp_authz.store.retention_port import LogBase

_MARKS: Final = (b'"kind":"checkpoint"', b'"pruned":{', b'"restored":{')  # of records that are looked at
_PAGE: Final = 5000
_LARGEST: Final = 256 * 1024 * 1024  # bytes of a file of checkpoints
_TRIES: Final = 5  # while somebody prunes the log that is read

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a log is compared with, from elsewhere; without `keys` the log's own word is taken for them."""

    checkpoints: tuple[str, ...] | None = None  # as they were kept
    keys: Mapping[str, PublicKey] | None = None  # by thumbprint
    archives: tuple[Path, ...] = ()  # what was pruned, oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What the log says of its own beginning."""

    until: int  # the last record that is not there
    at: str
    by: str
    archive: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What became of a verification: how far the chain goes, and where it is broken, if it is."""

    first: int  # the number of the first record that was read
    last: int
    head: bytes
    broken: Break | None
    pruned: Pruned | None = None
    checkpoints: int | None = None  # that were compared; None: none were given
    vouched: int | None = None  # the number of the last record that they vouch for
    restores: tuple[Restore, ...] = ()  # backups that took the place of the store, as the log says
    lost: int = 0  # checkpoints of parts that were lost by them

    @property
    def records(self) -> int:
        """How many records were read."""
        return self.last - self.first + 1


def verify(path: Path, told: Told, proof: Proof | None = None) -> Verified:
    """Return whether every record of the log follows from the one before, up to where the log says that it ends.

    A log that was pruned begins behind a record that a signed checkpoint names, or where the archives end. `told`
    hears how many records of how many were checked. A gateway may go on appending and pruning meanwhile.

    Raises:
        StoreError: `path` is no store, or cannot be read.
        InputError: an archive cannot be read.
    """
    with log_file(path) as log:
        return verify_log(log, told, proof or Proof())


def verify_log(log: LogFile, told: Told, proof: Proof) -> Verified:
    """The same of a log that is open already."""
    for _ in range(_TRIES):
        begins = (log.base(), log.first())
        verified = _Verification(log, told, proof).verified()
        if verified.broken is None or (log.base(), log.first()) == begins:
            break
    return verified


def kept_checkpoints(path: Path) -> tuple[str, ...]:
    """The checkpoints in a file, one in each line; one that a place was brought twice counts once.

    Raises:
        InputError: it cannot be read, or is larger than any such file.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"`{path}` is larger than {_LARGEST} bytes")
        lines = path.read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n")
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from None
    return () if lines == [""] else tuple(dict.fromkeys(lines))


@dataclass(slots=True)
class _Seen:
    """What the records say that matters for their beginning, and the hashes that are compared with checkpoints."""

    wanted: frozenset[int]
    base: LogBase
    hashes: dict[int, bytes] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)  # of checkpoints that end where the log begins
    keys: dict[str, PublicKey] = field(default_factory=dict)
    pruned: tuple[int, Pruned] | None = None
    restores: list[Restore] = field(default_factory=list)

    def look(self, row: Stored) -> None:
        if row.sequence in self.wanted:
            self.hashes[row.sequence] = row.hash
        if any(mark in row.body for mark in _MARKS):
            try:
                self._note(row.sequence, json.loads(row.body))
            except (ValueError, KeyError, TypeError, AttributeError, AuthzError):
                return  # a record that is none is found by its hash; one that says nothing here proves nothing

    def _note(self, sequence: int, record: dict[str, Any]) -> None:
        said = record["fields"]
        if record["kind"] == "checkpoint":
            self._know(said.get("jwk"))
            if said.get("sequence") == self.base.sequence and "text" in said:
                self.texts.append(str(said["text"]))
        elif record["kind"] == "administration" and "restored" in said:
            self.restores.append(
                Restore(
                    epoch=int(said["epoch"]),
                    at=str(record["at"]),
                    by=str(said["by"]),
                    of=int(said["restored"]["epoch"]),
                    sequence=int(said["restored"]["sequence"]),
                    lost=_end(said["lost"]),
                )
            )
        elif record["kind"] == "administration" and said["pruned"]["until"] == self.base.sequence:
            pruned = said["pruned"]
            for jwk in pruned["keys"]:
                self._know(jwk)
            if pruned["hash"] == self.base.hash.hex():
                archive = None if pruned["archive"] is None else str(pruned["archive"]["name"])
                what = Pruned(until=self.base.sequence, at=record["at"], by=str(said["by"]), archive=archive)
                self.pruned = (sequence, what)

    def _know(self, jwk: Any) -> None:
        if jwk is not None:
            key = PublicKey.from_jwk(jwk)
            self.keys[key.thumbprint] = key


def _end(lost: dict[str, Any] | None) -> tuple[int, int, bytes] | None:
    """Where what was lost is said to have ended; None where that is not known for sure."""
    if lost is None or not lost["exact"]:
        return None
    return int(lost["epoch"]), int(lost["sequence"]), bytes.fromhex(lost["hash"])


class _Verification:
    def __init__(self, log: LogFile, told: Told, proof: Proof) -> None:
        self._log = log
        self._told = told
        self._proof = proof
        self._base = log.base()
        self._kept: list[Checkpoint] = []
        self._start = (0, GENESIS)
        self._head = (0, GENESIS)

    def verified(self) -> Verified:
        broken = self._read_checkpoints()
        heads = {head.sequence for one in self._kept for head in one.heads}
        seen = _Seen(wanted=frozenset({1, self._base.sequence, *heads}), base=self._base)
        broken = broken or self._chain(seen) or self._beginning(seen) or self._compared(seen)
        kept = None if self._proof.checkpoints is None else len(self._kept)
        lost = self._lost(seen)
        vouched = max((head.sequence for one in self._kept if one not in lost for head in one.heads), default=0)
        return Verified(
            first=self._start[0] + 1,
            last=max(self._head[0], self._start[0]),
            head=self._head[1],
            broken=broken,
            pruned=None if seen.pruned is None else seen.pruned[1],
            checkpoints=kept,
            vouched=None if kept is None else 0 if broken else vouched,
            restores=tuple(seen.restores),
            lost=len(lost),
        )

    def _read_checkpoints(self) -> Break | None:
        texts, keys = self._proof.checkpoints or (), self._proof.keys or {}
        for number, text in enumerate(texts, start=1):
            try:
                self._kept.append(read_checkpoint(text, keys))
            except (SignatureRefused, InputError) as error:
                return Break(sequence=0, why=f"line {number} of the checkpoints: {error}")
        gap = first_gap(texts, self._kept)
        return None if gap is None else Break(sequence=0, why=gap)

    def _chain(self, seen: _Seen) -> Break | None:
        """Every record follows from the one before, to the head, also of what was appended meanwhile."""
        rows = self._beginning_rows()
        self._head = self._log.head()
        self._start = start = self._first_place(rows)
        while True:
            broken = first_break(_watched(rows, seen), head=self._head, start=start)
            if broken is not None or not self._log.after(self._head[0], 1):
                return broken
            start, head = self._head, self._log.head()
            if head == start:  # head and record are written together, so this one was put there otherwise
                return Break(sequence=head[0] + 1, why=f"record {head[0] + 1} stands behind the end of the log")
            self._head, rows = head, _Rows(_rows(self._log, start[0], head[0], self._told))

    def _beginning_rows(self) -> _Rows:
        """The rows of the archives, and those of the log that come after them."""
        archived = [_Rows(_lines(archive)) for archive in self._proof.archives]
        last = self._log.head()[0]

        def rows() -> Iterator[Stored]:
            until = None
            for archive in archived:
                for row in archive:
                    until = row.sequence
                    yield row
            # Rows before the base are on their way out; until they are gone they must lead to it.
            after = self._log.first() - 1 if until is None else until
            yield from _rows(self._log, after, last, self._told)

        return _Rows(rows())

    def _first_place(self, rows: _Rows) -> tuple[int, bytes]:
        """What the first row must follow: the base, or where there are rows before it, what leads to it."""
        first, base = rows.first, self._base
        if base.sequence == 0 or (first is not None and first.sequence == 1):
            return 0, GENESIS
        if first is None or first.sequence > base.sequence:
            return base.sequence, base.hash
        place = place_of(first.body)
        return first.sequence - 1, GENESIS if place is None else place[1]

    def _beginning(self, seen: _Seen) -> Break | None:
        """Why the log may not begin where it does, or None."""
        base = self._base
        if base.sequence == 0:
            whole = base == LogBase(sequence=0, hash=GENESIS, chain=bytes(32), told=0)
            return None if whole else Break(sequence=1, why="where the log begins was altered")
        found = seen.hashes.get(base.sequence, base.hash if self._start[0] == base.sequence else None)
        if base.sequence > self._head[0] or found != base.hash:
            return Break(sequence=base.sequence, why=f"the log is said to follow another record {base.sequence}")
        if seen.pruned is None or seen.pruned[0] != base.told:
            return Break(
                sequence=base.sequence, why=f"the log was cut: no record says that it begins behind {base.sequence}"
            )
        chain = seen.hashes.get(1) or chain_through(self._vouching(seen), base.sequence, base.hash)
        if chain is None:
            why = f"the log was cut: no checkpoint by a key that is known names record {base.sequence}"
            return Break(sequence=base.sequence, why=why)
        if chain != base.chain:
            return Break(sequence=base.sequence, why="the log is said to be the rest of another one")
        return None

    def _vouching(self, seen: _Seen) -> Iterator[Checkpoint]:
        yield from self._kept
        for text in seen.texts:
            try:
                yield read_checkpoint(text, seen.keys if self._proof.keys is None else self._proof.keys)
            except (SignatureRefused, InputError):
                continue

    def _compared(self, seen: _Seen) -> Break | None:
        """What is before the base leads to it, and the base is vouched for: only what is behind it is compared."""
        base = self._base if self._start[0] else LogBase(sequence=0, hash=GENESIS, chain=b"", told=0)
        chain = self._base.chain if self._base.sequence else seen.hashes.get(1, b"")
        hashes = {self._start[0]: self._start[1], **seen.hashes}
        restores = (*self._forgotten(seen), *seen.restores)
        return first_disagreement(self._kept, chain=chain, hash_at=hashes.get, after=base.sequence, restores=restores)

    def _lost(self, seen: _Seen) -> list[Checkpoint]:
        """The checkpoints of what was lost by restores, as far as they would be compared."""
        after, restores = self._start[0] and self._base.sequence, (*self._forgotten(seen), *seen.restores)
        ends = ((one, head) for one in self._kept for head in one.heads if head.sequence >= after)
        return [one for one, head in ends if lost_by(one, head, restores) is not None]

    def _forgotten(self, seen: _Seen) -> Iterator[Restore]:
        """The restore that a pruned log tells of no more: a checkpoint of its epoch ends where the log begins."""
        base = self._base
        if self._start[0]:
            for one in self._vouching(seen):
                if one.epoch and (base.sequence, base.hash) in {(head.sequence, head.hash) for head in one.heads}:
                    yield Restore(epoch=one.epoch, at="", by="", of=-1, sequence=0, lost=None)
                    return


class _Rows:
    """Rows whose first is known before they are read."""

    def __init__(self, rows: Iterator[Stored]) -> None:
        self._rows = rows
        self.first = next(rows, None)

    def __iter__(self) -> Iterator[Stored]:
        if self.first is not None:
            yield self.first
        yield from self._rows


def _watched(rows: _Rows, seen: _Seen) -> Iterator[Stored]:
    for row in rows:
        seen.look(row)
        yield row


def _rows(log: LogFile, after: int, until: int, told: Told) -> Iterator[Stored]:
    while after < until:
        page = log.after(after, min(_PAGE, until - after))
        if not page:
            return
        yield from (row for row in page if row.sequence <= until)
        after = page[-1].sequence
        told(min(after, until), until)


def _lines(path: Path) -> Iterator[Stored]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                body = line.removesuffix(b"\n")
                place = place_of(body)
                if place is None:
                    raise InputError(f"line {number} of `{path}` is no record of a log; name what was archived")
                yield Stored(sequence=place[0], body=body, hash=record_hash(body))
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from None
