"""Lock files: one process holds a lock at a time, and its end, whatever it was, lets go of it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp_authz.errors import ConfigError, Conflict

_NOTE = 4096  # bytes of a note that are read


@contextmanager
def locked(path: Path, note: str = "") -> Iterator[None]:
    """Nobody else holds the lock while the body runs; `note` says to others who does.

    Raises:
        Conflict: another process holds it.
        ConfigError: there can be no such file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"lock file `{path}` cannot be used: {error.strerror}; set `data_dir`") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"`{path}` is locked by another process") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, note.encode())
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def note_of(path: Path) -> str:
    """What the holder of the lock says of itself; empty when it says nothing."""
    try:
        with path.open("rb") as file:
            return file.read(_NOTE).decode("utf-8", "replace").strip()
    except OSError:
        return ""
