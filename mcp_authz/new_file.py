"""A new file for this user alone: whole and on the disk once it is there, and never in the place of another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def write_new(path: Path, content: str | bytes) -> None:
    """The file is there with this content (text as UTF-8), mode 0600, and on the disk; or nothing is.

    Its name is as durable as its directory: see `flush`.

    Raises:
        FileExistsError: there is something at `path`, which stays as it is.
        OSError: it cannot be written.
    """
    descriptor = os.open(path, _NEW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """What the file has, or which names the directory has, is on the disk.

    Raises:
        OSError: it is not.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
