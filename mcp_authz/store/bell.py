"""Wakes whoever waits in another process as soon as something is written: one byte to the socket of each open store.

The sockets lie in a folder that only this user can enter, one for each store that somebody waits at. A byte says
nothing: whoever is woken looks at the database. A byte that is lost costs time alone, for everybody who waits looks
now and then unasked.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mcp_authz import limits, unix_socket
from mcp_authz.errors import ConfigError

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_PATH: Final = 103  # bytes of a Unix socket's path that every system takes
_NAME: Final = 32  # bytes of an instance's name, at most
_DRAINED: Final = 64  # bytes that are read at once; the rest is read at once again


class Bell:
    """One open store among those of a database; the others are told by `ring`, and this one hears once it listens."""

    def __init__(self, database: Path, instance: str) -> None:
        self._folder = folder_of(database)
        self._name = instance
        self._ear: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mouth: socket.socket | None = None

    def listen(self, heard: Callable[[], None]) -> bool:
        """Whether `heard` is called in the running loop whenever another store rings; a second time changes nothing."""
        loop = asyncio.get_running_loop()
        if self._ear is None:
            self._ear = self._bound()
        if self._ear is not None and self._loop is not loop and (self._loop is None or self._loop.is_closed()):
            loop.add_reader(self._ear, self._hear, heard)
            self._loop = loop
        return self._ear is not None

    def ring(self) -> None:
        """Every other store that listens is woken; one that is gone is forgotten. Never waits, never fails."""
        with suppress(OSError), self._others() as names:
            for name in names:
                self._tell(self._folder / name)

    def close(self) -> None:
        """Nothing is heard any more, and nothing of this store is left in the folder."""
        if self._loop is not None and self._ear is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._ear)
        for end in (self._ear, self._mouth):
            if end is not None:
                end.close()
        if self._ear is not None:
            with suppress(OSError):
                (self._folder / self._name).unlink()
                self._folder.rmdir()  # where it was the last one
        self._ear = self._mouth = self._loop = None

    def _bound(self) -> socket.socket | None:
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear.setblocking(False)
        for _ in range(3):  # whoever leaves takes an empty folder along
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                unix_socket.require_own_directory(self._folder)
                ear.bind(str(self._folder / self._name))
                return ear
            except FileNotFoundError:
                continue
            except (OSError, ConfigError):
                break
        ear.close()
        return None

    def _hear(self, heard: Callable[[], None]) -> None:
        assert self._ear is not None  # noqa: S101 - it is what was read from
        with suppress(OSError):
            for _ in range(_DRAINED):
                self._ear.recv(1)
        heard()

    @contextmanager
    def _others(self) -> Iterator[list[str]]:
        """The names of the other stores, as long as the folder is ours alone."""
        folder = os.open(self._folder, _FOLDER)
        try:
            found = os.fstat(folder)
            ours = found.st_uid == os.getuid() and not found.st_mode & 0o022
            names = os.listdir(folder)[: limits.STORES_TOLD] if ours else []  # noqa: PTH208 - of what is open here
            yield [name for name in names if name.startswith("i_") and name != self._name]
        finally:
            os.close(folder)

    def _tell(self, path: Path) -> None:
        if self._mouth is None:
            self._mouth = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._mouth.setblocking(False)
        try:
            self._mouth.sendto(b"!", str(path))
        except ConnectionRefusedError:  # its process was killed
            with suppress(OSError):
                if stat.S_ISSOCK(path.lstat().st_mode):
                    path.unlink()
        except OSError:
            pass  # it left just now, or has not read what it was told before


def folder_of(database: Path) -> Path:
    """Where the sockets of a database are: beside it, or elsewhere when their paths would be too long for sockets."""
    beside = database.with_name(f"{database.name}.bells")
    if len(os.fsencode(beside)) + 1 + _NAME <= _PATH:
        return beside
    name = hashlib.sha256(os.fsencode(database)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"mcp-authz-{os.getuid()}-{name}"
