"""Processes under measurement: started, asked until they answer, looked at through /proc, stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 30.0  # seconds until a process that does not answer is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process that answers."""

    pid: int
    port: int
    seconds: float  # from the start to the first answer


@contextmanager
def started(*command: str, port: int | None = None, **environment: str) -> Iterator[Started]:
    """Run `python COMMAND...` until the body ends; without `port` its first line of output is its port."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            known = port if port is not None else int(process.stdout.readline())
            _until_it_answers(process, known, began + _PATIENCE)
            yield Started(pid=process.pid, port=known, seconds=time.monotonic() - began)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """User and system time of the process so far, all its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """The memory of the process that is in RAM now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _until_it_answers(process: subprocess.Popen[bytes], port: int, until: float) -> None:
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as probe:
                probe.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                if probe.recv(1):
                    return
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"`{process.args!r}` does not answer on {port}") from None
            time.sleep(0.005)
