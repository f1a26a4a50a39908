"""A process that kills itself, as `kill -9` would, in the middle of what it does to a store."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from mcp_authz.store import schema
from mcp_authz.store.copying import copy
from mcp_authz.store.restoring import Asked, restore
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import Time


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch(where: str) -> None:
    """The process is killed just before it opens (`os.open`), renames or links a file, as `where` says."""
    deed, _, name = where.partition(" ")

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {deed, f"os.{deed}"} and (not name or str(arguments[0]).endswith(f"/{name}")):
            if event == "open" and arguments[1] is not None:  # that was `open`, which reads here
                return
            die()

    sys.addaudithook(look)


class Interrupted(tuple[str, ...]):
    """Statements of which the last one is never reached."""

    def __iter__(self) -> Iterator[str]:
        yield from tuple(self[n] for n in range(len(self) - 1))
        die()


def main(directory: Path, what: str, where: str) -> None:
    clock, store = Time(), directory / "store.db"
    clock.pass_(timedelta(minutes=30))
    watch(where)
    if what == "restore":
        unknown = not store.exists()
        asked = Asked(backup=directory / "kept.db", reason="x", by="user:op", revocations_unknown=unknown)
        restore(store, asked, sealer=SEALER, clock=clock, seen=(), told=lambda *_: None)
    elif what == "backup":
        copy(store, directory / "backup.db", lambda *_: die() if where == "copied" else None)
    else:
        schema.MIGRATIONS = (*schema.MIGRATIONS[:-1], Interrupted(schema.MIGRATIONS[-1]))  # type: ignore[misc]
        SqliteStore.open(store, sealer=SEALER, clock=clock)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
