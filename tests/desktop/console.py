"""A console session of a page, run as a new user would: a fresh home, the commands as written, the output compared."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mcp_authz.cli.init import STARTER
from tests.clients.node import node, program
from tests.ports import free_port

INSPECTOR = "@modelcontextprotocol/inspector"
SERVERS = {
    "mcp-server-filesystem": "@modelcontextprotocol/server-filesystem",
    "mcp-server-memory": "@modelcontextprotocol/server-memory",
    "mcp-server-everything": "@modelcontextprotocol/server-everything",
}
SOON = 60.0
_ID = re.compile(r"elicitation-[0-9a-f-]{36}")
_PORT = "8642"


@dataclass
class Home:
    """A new user's home: nothing of ours but programs on the path, and a port that nobody else has."""

    path: Path
    port: int
    sockets: str
    said: str = ""  # everything that was printed
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, command: str, *, fine: bool = True) -> str:
        """What a command prints, on both streams; it ends well, or `fine` says that it does not."""
        words = shlex.split(command, comments=True)
        done = subprocess.run(
            words,
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=SOON,
            check=False,
        )
        told = done.stdout.replace(f"localhost:{self.port}", f"localhost:{_PORT}").replace(str(self.path), "~")
        self.said += told
        assert (done.returncode == 0) is fine, f"$ {command}\n{done.stdout}"
        return told

    def follow(self, session: str) -> None:
        """Every command of the session prints what stands under it; a line of three dots stands for any lines."""
        for command, shown in steps(session):
            ids = _ID.findall(self.said)
            told = self.run(_ID.sub(ids[-1], command) if ids else command)
            assert fits(_ID.sub("elicitation-ID", shown), _ID.sub("elicitation-ID", told)), f"$ {command}\n{told}"


def steps(session: str) -> Iterator[tuple[str, str]]:
    """The commands of a console session, each with the text that stands under it."""
    for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, shown = step.partition("\n")
        while command.endswith("\\"):
            more, _, shown = shown.partition("\n")
            command = f"{command[:-1]} {more.strip()}"
        yield command, shown


def fits(shown: str, told: str) -> bool:
    """Whether the output is what is shown; blanks at the ends of lines, and empty lines, count for nothing."""
    lines = [line.rstrip() for line in shown.splitlines() if line.strip()]
    said = "".join(f"{line.rstrip()}\n" for line in told.splitlines() if line.strip())
    pattern = "".join("(?:.*\n)*?" if line.strip() == "..." else re.escape(line) + "\n" for line in lines)
    return re.fullmatch(pattern, said) is not None


@contextmanager
def fresh_home(directory: Path) -> Iterator[Home]:
    """A new user's home; what was started for it is stopped afterwards."""
    path, sockets = directory / "home", tempfile.mkdtemp(prefix="mcpdo-")  # short: a socket's path has 107 bytes
    path.mkdir()
    (path / "notes").mkdir()
    (path / "notes" / "todo.txt").write_text("buy milk\n")
    home = Home(path, free_port(), sockets)
    home.environment = {
        "HOME": str(path),
        "PATH": f"{_programs(directory)}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "COLUMNS": "120",
        "MCP_INSPECTOR_DAEMON_DIR": sockets,
        "MCP_INSPECTOR_SECRET_STORE": "memory",
    }
    configuration = path / ".config" / "mcp-authz" / "gateway.toml"
    configuration.parent.mkdir(parents=True, mode=0o700)
    configuration.write_text(STARTER.replace(_PORT, str(home.port)))
    try:
        yield home
    finally:
        subprocess.run(
            ["mcpdo", "daemon", "stop"], env=home.environment, capture_output=True, timeout=SOON, check=False
        )
        for pid in gateways(path):
            os.kill(pid, signal.SIGTERM)
        shutil.rmtree(sockets, ignore_errors=True)


def gateways(home: Path) -> list[int]:
    """The processes that serve a gateway of this home."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"serve" in words and any(str(home).encode() in word for word in words):
            found.append(int(entry.name))
    return found


def _programs(directory: Path) -> Path:
    """A folder with the programs that a user has installed."""
    folder = directory / "bin"
    folder.mkdir()
    wanted = {"mcpdo": program("mcpdo", INSPECTOR), "mcp-inspector": program("mcp-inspector", INSPECTOR)}
    wanted |= {name: program(name, package) for name, package in SERVERS.items()}
    for name, script in wanted.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{node()}" "{script}" "$@"\n')
        (folder / name).chmod(0o755)
    (folder / "node").symlink_to(node())
    (folder / "mcp-authz").symlink_to(Path(sys.executable).parent / "mcp-authz")
    return folder
