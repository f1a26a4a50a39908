"""From the start of `mcp-authz connect`, with no gateway running, to its first list of tools; and the servers alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from bench.governed import AGENT, SCOPE, enrol
from bench.process import ROOT, free_port
from bench.wire import MODERN
from mcp_authz.config import Config, load_config
from mcp_authz.installation import open_installation
from mcp_authz.locking import is_locked, note_of
from mcp_authz.rules.keys import PrivateKey

SERVERS: Final = 3
_SERVER: Final = (sys.executable, "-m", "bench.tool_server", "stdio")
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
_LIST: Final = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": _META}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Seconds, one figure for each round."""

    servers: int
    listed: list[float]  # first list of tools, no gateway running
    known: list[float]  # the same from a gateway that runs
    slowest: list[float]  # the slowest server, from its start to its list


def start(*, rounds: int) -> Start:
    """Every round was one start of everything, from nothing but files."""
    listed, known, slowest = list[float](), list[float](), list[float]()
    for _ in range(rounds):
        with _desktop() as (config, connect):
            listed.append(_first_list(connect, SERVERS))
            known.append(_first_list(connect, SERVERS))
            _stop(config)
            slowest.append(max(_first_list(_SERVER, 1) for _ in range(SERVERS)))
    return Start(servers=SERVERS, listed=listed, known=known, slowest=slowest)


@contextmanager
def _desktop() -> Iterator[tuple[Config, Sequence[str]]]:
    """A configuration, an agent with its key, and how its client starts `connect`."""
    with tempfile.TemporaryDirectory(prefix="mcp-authz-bench-") as name:
        path = Path(name) / "gateway.toml"
        lines = [f'public_url = "http://localhost:{free_port()}"', 'data_dir = "data"', 'notify = "none"']
        for number in range(SERVERS):
            lines += [f"[servers.s{number}]", f"command = {json.dumps(_SERVER)}", f"cwd = {json.dumps(str(ROOT))}"]
            lines += [f"[servers.s{number}.tools.look_up]", 'hazard = "read"', f'scopes = ["{SCOPE}"]']
        path.write_text("\n".join(lines))
        config, key = load_config(path), PrivateKey.generate()
        anyio.run(_enrol, config, key)
        file = config.agent_key(AGENT)
        file.parent.mkdir(mode=0o700)
        file.touch(mode=0o600)
        file.write_text(key.to_pem())
        words = (sys.executable, "-m", "mcp_authz.cli.main", "--config", str(path), "connect", "--agent", AGENT)
        try:
            yield config, words
        finally:
            _stop(config)


async def _enrol(config: Config, key: PrivateKey) -> None:
    async with open_installation(config) as installation:
        await enrol(installation.store, key)


def _first_list(words: Sequence[str], servers: int) -> float:
    """Seconds from the start of a stdio server to its first list, in which the tool of each server is."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "HOME": home}
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(_LIST).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
            took = time.monotonic() - began
            process.stdin.close()
        assert line.count(b'look_up"') == servers, line
    return took


def _stop(config: Config) -> None:
    """No gateway runs there."""
    found = re.search(r"process (\d+)", note_of(config.lock))
    if found is not None and is_locked(config.lock):
        os.kill(int(found[1]), signal.SIGTERM)
        while is_locked(config.lock):
            time.sleep(0.01)
