"""What another user of the operating system could do to a file, by owners and modes; access lists are not seen."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from mcp_authz.errors import NotFound

READ, WRITE, SEARCH = 4, 2, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OsUser:
    """A user of the operating system with all groups."""

    name: str
    uid: int
    gids: frozenset[int]


def os_user(name: str) -> OsUser:
    """The user of this name, or with this number.

    Raises:
        NotFound: the system knows no such user.
    """
    try:
        known = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise NotFound(f"there is no user `{name}` on this system; `id -un` says who you are") from None
    groups = {group.gr_gid for group in grp.getgrall() if known.pw_name in group.gr_mem}
    return OsUser(name=known.pw_name, uid=known.pw_uid, gids=frozenset({known.pw_gid, *groups}))


def myself() -> OsUser:
    """The user of this process."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid-{uid}"
    return OsUser(name=name, uid=uid, gids=frozenset({os.getegid(), *os.getgroups()}))


def may_read(user: OsUser, path: Path) -> bool:
    """Whether the user could read what lies at `path`; for a directory, list it."""
    return _may(user, path, READ)


def may_connect(user: OsUser, path: Path) -> bool:
    """Whether the user could connect to the Unix socket at `path`."""
    return _may(user, path, WRITE)


def may_change(user: OsUser, path: Path) -> bool:
    """Whether the user could change what lies at `path`, or put something else in its place."""
    real = Path(os.path.realpath(path))
    return _may(user, real, WRITE) or any(_may_replace(user, entry) for entry in (real, *real.parents))


def owns(user: OsUser, path: Path) -> bool:
    """Whether the user could give itself every right to `path`."""
    return user.uid == 0 or path.stat().st_uid == user.uid


def _may(user: OsUser, path: Path, wanted: int) -> bool:
    real = Path(os.path.realpath(path))
    try:
        found = real.stat()
        way = [parent.stat() for parent in real.parents]
    except OSError:
        return False
    # Who owns a file or a directory can give itself what its mode does not give.
    if not all(it.st_uid == user.uid or _allows(user, it, SEARCH) for it in way):
        return False
    return found.st_uid == user.uid or _allows(user, found, wanted)


def _may_replace(user: OsUser, entry: Path) -> bool:
    """Whether the user could take this entry out of its directory and put another one there."""
    if entry == entry.parent or not _may(user, entry.parent, WRITE) or not entry.exists():
        return False
    directory = entry.parent.stat()
    if not directory.st_mode & stat.S_ISVTX or user.uid == 0:
        return True
    return user.uid in {directory.st_uid, entry.stat().st_uid}


def _allows(user: OsUser, found: os.stat_result, wanted: int) -> bool:
    if user.uid == 0:
        return True
    shift = 6 if found.st_uid == user.uid else 3 if found.st_gid in user.gids else 0
    return (stat.S_IMODE(found.st_mode) >> shift) & wanted == wanted
