"""The gateway itself: whether it runs, whether its port and its socket can be had, and whether it can tell anybody."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import anyio

from mcp_authz import unix_socket
from mcp_authz.config import Config
from mcp_authz.desktop import session_bus, shows_notifications
from mcp_authz.doctor.finding import Case, Finding, broken, fine, note
from mcp_authz.locking import is_locked, note_of

GATEWAY, NOTIFY = "gateway", "notifications"
ANSWER = 2.0  # seconds to a connection on this machine


async def check_gateway(case: Case) -> tuple[Finding, ...]:
    """A running gateway can be reached; where none runs, one could start."""
    config = case.config
    where = f"{config.host}:{config.listen_port}"
    taken = await _somebody_listens(config)
    if is_locked(config.lock):
        socket_fine = await anyio.to_thread.run_sync(unix_socket.answers, config.socket)
        found = [fine(GATEWAY, f"one runs, {note_of(config.lock) or 'here'}")]
        if not taken:
            found.append(
                broken(GATEWAY, f"nothing answers at {where}, although a gateway runs", "stop it and start it again")
            )
        if not socket_fine:
            found.append(broken(GATEWAY, f"its socket {config.socket} does not answer", "stop it and start it again"))
        return tuple(found)
    if taken:
        who = await anyio.to_thread.run_sync(_listener, config.listen_port)
        said = f"{where} is taken by {who or 'another program'}, so no gateway can start"
        return (broken(GATEWAY, said, f"stop that program, or set `port` in {config.source}"),)
    return (note(GATEWAY, f"none runs here now; {where} is free", case.command("serve")),)


async def _somebody_listens(config: Config) -> bool:
    with anyio.move_on_after(ANSWER):
        try:
            async with await anyio.connect_tcp(config.host, config.listen_port):
                return True
        except OSError:
            return False
    return False


def _listener(port: int) -> str:
    """The program that listens on this port, where the system tells."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                cells = line.split()
                if cells[3] == "0A" and int(cells[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{cells[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        with suppress(OSError):
            if any(str(file.readlink()) in inodes for file in (process / "fd").iterdir()):
                return f"`{(process / 'comm').read_text().strip()}` (process {process.name})"
    return ""


async def check_notifications(case: Case) -> tuple[Finding, ...]:
    """The operating system can tell somebody that a call waits."""
    if case.config.notify == "none":
        return (fine(NOTIFY, "off, as configured"),)
    if sys.platform != "linux":
        return (fine(NOTIFY, "the operating system shows them"),)
    if session_bus() is None:
        said = "no desktop session here, so nobody is told that a call waits"
        return (note(NOTIFY, said, case.command("holds", "list")),)
    if not await shows_notifications():
        said = "this desktop shows no notifications, so nobody is told that a call waits"
        return (note(NOTIFY, said, case.command("holds", "list")),)
    return (fine(NOTIFY, "this desktop shows them"),)
