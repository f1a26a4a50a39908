"""A disk that is full while a store is copied, restored or archived: nothing half done is left, or replaced."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_authz.checkpoint_sinks import FileSink
from mcp_authz.checkpoints import Checkpoints
from mcp_authz.cli.verification import verify
from mcp_authz.errors import AuthzError, ConfigError
from mcp_authz.limits import LOG_KEPT_LEAST
from mcp_authz.retention import Prunable, prunable, prune
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.store.copying import copy, inspect
from mcp_authz.store.restoring import Asked, restore
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import MINUTE, Time, event

ROOM = 64 * 1024


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process grows beyond `ROOM`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def modes(directory: Path) -> dict[str, int]:
    """What is in it, and who may read and write that."""
    return {str(it.relative_to(directory)): it.stat().st_mode & 0o777 for it in directory.rglob("*")}


async def test_a_full_disk_leaves_nothing_half_done_and_whatever_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    path, kept, archives = tmp_path / "store.db", tmp_path / "kept.db", tmp_path / "archives"
    clock, key = Time(), PrivateKey.from_seed(bytes(32))
    store = SqliteStore.open(path, sealer=SEALER, clock=clock)
    for number in range(30):
        await store.append(replace(event(call=f"c_{number}", text="x" * 8000), at=clock()))
    sinks = [FileSink(path=tmp_path / "checkpoints.txt")]
    made = Checkpoints(store=store, clock=clock, issuer="https://a.example", signing=lambda: key, sinks=sinks)
    assert await made.write() is not None
    clock.pass_(LOG_KEPT_LEAST + MINUTE)
    what = await prunable(store, LOG_KEPT_LEAST, clock())
    assert isinstance(what, Prunable)
    with no_room(), pytest.raises(ConfigError, match="nothing was pruned"):
        await prune(store, clock, what, path=path, by="user:op", archive=archives / "log.jsonl")
    assert modes(archives) == {} and (await store.log_base()).sequence == 0
    with no_room(), pytest.raises(AuthzError):
        copy(path, kept, lambda *_: None)
    assert not kept.exists()
    copy(path, kept, lambda *_: None)
    await store.append(event())
    await store.aclose()
    before, there = inspect(path), modes(tmp_path)
    asked = Asked(backup=kept, reason="x", by="user:op")
    with no_room(), pytest.raises(AuthzError):
        restore(path, asked, sealer=SEALER, clock=clock, seen=(), told=lambda *_: None)
    assert inspect(path) == before and verify(path, lambda *_: None).broken is None
    assert modes(tmp_path) == there
    restore(path, asked, sealer=SEALER, clock=clock, seen=(), told=lambda *_: None)
    store = SqliteStore.open(path, sealer=SEALER, clock=clock)
    again = await prunable(store, LOG_KEPT_LEAST, clock())
    assert isinstance(again, Prunable)
    await prune(store, clock, again, path=path, by="user:op", archive=archives / "log.jsonl")
    await store.aclose()
    assert {name for name, mode in modes(tmp_path).items() if mode != 0o600} == {"archives"}
    assert modes(tmp_path)["archives"] == 0o700


async def test_a_link_that_lies_where_something_is_to_be_written_is_not_followed(tmp_path: Path) -> None:
    path, prize = tmp_path / "store.db", tmp_path / "prize"
    await SqliteStore.open(path, sealer=SEALER, clock=Time()).aclose()
    prize.write_bytes(b"of somebody else")
    witness = path.with_name("store.db.witness")
    witness.unlink()
    for name in ("kept.db", "store.db.restoring", "store.db.since-0"):
        (tmp_path / name).symlink_to(prize)
    copy(path, tmp_path / "kept.db", lambda *_: None)
    asked = Asked(backup=tmp_path / "kept.db", reason="x", by="user:op")
    restore(path, asked, sealer=SEALER, clock=Time(), seen=(), told=lambda *_: None)
    assert prize.read_bytes() == b"of somebody else" and not (tmp_path / "kept.db").is_symlink()
