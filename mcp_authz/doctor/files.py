"""Files and directories: there, this user's own, and closed to everybody else."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from mcp_authz.doctor.access import myself, owns
from mcp_authz.doctor.belongings import belongings
from mcp_authz.doctor.finding import Case, Finding, broken, fine, note
from mcp_authz.errors import ConfigError
from mcp_authz.webhook_settings import make_webhooks

LOW_SPACE = 256 * 1024 * 1024  # bytes; below it somebody should know
NO_SPACE = 16 * 1024 * 1024  # bytes; a day of calls may not fit
DATA = "data"


async def check_modes(case: Case) -> tuple[Finding, ...]:
    """What is secret can be read by its owner only, and nothing of the installation can be changed by others."""
    found = [*_directory(case.config.data)]
    for it in belongings(case.config):
        mode, path = it.path.stat().st_mode, shlex.quote(str(it.path))
        if it.secret and mode & 0o077:
            found.append(broken(DATA, f"{it.what} can be read by others ({it.path})", f"chmod 600 {path}"))
        elif mode & 0o022:
            found.append(broken(DATA, f"{it.what} can be changed by others ({it.path})", f"chmod go-w {path}"))
        elif not owns(myself(), it.path):
            found.append(broken(DATA, f"{it.what} belongs to another user ({it.path})", "run this as its owner"))
    if not found:
        found.append(fine(DATA, f"{case.config.data} and what belongs to it is for this user only"))
    return tuple(found)


def _directory(path: Path) -> tuple[Finding, ...]:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return ()  # the store says what to do
    if mode & 0o077:
        return (broken(DATA, f"others can look into the data directory {path}", f"chmod 700 {shlex.quote(str(path))}"),)
    return () if os.access(path, os.W_OK) else (broken(DATA, f"the data directory {path} cannot be written"),)


async def check_space(case: Case) -> tuple[Finding, ...]:
    """The disk has room for the audit log: without it every call is denied."""
    if not case.config.data.exists():
        return ()
    free = shutil.disk_usage(case.config.data).free
    said = f"{free // (1024 * 1024)} MiB are free where the store is"
    if free < NO_SPACE:
        return (broken(DATA, f"{said}: calls that cannot be recorded are denied", "make room on that disk"),)
    return (note(DATA, said, "make room on that disk") if free < LOW_SPACE else fine(DATA, said),)


async def check_secrets(case: Case) -> tuple[Finding, ...]:
    """Every secret file that a server or a webhook is given is there and has something in it."""
    found = []
    for name, server in case.config.servers.items():
        for file in (*server.env_files.values(), *server.header_files.values()):
            path = case.config.directory / file
            if not path.exists():
                do = f"write the secret into it, then: chmod 600 {shlex.quote(str(path))}"
                found.append(broken(f"server {name}", f"secret file {path} is missing", do))
            elif path.stat().st_size == 0:
                found.append(note(f"server {name}", f"secret file {path} is empty", "write the secret into it"))
    try:
        make_webhooks(case.config)
    except ConfigError as error:
        found.append(broken("webhooks", str(error)))
    return tuple(found)
