"""The load: one process, raw sockets, fixed bytes out, and every answer checked; a job comes in and a report goes out.

Without `rate` each connection asks again as soon as it is answered. With `rate` requests are due at fixed times, and
latency counts from when a request was due: a slow answer does not excuse those that had to wait behind it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import cast

import httptools
import uvloop

from bench.process import ROOT, cpu_seconds
from bench.proving import Prover
from bench.wire import is_right


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be asked of whom, how fast and how long; `pid` is whose processor time is read meanwhile."""

    port: int
    pid: int
    request: str  # latin-1
    connections: int
    seconds: float
    rate: float | None = None  # requests per second, all connections together
    prover: Mapping[str, str] | None = None  # of `bench.proving`: then each request is another one


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of it; the three times are in microseconds."""

    right: int
    wrong: int
    per_second: float
    cpu: float  # of the measured process, for each right answer
    p50: float
    p99: float


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._number = number
        self._parser = httptools.HttpResponseParser(self)
        self._due = 0.0
        self._body = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by descent
        self._load.first(self, self._number)

    def ask(self, due: float) -> None:
        """Send the request that was due then."""
        assert self._transport is not None
        self._due, self._body = due, b""
        self._transport.write(next(self._load.requests))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self._load.answered(self, self._due, self._parser.get_status_code(), self._body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.wrong += not self._load.over


class Load:
    """All connections of one job, and what they were answered."""

    def __init__(self, job: Job) -> None:
        self.requests = _requests(job)
        self.wrong = 0
        self.over = False
        self.taken: list[float] = []
        self._known: set[bytes] = set()  # bodies that were read and found right
        self._period = None if job.rate is None else job.connections / job.rate
        self._connections = job.connections
        self._seconds = job.seconds
        self._began = self._until = 0.0

    def begin(self) -> None:
        """The time counts from now on; whatever was to be made before is made."""
        self._began = time.perf_counter()
        self._until = self._began + self._seconds

    def first(self, connection: Connection, number: int) -> None:
        """Begin with a new connection, at its place in the row."""
        self._at(connection, self._began + (0.0 if self._period is None else self._period * number / self._connections))

    def answered(self, connection: Connection, due: float, status: int, body: bytes) -> None:
        """Count an answer, and go on."""
        now = time.perf_counter()
        if status == 200 and body in self._known:
            self.taken.append(now - due)
        elif is_right(status, body):
            self._known.add(body)
            self.taken.append(now - due)
        else:
            self.wrong += 1
        self._at(connection, now if self._period is None else due + self._period)

    def _at(self, connection: Connection, due: float) -> None:
        now = time.perf_counter()
        if due >= self._until or now >= self._until:
            return
        if due <= now:
            connection.ask(due)
        else:
            asyncio.get_running_loop().call_later(due - now, connection.ask, due)


def _requests(job: Job) -> Iterator[bytes]:
    if job.prover is None:
        return repeat(job.request.encode("latin-1"))
    return Prover(**job.prover).requests(job.port, job.seconds)


async def run(job: Job) -> Report:
    """The report of one job, done in this process."""
    loop, load = asyncio.get_running_loop(), Load(job)
    load.begin()
    before = cpu_seconds(job.pid)

    def connection(number: int) -> Connection:
        return Connection(load, number)

    made = [
        await loop.create_connection(lambda n=n: connection(n), "127.0.0.1", job.port)  # type: ignore[misc]
        for n in range(job.connections)
    ]
    await asyncio.sleep(job.seconds)
    cpu, right = cpu_seconds(job.pid) - before, len(load.taken)
    load.over = True
    for transport, _ in made:
        transport.abort()
    taken = sorted(load.taken)
    if not taken:
        raise SystemExit(f"no right answer from port {job.port}; {load.wrong} wrong ones")
    return Report(
        right=right,
        wrong=load.wrong,
        per_second=right / job.seconds,
        cpu=cpu / right * 1e6,
        p50=taken[right // 2] * 1e6,
        p99=taken[min(right - 1, right * 99 // 100)] * 1e6,
    )


def measure(job: Job) -> Report:
    """The report of one job, done in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(job)).encode(),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        check=True,
    )
    return Report(**json.loads(done.stdout))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(run(Job(**json.load(sys.stdin)))))))
