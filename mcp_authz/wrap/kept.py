"""Clients' files as they were before they were wrapped, kept to be put back letter by letter."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from mcp_authz.config_file import replace_file
from mcp_authz.errors import AuthzError, ConfigError, Conflict, NotFound
from mcp_authz.wrap import client_file
from mcp_authz.wrap.client_file import ClientFile, Where
from mcp_authz.wrap.jsonc import Node

FOLDER: Final = "wrapped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One file as it was at one time."""

    folder: Path
    path: Path  # of the client's file
    mode: int
    at: datetime
    before: str  # SHA-256 of what it was, in hexadecimal
    after: str  # and of what it became
    places: Mapping[Where, str]  # SHA-256 of the text of each object of servers that was written, in hexadecimal
    agents: tuple[str, ...]

    @property
    def replaced(self) -> Path:
        """Where undo by force puts what it replaces."""
        return self.folder / "replaced"

    @property
    def original(self) -> bytes:
        """The file's bytes.

        Raises:
            ConfigError: they are not what they were.
        """
        try:
            raw = (self.folder / "original").read_bytes()
        except OSError as error:
            raise ConfigError(f"`{self.folder / 'original'}` cannot be read: {error.strerror}") from None
        if digest(raw) != self.before:
            raise ConfigError(f"`{self.folder / 'original'}` is not what was kept; it is not put back")
        return raw


def digest(raw: bytes) -> str:
    """Return SHA-256 in hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def keep(data: Path, file: ClientFile, new_text: str, agents: tuple[str, ...], at: datetime) -> Kept:
    """The file as it is now lies beside the gateway's data, readable for this user only.

    Raises:
        ConfigError: it cannot be written there.
    """
    nodes = client_file.parse_places(file.path, new_text)
    places = {where: _digest_at(new_text, node) for where, node in nodes.items()}
    about = {
        "path": str(file.path),
        "mode": file.mode,
        "at": at.isoformat(),
        "before": digest(file.raw),
        "after": digest(new_text.encode()),
        "places": [{"where": list(where), "digest": text} for where, text in places.items()],
        "agents": list(agents),
    }
    folder = data / FOLDER / f"{at:%Y%m%dT%H%M%S%f}"
    try:
        (data / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        replace_file(folder / "original", file.raw)
        replace_file(folder / "about.json", json.dumps(about, indent=1).encode())
    except OSError as error:
        raise ConfigError(f"the old file cannot be kept in `{folder}`: {error.strerror}; nothing was changed") from None
    return _read(folder)


def forget(kept: Kept) -> None:
    """The file is not kept any more; what undo replaced stays beside it."""
    for name in ("about.json", "original"):
        (kept.folder / name).unlink(missing_ok=True)
    if not any(kept.folder.iterdir()):
        kept.folder.rmdir()


def all_kept(data: Path) -> tuple[Kept, ...]:
    """Return every file that is kept, the newest last."""
    folder = data / FOLDER
    names = sorted(path.parent for path in folder.glob("*/about.json")) if folder.is_dir() else []
    return tuple(_read(name) for name in names)


Undone = Literal["whole", "by force", "servers", "nothing to do"]


def put_back(kept: Kept, *, force: bool) -> Undone:
    """The client's file is as it was: letter by letter if it was not changed since, else in its servers alone.

    Raises:
        Conflict: its servers were changed since; with `force` the whole file is put back, and what was there is kept.
        ConfigError: it cannot be written, or what was kept is damaged.
    """
    original = kept.original
    now = _now(kept.path)
    if now is not None and digest(now) == kept.before:
        return "nothing to do"
    try:
        if now is None or digest(now) == kept.after:
            replace_file(kept.path, original, mode=kept.mode)
            return "whole"
        try:
            replace_file(kept.path, _servers_back(kept, original).encode())
        except Conflict:
            if not force:
                raise
            replace_file(kept.replaced, now)
            replace_file(kept.path, original, mode=kept.mode)
            return "by force"
    except OSError as error:
        raise ConfigError(f"`{kept.path}` cannot be written: {error.strerror}; it is as it was") from None
    return "servers"


def find(data: Path, path: Path) -> Kept:
    """Return the newest kept state of this file.

    Raises:
        NotFound: nothing of it is kept.
    """
    path = Path(os.path.realpath(path))
    found = [kept for kept in all_kept(data) if kept.path == path]
    if not found:
        raise NotFound(f"`{path}` was not wrapped, or that is undone already: nothing of it is kept")
    return found[-1]


def _now(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}") from None


def _servers_back(kept: Kept, original: bytes) -> str:
    """The file as it is now, with the servers that it had, where they stand as they were written."""
    changed = Conflict(
        f"`{kept.path}` was changed since it was wrapped, also in its servers; "
        "take our entry out yourself, or put the whole old file back with --undo --force"
    )
    text, before = kept.path.read_text(encoding="utf-8"), original.decode()
    try:
        now = {place.where: place.node for place in client_file.read(kept.path).places}
    except AuthzError:
        raise changed from None
    old = client_file.parse_places(kept.path, before)
    if now.keys() != kept.places.keys() or any(
        _digest_at(text, node) != kept.places[where] for where, node in now.items()
    ):
        raise changed
    for where, node in sorted(now.items(), key=lambda item: item[1].start, reverse=True):
        text = text[: node.start] + before[old[where].start : old[where].end] + text[node.end :]
    return text


def _digest_at(text: str, node: Node) -> str:
    return digest(text[node.start : node.end].encode())


def _read(folder: Path) -> Kept:
    try:
        about: dict[str, Any] = json.loads((folder / "about.json").read_bytes())
        return Kept(
            folder=folder,
            path=Path(about["path"]),
            mode=about["mode"],
            at=datetime.fromisoformat(about["at"]).astimezone(UTC),
            before=about["before"],
            after=about["after"],
            places={tuple(place["where"]): place["digest"] for place in about["places"]},
            agents=tuple(about["agents"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"`{folder}` cannot be read: {error}") from None
