"""How long the log is kept: what is older goes from its beginning, up to a record that a signed checkpoint names.

First it is told on record, and archived where somebody wants that; then the log begins later, at once; then the rows
go, a few at a time, so that nobody waits. Whatever is still there in between leads to the beginning, and is verified.
"""

from __future__ import annotations

import fcntl
import filecmp
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

import anyio
import anyio.from_thread
import anyio.lowlevel

from mcp_authz import limits
from mcp_authz.checkpoints import checkpoint_keys
from mcp_authz.errors import ConfigError, SignatureRefused, StoreError
from mcp_authz.new_file import flush
from mcp_authz.rules.checkpoint import Checkpoint, Head, checkpoint_digest, read_checkpoint
from mcp_authz.rules.duration import shown_duration
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.log import first_break, timestamp
from mcp_authz.store.offline import log_file
from mcp_authz.store.ports import Clock, Event, Record, Store
from mcp_authz.store.retention_port import LogBase

Told = Callable[[int], None]  # hears how many records are archived, or rows gone
_ARCHIVE: Final = re.compile(r"log-\d{12}-\d{12}\.jsonl")
_PART: Final = ".part"  # of an archive that is being written, by whoever has it locked


def _quiet(_: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Nothing can be pruned."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prunable:
    """What can be pruned: the records behind `after`, up to the one that a checkpoint ends with."""

    after: LogBase
    head: Head  # the last of them
    number: int  # of the checkpoint
    text: str
    older_than: timedelta
    at: datetime  # by the clock that this was found with
    keys: tuple[Mapping[str, Any], ...]  # of all checkpoints until now, as JWKs

    @property
    def records(self) -> int:
        """How many go."""
        return self.head.sequence - self.after.sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """Where pruned records are, as they lay in the log."""

    path: Path
    sha256: str


async def prunable(store: Store, keep: timedelta, now: datetime) -> Prunable | Kept:
    """Return what is older than `keep`, as far as a checkpoint goes and nothing refers to it.

    Raises:
        StoreError: the log and its checkpoints do not fit together, or the store cannot be read.
    """
    after, needed = await store.log_base(), await store.needed_from()
    age = shown_duration(keep)
    if await store.last_of("checkpoint") is None:
        return Kept(why="there is no checkpoint, and without one nothing is pruned; `mcp-authz serve` makes them")
    found: Record | None = None
    is_needed = False
    async for record in _checkpoints(store, after.sequence, now - keep, now):
        is_needed = needed is not None and int(record.event.fields["sequence"]) >= needed
        if is_needed:
            break
        found = record
    if found is None and is_needed:
        return Kept(why=f"record {needed} is needed still, by a held call or by what `policy replay` is kept for")
    if found is None:
        return Kept(why=f"no checkpoint is older than {age} that ends behind record {after.sequence}")
    jwks = (await checkpoint_keys(store))["keys"]
    checkpoint = _verified(found, jwks)
    head = next((head for head in checkpoint.heads if head.sequence == found.event.fields["sequence"]), None)
    if head is None or await store.record_hashes(after=head.sequence - 1, until=head.sequence) != (head.hash,):
        raise StoreError(f"checkpoint {checkpoint.number} is not of this log; run `mcp-authz audit verify`")
    return Prunable(
        after=after,
        head=head,
        number=checkpoint.number,
        text=str(found.event.fields["text"]),
        older_than=keep,
        at=now,
        keys=tuple(jwks),
    )


async def _checkpoints(store: Store, base: int, until: datetime, now: datetime) -> AsyncIterator[Record]:
    """Those up to this time that end behind `base`, oldest first, and none behind one that is younger.

    One from the future was dated by a clock that was wrong: it says nothing of those around it.
    """
    after = base
    while page := await store.records(after=after, kind="checkpoint"):
        for record in page:
            after = record.sequence
            if record.event.at > now:
                continue
            if record.event.at > until:
                return
            if "text" in record.event.fields and int(record.event.fields["sequence"]) > base:
                yield record
        await anyio.lowlevel.checkpoint()


def _verified(record: Record, jwks: list[dict[str, Any]]) -> Checkpoint:
    keys = {key.thumbprint: key for key in (PublicKey.from_jwk(jwk) for jwk in jwks)}
    try:
        return read_checkpoint(str(record.event.fields["text"]), keys)
    except SignatureRefused as error:
        raise StoreError(f"record {record.sequence}: {error}; run `mcp-authz audit verify`") from None


async def prune(
    store: Store, clock: Clock, what: Prunable, *, path: Path, by: str, archive: Path | None, told: Told = _quiet
) -> Archived | None:
    """The records are in `archive`, if one is named, the log tells of it and begins behind them; rows are there still.

    `path` is where the store lies. Who stops waiting before the log tells of it has pruned nothing.

    Raises:
        StoreError: the records do not hang together, so that nothing was pruned.
        ConfigError: the archive cannot be written.
    """
    archived = await anyio.to_thread.run_sync(_archived, path, what, archive, told)
    chain = what.after.chain if what.after.sequence else what.head.chain
    base = LogBase(sequence=what.head.sequence, hash=what.head.hash, chain=chain, told=0)
    await store.prune(base, _event(clock(), what, by, archived))
    return archived


async def remove_pruned(store: Store, told: Told = _quiet) -> int:
    """How many rows of pruned records were removed: all that there were, a few at a time."""
    removed = 0
    while some := await store.remove_pruned(limits.PRUNED_AT_ONCE):
        removed += some
        told(removed)
        await anyio.sleep(limits.PRUNING_PAUSE.total_seconds())
    return removed


def archive_name(what: Prunable) -> str:
    """What the file of these records is called in a directory of archives; names sort as the records do."""
    return f"log-{what.after.sequence + 1:012}-{what.head.sequence:012}.jsonl"


def _event(at: datetime, what: Prunable, by: str, archived: Archived | None) -> Event:
    first, last = what.after.sequence + 1, what.head.sequence
    where = "archived nowhere" if archived is None else f"archived in {archived.path.name}"
    fields = {
        "summary": f"records {first} to {last} were pruned, older than {shown_duration(what.older_than)}, {where}",
        "by": by,
        "pruned": {
            "from": first,
            "until": last,
            "hash": what.head.hash.hex(),
            "checkpoint": what.number,
            "digest": checkpoint_digest(what.text).hex(),
            "archive": None if archived is None else {"name": archived.path.name, "digest": archived.sha256},
            "keys": [dict(key) for key in what.keys],
        },
    }
    return Event(kind="administration", at=at, fields=fields)


def _archived(path: Path, what: Prunable, archive: Path | None, told: Told) -> Archived | None:
    """The records hang together from the one that the log begins behind to the checkpoint, and are in the archive."""
    digest = hashlib.sha256()
    with nullcontext() if archive is None else _whole_file(archive) as file:
        for line in _lines(path, what, told):
            digest.update(line)
            if file is not None:
                file.write(line)
    return None if archive is None else Archived(path=archive, sha256=digest.hexdigest())


def _lines(path: Path, what: Prunable, told: Told) -> Iterator[bytes]:
    start = (what.after.sequence, what.after.hash)
    old, now = (timestamp(at).encode() for at in (what.at - what.older_than, what.at))
    with log_file(path) as log:
        for _, rows in log.pages(after=start[0], until=what.head.sequence):
            if (broken := first_break(rows, head=None, start=start)) is not None:
                raise StoreError(f"the log is broken: {broken.why}; nothing was pruned, run `mcp-authz audit verify`")
            for row in rows:
                if old < row.body[7:34] <= now:  # RFC 8785 sorts the members, so that each record begins with its time
                    raise StoreError(
                        f"record {row.sequence} is younger than {shown_duration(what.older_than)}, and a checkpoint "
                        "behind it is not: a clock was wrong; nothing was pruned, try again when that record is old"
                    )
                start = (row.sequence, row.hash)
                yield row.body + b"\n"
            told(start[0] - what.after.sequence)
            anyio.from_thread.check_cancelled()
    if start != (what.head.sequence, what.head.hash):
        raise StoreError(
            f"the log is broken behind record {start[0]}; nothing was pruned, run `mcp-authz audit verify`"
        )


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """What is written comes to be at `path` when it is whole, for its owner alone; after an error nothing is there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_parts(path)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PART, dir=path.parent)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield file
                file.flush()
                os.fsync(file.fileno())
            _forget_tries(Path(name), path)
            _put(Path(name), path)
            flush(path.parent)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"archive `{path}` cannot be written: {error.strerror}; nothing was pruned") from None


def _remove_parts(path: Path) -> None:
    """What processes that were killed left half written of this archive, or of one by our name, is gone."""
    for left in path.parent.glob(f".*{_PART}"):
        name = left.name[1:].removesuffix(_PART).rpartition(".")[0]
        if name == path.name or _ARCHIVE.fullmatch(name):
            with suppress(OSError), left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever writes one has it locked
                left.unlink()


def _forget_tries(new: Path, path: Path) -> None:
    """What a process left that was killed before the log told of its archive is gone, where all of it is in this one.

    Whoever takes all archives of the folder would have these records twice.
    """
    if _ARCHIVE.fullmatch(path.name) is None:
        return
    first, last = path.name.rsplit("-", 1)
    for other in path.parent.glob(f"{first}-*.jsonl"):
        if _ARCHIVE.fullmatch(other.name) and other.name.rsplit("-", 1)[1] < last and _begins_with(new, other):
            other.unlink()


def _begins_with(whole: Path, part: Path) -> bool:
    with whole.open("rb") as file, part.open("rb") as beginning:
        while some := beginning.read(1 << 20):
            if file.read(len(some)) != some:
                return False
    return True


def _put(new: Path, path: Path) -> None:
    """The file is at `path`; what is there already is the same, of a try before: never another one, such as of an
    epoch that a restore ended.
    """
    try:
        path.hardlink_to(new)
    except FileExistsError:
        if not filecmp.cmp(new, path, shallow=False):
            raise ConfigError(f"archive `{path}` is of other records; move it away, nothing was pruned") from None
    new.unlink()
