"""The files of a store: who may read them, whether the database is still the one that was opened, and the locks.

The write lock puts the batches of all processes in a row, checkpoints included. It makes waiting bounded and fair, and
SQLite before 3.51.3 can damage a database when two processes write and checkpoint in the same instant (its WAL-reset
bug). The lock of an instance tells other processes that whoever claimed a hold is still there.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from mcp_authz.errors import StoreError, StoreUpgraded

WAL: Final = "-wal"
LOCK: Final = ".lock"
_POLL_SECONDS: Final = 0.0005
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def prepare(path: Path) -> None:
    """The database file exists, for this user only; a directory that had to be made is for this user only too.

    An existing file is never opened here: closing it would give up the locks that SQLite holds on it in this process.

    Raises:
        OSError: it cannot be made.
        StoreError: the path is something else than a file, or what was there is gone.
    """
    require_not_lost(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, _OPEN | os.O_EXCL, 0o600))
    if not path.is_file():
        raise StoreError(f"store `{path}`: it is no file; name a file as the store")
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


def free_siblings(path: Path) -> None:
    """The files that SQLite keeps beside the database can be written.

    It made them with the mode that the database had then; one that was read-only for a while left them so.
    """
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError, PermissionError):
            path.with_name(path.name + suffix).chmod(0o600)


class FileLost(StoreError):
    """A file that is open is not where it was."""


def require_not_lost(path: Path) -> None:
    """Return only if there never was a store at this path, or if it is there: one that is gone is not begun anew.

    Raises:
        StoreError: the database is gone, and what belongs to it is there.
    """
    beside = [path.with_name(path.name + suffix) for suffix in (LOCK, WAL)]
    left = [it for it in beside if it.exists()]  # made after the database: asked before it, so that both are there
    if left and not path.exists():
        raise StoreError(
            f"store `{path}`: the file is gone, and `{left[0].name}` says that there was one; put it back, or restore "
            f"a backup; to begin with nothing, remove {' and '.join(f'`{it.name}`' for it in left)} too"
        )


class DatabaseFile:
    """The files that were opened; a path can later lead to another one, or to none.

    SQLite itself would not notice, and go on with files that nobody will ever see again.
    """

    def __init__(self, path: Path, *, schema: int) -> None:
        """`schema` is the version of the tables that it is used with."""
        self.path = path
        self._schema = schema
        self._is_upgraded = False
        self._log = os.fspath(path.with_name(path.name + WAL))
        self._identity = _identity(path)
        self._log_identity: tuple[int, int] | None = None
        self._connections = 0
        self._lock = threading.Lock()
        if self._identity is None:
            raise self._gone()

    def require(self) -> None:
        """Return only if the paths still lead to the files that were opened, with the tables that they had.

        Raises:
            StoreError: one of them is gone, another one is in its place, or it was upgraded.
        """
        if self._is_upgraded:
            raise StoreUpgraded
        found = _identity(self.path)
        if found is None:
            raise self._gone()
        if found != self._identity:
            raise FileLost(f"store `{self.path}`: another file is in its place; start again to use that one")
        if self._log_identity is not None and _identity(self._log) != self._log_identity:
            raise FileLost(
                f"store `{self.path}`: its `{WAL}` file was removed while it was in use; leave it to the gateway, and "
                "try again"
            )

    def require_schema(self, version: int) -> None:
        """Return only if the tables are of no later version; from then on nothing of them is used by this process.

        Raises:
            StoreUpgraded: they are.
        """
        if version > self._schema:
            self._is_upgraded = True
            raise StoreUpgraded

    def opened(self) -> None:
        """Another connection is open; the log that the first of them found stays until the last is closed."""
        with self._lock:
            if self._connections == 0:
                self._log_identity = _identity(self._log)
            self._connections += 1

    def closed(self) -> None:
        """One fewer; the last one has put what it wrote into the database, and has taken the log along."""
        with self._lock:
            self._connections -= 1
            if self._connections == 0:
                self._log_identity = None

    def _gone(self) -> StoreError:
        return FileLost(f"store `{self.path}`: the file is gone; put it back, or restore a backup")


def _identity(path: Path | str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - asked before each transaction; this is the short way
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


class WriteLock:
    """`<database>.lock`: whoever has it may write."""

    def __init__(self, path: Path, *, patience: float) -> None:
        """`patience` is how many seconds `take` waits."""
        self._path = path.with_name(path.name + LOCK)
        self._patience = patience
        self._file: int | None = None
        self._taken = False

    def take(self) -> None:
        """No other process, and no other store of this process, writes until `release`.

        Raises:
            StoreError: somebody else has had it for too long.
        """
        if self._file is None:
            self._file = os.open(self._path, _OPEN, 0o600)
        until = time.monotonic() + self._patience
        while not _locked(self._file):
            if time.monotonic() >= until:
                raise StoreError(
                    f"store `{self._path}`: another process has kept it locked for {self._patience:g} s; "
                    "find that process, or try again"
                )
            time.sleep(_POLL_SECONDS)
        self._taken = True

    def release(self) -> None:
        """Others may write; releasing what was not taken does nothing."""
        if self._taken and self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._taken = False

    def close(self) -> None:
        """The lock is released and its file closed."""
        self._taken = False
        if self._file is not None:
            os.close(self._file)
            self._file = None


class InstanceLock:
    """`<database>.<instance>.lock`: held while the store is open; the kernel gives it up when its process ends."""

    def __init__(self, path: Path, instance: str) -> None:
        self.name = instance
        self._database = path
        self._path = _lock_path(path, instance)
        self._file: int | None = None
        while self._file is None:
            file = os.open(self._path, _OPEN, 0o600)
            # Somebody who looks for instances that are gone may have taken and removed the file in between.
            if _locked(file) and _is_at(file, self._path):
                self._file = file
            else:
                os.close(file)

    def gone(self, instances: Iterable[str]) -> frozenset[str]:
        """Those of `instances` that no living process holds open; what they left behind is removed."""
        return frozenset(instance for instance in instances if not _is_held(_lock_path(self._database, instance)))

    def sweep(self) -> None:
        """The lock files that dead processes left are removed."""
        for path in self._database.parent.glob(f"{self._database.name}.i_*.lock"):
            _is_held(path)

    def close(self) -> None:
        """The instance is gone."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def _lock_path(path: Path, instance: str) -> Path:
    return path.with_name(f"{path.name}.{instance}.lock")


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _is_held(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        if not _locked(file):
            return True
        if _is_at(file, path):
            path.unlink()
        return False
    finally:
        os.close(file)
