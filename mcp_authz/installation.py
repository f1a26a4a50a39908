"""One installation on disk: its directory, its master key, its store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mcp_authz.checkpoint_tail import newest_marks
from mcp_authz.config import Config
from mcp_authz.errors import ConfigError, StoreError
from mcp_authz.new_file import write_new
from mcp_authz.rules.keys import Sealer, random_bytes
from mcp_authz.store.ports import Clock, Store
from mcp_authz.store.sqlite import SqliteStore


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What command line and gateway share."""

    config: Config
    store: Store
    sealer: Sealer
    clock: Clock
    instance: str  # whoever has it open: the id that is unlike every other process's


@asynccontextmanager
async def open_installation(config: Config, *, clock: Clock = utc_now) -> AsyncIterator[Installation]:
    """The installation is open: its directory exists (0700), its master key too (0600), and its store is migrated.

    Raises:
        ConfigError: the directory or the key cannot be made, or others can read the key.
        StoreError: the store cannot be used.
    """
    sealer = Sealer(master_key(config.data))
    store = SqliteStore.open(
        config.data / "store.db",
        sealer=sealer,
        clock=clock,
        inputs_kept=config.audit.inputs_kept,
        redact=config.audit.redact.redaction,
        evidence_kept=config.audit.evidence_kept,
        seen=newest_marks(config),
    )
    try:
        yield Installation(config=config, store=store, sealer=sealer, clock=clock, instance=store.instance)
    finally:
        await store.aclose()


def master_key(directory: Path) -> bytes:
    """The 32 bytes that seal everything at rest; made once, readable by the owner only.

    Raises:
        ConfigError: saying what to do about it.
    """
    path = directory / "master.key"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            if (directory / "store.db").exists():
                raise StoreError(f"`{path}` is missing, but its store is there: restore the key from your backup")
            _make_key(path)
        mode, key = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise ConfigError(f"data directory `{directory}` cannot be used: {error.strerror}; set `data_dir`") from None
    if mode & 0o077:
        raise ConfigError(f"`{path}` can be read by others; run: chmod 600 {path}")
    if len(key) != 32:
        raise ConfigError(f"`{path}` is not a master key: it must have 32 bytes; restore it from your backup")
    return key


def _make_key(path: Path) -> None:
    # Written under another name and linked, so that two processes that start at once agree on one whole key.
    fresh = path.with_name(f".master.{os.getpid()}.tmp")
    write_new(fresh, random_bytes(32))
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        return
    finally:
        fresh.unlink()
