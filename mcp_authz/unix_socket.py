"""The gateway's Unix socket: only its own user can reach it, and whoever connects knows whose it is."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

from mcp_authz.errors import ConfigError

BACKLOG = 2048


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at `path`, mode 0600, in a directory of ours that nobody else can write.

    Whoever calls this holds the lock of the gateway: a socket that lies there is a dead one's, and is replaced.

    Raises:
        ConfigError: the directory is not ours alone, or something else lies there.
    """
    _make_directory(path.parent)
    require_own_directory(path.parent)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        _remove_dead(path)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(f"cannot listen on `{path}` ({why}); set `data_dir`") from None
    finally:
        os.umask(before)
    return listener


def require_own_directory(directory: Path) -> None:
    """Return only if nobody but this user, and root, could put a socket into the directory.

    Raises:
        ConfigError: somebody else could.
    """
    try:
        found = directory.lstat() if directory.parent == Path(tempfile.gettempdir()) else directory.stat()
    except OSError as error:
        raise ConfigError(f"directory `{directory}` cannot be used: {error.strerror}; set `data_dir`") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(f"directory `{directory}` belongs to somebody else; set `data_dir`")
    if found.st_mode & 0o022:
        raise ConfigError(f"others can write into `{directory}`; run: chmod 700 {directory}")


def answers(path: Path) -> bool:
    """Whether somebody listens there; nothing is said to them."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.setblocking(False)
    try:
        probe.connect(str(path))
    except BlockingIOError:
        return True  # its queue is full: it is there
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _remove_dead(path: Path) -> None:
    """No socket lies there; whatever else does stays, and listening fails."""
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"directory `{directory}` cannot be made: {error.strerror}; set `data_dir`") from None
