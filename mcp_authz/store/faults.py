"""What SQLite says went wrong, as a sentence that says what to do."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from typing import Final

from mcp_authz.errors import AuthzError, Conflict, NotFound, StoreError, StoreInDoubt, StoreUpgraded

_ADVICE: Final[dict[int, str]] = {
    sqlite3.SQLITE_FULL: "the disk is full; free space and try again",
    sqlite3.SQLITE_READONLY: "it cannot be written; make the file and its directory writable for this user",
    sqlite3.SQLITE_PERM: "it may not be used; make the file and its directory readable and writable for this user",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that file and directory exist and belong to this user",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; find that process, or try again",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked; find that process, or try again",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; stop the gateway and restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is no database; name another file, or restore a backup",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write; check the disk, and its quota, and try again",
}


_UNCHANGED: Final = "; nothing was changed"

_OF_SYSTEM: Final[dict[int, int]] = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EIO: sqlite3.SQLITE_IOERR,
}


def store_error(fault: Exception, path: Path) -> StoreError:
    """Return the error that says what is wrong with the store at `path`, and what to do about it."""
    if isinstance(fault, StoreUpgraded):
        return fault
    if isinstance(fault, StoreError):
        return StoreError(str(fault))
    code = getattr(fault, "sqlite_errorcode", None) or _OF_SYSTEM.get(getattr(fault, "errno", None) or 0)
    advice = _ADVICE.get(code & 0xFF, str(fault)) if code is not None else str(fault)
    return StoreError(f"store `{path}`: {advice}{_UNCHANGED}")


def in_doubt(error: StoreError) -> StoreInDoubt:
    """Return the same of a commit that failed: what it wrote may be on the disk, and may come back with it."""
    text = str(error).removesuffix(_UNCHANGED)
    return StoreInDoubt(f"{text}; whether it was written cannot be said, look before you try again")


def value_error(fault: sqlite3.Error) -> AuthzError:
    """Return what it means that a value was refused: it exists already, or what it refers to does not, or it is odd."""
    match getattr(fault, "sqlite_errorcode", None):
        case sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY | sqlite3.SQLITE_CONSTRAINT_UNIQUE:
            return Conflict(f"it exists already ({str(fault).rpartition(': ')[2]})")
        case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            return NotFound("it refers to something that does not exist")
        case _:
            return StoreError(f"the store refuses the value: {fault}; nothing was changed")
