"""A person's home directory with clients' files in it, the real executable, and a terminal at which it asks."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp_authz.config import Config, load_config
from mcp_authz.installation import Installation, open_installation
from tests.cli.desk import COMMAND, LOADED, ROOT, SOON, Done
from tests.servers import loaded

SERVERS = ROOT / "tests" / "servers"
SPY = SERVERS / "spy.py"
PLAIN = {"command": sys.executable, "args": [str(SERVERS / "plain.py")]}
BROKEN = {"command": sys.executable, "args": ["-c", "import sys; sys.exit('no database here')"]}

# A process becomes the one that the terminal on its stdin controls, and then the command.
_SIT_DOWN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Desktop:
    """One user's home, and `mcp-authz` as they run it there."""

    home: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.home / ".config" / "mcp-authz" / "gateway.toml"

    @property
    def data(self) -> Path:
        return self.home / ".local" / "share" / "mcp-authz"

    def loaded(self) -> Config:
        """The gateway's configuration; its data directory is named, because this process has another home."""
        return load_config(self.config).model_copy(update={"data_dir": str(self.data)})

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Installation]:
        """The installation that was made."""
        async with open_installation(self.loaded()) as here:
            yield here

    def client(self, content: Any, where: str = ".config/Claude/claude_desktop_config.json") -> Path:
        """A client's file: text as it is, anything else as JSON."""
        path = self.home / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((content if isinstance(content, str) else json.dumps(content, indent=2)).encode())
        return path

    def spy(self, name: str, *tools: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of a server that lists these tools and writes down what it is given."""
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        (folder / "tools.json").write_text(json.dumps([{"inputSchema": {"type": "object"}, **tool} for tool in tools]))
        return {"command": sys.executable, "args": [str(SPY), str(folder)]}

    def heard(self, name: str) -> str:
        """What a spy was given, its environment first."""
        return (self.home / name / "heard").read_text()

    def run(self, *words: str | Path, options: Sequence[str] = ()) -> Done:
        """The command has ended; nobody could be asked."""
        done = subprocess.run(
            loaded.command("mcp_authz.cli.main", *options, *map(str, words), surroundings=LOADED),
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SOON,
            cwd=self.home,
            env=self.environment,
            start_new_session=True,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def ok(self, *words: str | Path, options: Sequence[str] = ()) -> str:
        """What a command that succeeds prints."""
        done = self.run(*words, options=options)
        assert done.code == 0 and not done.err, done
        return done.out

    def wrap(self, path: Path, *words: str) -> dict[str, Any]:
        """What `wrap --yes --json` says."""
        said: dict[str, Any] = json.loads(self.ok("wrap", path, "--yes", "--json", *words))
        return said

    def refused(self, *words: str | Path, options: Sequence[str] = ()) -> str:
        """The sentence with which a command is refused."""
        done = self.run(*words, options=options)
        assert done.code == 1, done
        return done.sentence

    def seated(self, *words: str | Path, types: Sequence[tuple[str, str]] = ()) -> tuple[int, str]:
        """Exit code and screen of a command; a person waited for each text and typed the line that follows it."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", _SIT_DOWN, *COMMAND, *map(str, words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=self.home,
            env={**self.environment, "TERM": "xterm", "COLUMNS": "200"},
            start_new_session=True,
        )
        os.close(slave)
        screen = _Screen(master)
        try:
            for awaited, line in types:
                screen.wait_for(awaited)
                os.write(master, line.encode() if line in {"\x03", "\x04"} else f"{line}\n".encode())
            screen.wait_for(None, pressing=b"\x03" if types and types[-1][1] == "\x03" else b"")
            return process.wait(SOON), screen.seen
        finally:
            process.kill()
            process.wait()
            os.close(master)

    @property
    def environment(self) -> dict[str, str]:
        """What the command finds around it: a home of its own, and nothing of ours."""
        own = {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        return {**own, "PYTHONWARNINGS": "error", **self.env}


class _Screen:
    def __init__(self, master: int) -> None:
        self._master = master
        self._looked_at = 0
        self.seen = ""

    def wait_for(self, text: str | None, *, pressing: bytes = b"") -> None:
        """The text stands there, after what was waited for before; None: the command has let go of the terminal.

        The key of `pressing` is pressed again each second: a program that has written its question, and does not read
        yet, may miss it.
        """
        until = time.monotonic() + SOON
        while text is None or text not in self.seen[self._looked_at :]:
            left = max(0.0, until - time.monotonic())
            ready, _, _ = select.select([self._master], [], [], min(1.0, left) if pressing else left)
            if not ready and pressing and left:
                os.write(self._master, pressing)
                continue
            assert ready, f"`{text}` never appeared in: {self.seen}"
            try:
                more = os.read(self._master, 65536).decode(errors="replace")
            except OSError:
                more = ""
            if not more:
                assert text is None, f"`{text}` never appeared in: {self.seen}"
                return
            self.seen += more
        self._looked_at = len(self.seen)
