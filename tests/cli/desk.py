"""A desk: a directory with a configuration and a store, the real executable, and a terminal to sit at."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from mcp_authz.agents import Agents, People
from mcp_authz.config import load_config
from mcp_authz.delegating import Asked, Delegations, Source
from mcp_authz.ids import new_id
from mcp_authz.installation import Installation, open_installation, utc_now
from mcp_authz.model import ApprovalRule, Assurance, Hazard, HeldCall, HoldId, HoldState, ToolName
from mcp_authz.principals import AgentName, Chain, Link, Session
from mcp_authz.rules.keys import PrivateKey, seal_private
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Event
from tests.servers import loaded
from tests.unasked import Unasked

OPERATOR = "user:operator"
PASSPHRASE = "correct horse battery staple"
ROOT = Path(__file__).parent.parent.parent
CTRL_C = "\x03"
COMMAND = (sys.executable, "-m", "mcp_authz.cli.main")
LOADED = (("PYTHONWARNINGS", "error"),)
SOON = 30.0  # seconds that a command may take on a busy machine

# A process becomes the one that a terminal controls, and then the command.
_SIT_DOWN = """
import fcntl, os, sys, termios
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    terminal: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line on stderr that says what is wrong; nothing else was said there."""
        assert "Traceback" not in self.err + self.out + self.terminal
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("mcp-authz: "), self.err
        return lines[0].removeprefix("mcp-authz: ")


@dataclass(frozen=True)
class Desk:
    """One installation, and commands that are given to it as a person would."""

    directory: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.directory / "gateway.toml"

    @property
    def store(self) -> Path:
        return self.directory / "data" / "store.db"

    def path(self, name: str) -> Path:
        return self.directory / name

    def configure(self, text: str) -> None:
        self.config.write_text(text)

    def run(self, *words: str | Path, global_options: Sequence[str] | None = None, stdin: str = "") -> Done:
        """The command has ended; it had no terminal."""
        options = ["--config", str(self.config)] if global_options is None else global_options
        done = subprocess.run(
            loaded.command("mcp_authz.cli.main", *options, *map(str, words), surroundings=LOADED),
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SOON,
            cwd=self.directory,
            env=self._environment,
            start_new_session=True,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    def ok(self, *words: str | Path) -> str:
        """What a command that succeeds prints."""
        done = self.run(*words)
        assert done.code == 0 and not done.err, done
        return done.out

    def json(self, *words: str | Path) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.ok(*words, "--json"))

    def refused(self, *words: str | Path) -> str:
        """The sentence with which a command is refused."""
        done = self.run(*words)
        assert done.code == 1 and not done.out, done
        return done.sentence

    def seated(self, *words: str | Path, types: Sequence[tuple[str, str]] = (), out: str = "pipe") -> Done:
        """The command has ended; a person at a terminal waited for each text and typed the line that follows it.

        Its stdin has something else, to be seen to be ignored; `out` is `pipe`, or `terminal` for stdout on it.
        """
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", _SIT_DOWN, str(slave), *COMMAND, "--config", str(self.config), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=slave if out == "terminal" else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=self._environment,
            start_new_session=True,
            pass_fds=(slave,),
        )
        os.close(slave)
        with process, os.fdopen(master, "rb", buffering=0), _ends(process):
            assert process.stdin is not None
            process.stdin.write("typed by a program\n" * 4)
            process.stdin.close()
            process.stdin = None
            terminal = _Terminal(master)
            for awaited, line in types:
                terminal.wait_for(awaited)
                assert not terminal.echoes, "what is typed now would be seen"
                os.write(master, line.encode() if line.endswith(CTRL_C) else f"{line}\n".encode())
            terminal.wait_for(None)
            printed, err = process.communicate(timeout=SOON)
        return Done(code=process.returncode, out=printed or "", err=err, terminal=terminal.seen)

    @property
    def _environment(self) -> dict[str, str]:
        home = {"HOME": str(self.directory / "home"), "TZ": "Europe/Berlin", "PYTHONPATH": str(ROOT)}
        return {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error", **home, **self.env}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Installation]:
        """The same installation, opened by the test."""
        async with open_installation(load_config(self.config)) as here:
            yield here


@contextmanager
def _ends(process: subprocess.Popen[str]) -> Iterator[None]:
    """The process has ended, also when the test gave up on it."""
    try:
        yield
    finally:
        process.kill()


class _Terminal:
    """The other end of a terminal: what stands on it, and what is waited for."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._looked_at = 0
        self.seen = ""

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def wait_for(self, text: str | None) -> None:
        """The text stands there, after what was waited for before; None: whoever used the terminal has gone."""
        until = time.monotonic() + SOON
        while text is None or text not in self.seen[self._looked_at :]:
            ready, _, _ = select.select([self._master], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"`{text}` never appeared in: {self.seen}"
            try:
                more = os.read(self._master, 65536).decode()
            except OSError:
                more = ""
            if not more:
                assert text is None, f"`{text}` never appeared in: {self.seen}"
                return
            self.seen += more
        self._looked_at = len(self.seen)


@cache
def sealed(passphrase: str = PASSPHRASE, who: str = "bob") -> tuple[PrivateKey, str]:
    """A key and its sealed text; sealing takes long on purpose, so that it is done once for each name."""
    key = PrivateKey.generate()
    return key, seal_private(key, passphrase)


BOB_APPROVES = ApprovalRule(name="release", by=("user:bob",), assurance=Assurance.SIGNED_IN)


@dataclass(frozen=True)
class Cast:
    """Who and what there is after `settle`."""

    session: Session
    root: Link
    leaf: Link
    planner: PrivateKey
    coder: PrivateKey


async def settle(here: Installation) -> Cast:
    """Alice lets planner work, planner has delegated to coder, bob can approve."""
    people, agents, sessions = (kind(here.store, here.clock) for kind in (People, Agents, Sessions))
    await people.add("alice", by=OPERATOR)
    await people.add("bob", groups=frozenset({"release"}), by=OPERATOR)
    await people.add_key("bob", sealed()[0].public, by=OPERATOR)
    keys = {name: PrivateKey.generate() for name in ("planner", "coder")}
    scope, to = parse_scopes("files:read deploy:production"), frozenset({AgentName("coder")})
    await agents.add(
        "planner", owner="alice", key=keys["planner"].public, ceiling=scope, depth=2, delegates_to=to, by=OPERATOR
    )
    await agents.add("coder", owner="alice", key=keys["coder"].public, ceiling=scope, by=OPERATOR)
    grant = await sessions.grant("alice", "planner", scope=scope, by=OPERATOR)
    session, root = await sessions.start(grant, purpose="fix issue 41", by=OPERATOR)
    delegations = Delegations(store=here.store, clock=here.clock, policy=Unasked())
    source = Source(chain=Chain(links=(root,)), session=session, person=None)
    leaf = await delegations.delegate(source, Asked(to=AgentName("coder"), reason="the Python part"))
    return Cast(session=session, root=root, leaf=leaf, **keys)


def held_call(cast: Cast, **changes: Any) -> HeldCall:
    """Coder asks to deploy, and waits for bob."""
    now = utc_now()
    call = HeldCall(
        id=HoldId(new_id("h")),
        state=HoldState.PENDING,
        digest=os.urandom(32),
        tool=ToolName("acme__deploy"),
        server="acme",
        arguments={"repo": "api", "note": "line\nbreak \u202e"},
        hazard=Hazard.DESTRUCTIVE,
        session=cast.session.id,
        purpose=cast.session.purpose,
        subject=cast.session.subject,
        owner=cast.session.subject,
        actor=AgentName("coder"),
        chain=(AgentName("planner"), AgentName("coder")),
        interactive=False,
        rules=(BOB_APPROVES,),
        asked_at=now,
        expires_at=now + timedelta(minutes=15),
    )
    return replace(call, **changes)


async def hold(here: Installation, call: HeldCall) -> HeldCall:
    """The call waits."""
    event = Event(kind="decision", at=datetime.now(UTC), call=call.id, fields={"decision": "hold", "hold": call.id})
    return await here.store.open_hold(call, event, per_session=20, per_agent=50)
