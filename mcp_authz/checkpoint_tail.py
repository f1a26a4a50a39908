"""Where the newest checkpoints in files say that the log ended: a store that ends before was put back.

Nothing is verified here: whoever can write there can make commands refuse, and could do more. What a checkpoint proves
is for `audit verify --checkpoints`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from mcp_authz.config import Config
from mcp_authz.errors import AuthzError
from mcp_authz.rules import jose
from mcp_authz.store.witness import Mark

FILE: Final = "checkpoints.txt"  # in the data directory
_TAIL: Final = 64 * 1024  # bytes at the end of a file in which its last whole line is


def files_of(config: Config) -> tuple[Path, ...]:
    """The files that the configuration names for checkpoints."""
    places = (place for place in config.audit.checkpoints if place == "file" or place.startswith("file:"))
    return tuple(config.data / (FILE if place == "file" else place.removeprefix("file:")) for place in places)


def newest_marks(config: Config) -> tuple[Mark, ...]:
    """What the last checkpoint of each file says; a file that cannot be read says nothing."""
    found = (_newest(path) for path in files_of(config))
    return tuple(mark for mark in found if mark is not None)


def _newest(path: Path) -> Mark | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read(_TAIL).decode("ascii", "replace").split()
        claims = jose.read(lines[-1]).claims
        head = claims["heads"][0]
        return Mark(
            epoch=int(claims.get("epoch", 0)),
            sequence=int(head["seq"]),
            hash=bytes.fromhex(head["hash"]),
            by=f"the checkpoint in `{path.name}`",
        )
    except (OSError, AuthzError, ValueError, LookupError, TypeError, AttributeError):
        return None
