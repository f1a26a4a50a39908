"""The store: it can be read, is of this version, is not damaged, and the end of its log hangs together."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import anyio

from mcp_authz import limits
from mcp_authz.config import Config
from mcp_authz.doctor.finding import Case, Finding, broken, fine, note
from mcp_authz.errors import ConfigError, StoreError
from mcp_authz.installation import master_key
from mcp_authz.store.glance import (
    NEWEST_SCHEMA,
    Condition,
    Inside,
    condition,
    inside,
    newest_backup,
    newest_break,
    put_back,
)

STORE = "store"
PATIENCE = timedelta(seconds=8)  # for SQLite's own check; a very large store is then not checked whole
VERIFIED = 10_000  # records at the end of the log; `audit verify` reads them all


def read_inside(config: Config, at: datetime) -> Inside | None:
    """What the store holds, or None where it cannot be read or is of another version; `check_store` says why."""
    path = config.data / "store.db"
    try:
        if condition(path, patience=timedelta()).schema != NEWEST_SCHEMA:
            return None
        return inside(path, at)
    except StoreError:
        return None


async def check_store(case: Case) -> tuple[Finding, ...]:
    """Look at file, schema and log; nothing is written."""
    path = case.config.data / "store.db"
    if not path.exists():
        return (note(STORE, f"there is no store yet at {path}", case.command("init")),)
    try:
        found = await anyio.to_thread.run_sync(lambda: condition(path, patience=PATIENCE), abandon_on_cancel=True)
        return (
            *_key(case.config),
            *_condition(case, path, found),
            *_old_keys(case),
            *_backups(case, path),
            _log(case, path),
        )
    except StoreError as error:
        return (broken(STORE, str(error), "restore the store from your backup"),)


def _key(config: Config) -> tuple[Finding, ...]:
    path = config.data / "master.key"
    if not path.exists():
        return (broken(STORE, f"{path} is missing, so what the store has sealed is lost", "restore the key"),)
    if path.stat().st_mode & 0o077:
        return ()  # said with the other files
    try:
        master_key(config.data)
    except (ConfigError, StoreError) as error:
        return (broken(STORE, str(error), "restore the key from your backup"),)
    return ()


def _old_keys(case: Case) -> tuple[Finding, ...]:
    since = {} if case.inside is None else case.inside.signing_since
    return tuple(
        note(
            STORE,
            f"the gateway signs with the same {use} key for {(case.at - at).days} days",
            case.command("keys", "rotate", "--which", use),
        )
        for use, at in since.items()
        if case.at - at > limits.SIGNING_KEY_AGE
    )


def _condition(case: Case, path: Path, found: Condition) -> tuple[Finding, ...]:
    findings = []
    if found.damage:
        findings.append(broken(STORE, f"{path} is damaged: {found.damage}", "restore the store from your backup"))
    if found.schema < NEWEST_SCHEMA:
        said = f"the store is of an older version (schema {found.schema} of {NEWEST_SCHEMA})"
        findings.append(
            note(STORE, f"{said}; the next command that opens it brings it up to date", case.command("status"))
        )
    if found.schema > NEWEST_SCHEMA:
        said = f"the store was written by a newer version (schema {found.schema}, this one knows {NEWEST_SCHEMA})"
        findings.append(broken(STORE, said, "install that version, or restore the backup made before the upgrade"))
    if not found.checked_whole:
        findings.append(note(STORE, f"{path} is too large to be checked whole here"))
    if found.newest_at is not None and found.newest_at > case.at + limits.CLOCK_SKEW:
        findings.append(
            broken(STORE, f"the newest record is of {found.newest_at}, so the clock was set back", "set the clock")
        )
    return tuple(findings)


def _log(case: Case, path: Path) -> Finding:
    """The newest records follow from each other, up to where the log says that it ends."""
    length, found = newest_break(path, VERIFIED)
    if found is not None:
        return broken(STORE, f"the audit log is broken: {found.why}", case.command("audit", "verify"))
    said = f"{length} records" if length <= VERIFIED else f"the newest {VERIFIED} of {length} records"
    return fine(STORE, f"the store can be read, and {said} of the audit log hang together")


def _backups(case: Case, path: Path) -> tuple[Finding, ...]:
    """The store is no backup that was put back by hand, and has a backup that is not too old."""
    if (why := put_back(path)) is not None:
        words = case.command("restore", "--in-place", "--reason", "...")
        return (broken(STORE, f"{path} was put back: {why}, says its witness", words),)
    at = newest_backup(path)
    if at is None or case.at - at <= limits.BACKUP_AGE:
        return ()
    said = f"no backup was made on this machine for {(case.at - at).days} days"
    return (note(STORE, said, case.command("backup", f"store-{case.at:%Y-%m-%d}.db")),)
