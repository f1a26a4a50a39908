"""A process that prunes a store into a folder of archives, and kills itself at one moment of it, as `kill -9` would."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio

from mcp_authz import limits
from mcp_authz.retention import Prunable, archive_name, prunable, prune, remove_pruned
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import Time

MONTH = limits.LOG_KEPT_LEAST


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal(SqliteStore):
    """A store whose process ends as it is about to say where its log begins, or as it has said so."""

    dies = ""

    async def prune(self, *args: object) -> int:
        if self.dies == "with an archive that nobody knows of":
            die()
        told = await super().prune(*args)  # type: ignore[arg-type]
        if self.dies == "before a row is gone":
            die()
        return told


async def main(directory: Path, months: int, where: str) -> None:
    clock = Time()
    clock.pass_(months * MONTH)
    Mortal.dies = where
    store = Mortal.open(directory / "store.db", sealer=SEALER, clock=clock)
    if where == "before the archive has its name":
        sys.addaudithook(lambda deed, _: die() if deed == "os.link" else None)
    limits.PRUNED_AT_ONCE = 3  # type: ignore[misc]
    await remove_pruned(store)
    what = await prunable(store, MONTH, clock())
    assert isinstance(what, Prunable), what
    archive = directory / "archives" / archive_name(what)
    written = (lambda _: die()) if where == "while the archive is written" else lambda _: None
    await prune(store, clock, what, path=directory / "store.db", by="gateway", archive=archive, told=written)
    await remove_pruned(store, (lambda _: die()) if where == "when some rows are gone" else lambda _: None)
    await store.aclose()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
