"""The comparison: everybody asked the same, in turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.governed import NAME, governed
from bench.load import Job, Report, measure
from bench.process import Started, resident_bytes, started
from bench.proving import Prover
from bench.wire import request

CONNECTIONS: Final = 16
LIBRARIES: Final = ("mcp", "uvicorn", "uvloop", "httptools", "httpx2", "aiohttp", "cedarpy", "pynacl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long everything is looked at."""

    rounds: int
    seconds: float
    warm_up: float


FULL: Final = Plan(rounds=5, seconds=3.0, warm_up=1.5)
QUICK: Final = Plan(rounds=1, seconds=1.5, warm_up=0.7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One process that answers the request."""

    key: str
    what: str
    process: Started
    request: bytes
    memory: int  # bytes, at rest, before the first call
    prover: Prover | None = None

    def job(self, seconds: float, *, connections: int = CONNECTIONS, rate: float | None = None) -> Report:
        """What comes of asking it."""
        return measure(
            Job(
                port=self.process.port,
                pid=self.process.pid,
                request=self.request.decode("latin-1"),
                connections=connections,
                seconds=seconds,
                rate=rate,
                prover=None if self.prover is None else asdict(self.prover),
            )
        )


@contextmanager
def contestants(directory: Path) -> Iterator[tuple[Contestant, ...]]:
    """All of them, running, with the same tool server behind."""
    with ExitStack() as stack:
        tool = stack.enter_context(started("-m", "bench.tool_server"))
        behind = f"http://127.0.0.1:{tool.port}/mcp"
        copying = stack.enter_context(started("-m", "bench.copying", BEHIND=behind))
        proxy = stack.enter_context(started("-m", "bench.sdk_proxy", BEHIND=behind))
        gateway = stack.enter_context(governed(directory, behind))
        yield (
            _contestant("direct", "the tool server itself, nothing between", tool),
            _contestant("F", "bytes copied: raw ASGI, aiohttp", copying),
            _contestant("S", "the SDK's two halves: Server, Client", proxy),
            Contestant(
                key="G",
                what="governed: `mcp-authz serve`, everything on",
                process=gateway.process,
                request=request(gateway.process.port, tool=NAME, token=gateway.token),
                memory=resident_bytes(gateway.process.pid),
            ),
            Contestant(
                key="P",
                what="the same gateway; each request with a DPoP proof and a signed call proof",
                process=gateway.process,
                request=b"",
                memory=resident_bytes(gateway.process.pid),
                prover=gateway.prover,
            ),
        )


def _contestant(key: str, what: str, process: Started) -> Contestant:
    memory = resident_bytes(process.pid)
    return Contestant(key=key, what=what, process=process, request=request(process.port), memory=memory)


def compare(plan: Plan) -> dict[str, Any]:
    """The figures of one run, as JSON has them."""
    with tempfile.TemporaryDirectory(prefix="mcp-authz-bench-") as directory, contestants(Path(directory)) as all_:
        for one in all_:
            one.job(plan.warm_up)
        full: dict[str, list[Report]] = {one.key: [] for one in all_}
        half: dict[str, list[Report]] = {one.key: [] for one in all_}
        alone: dict[str, list[Report]] = {one.key: [] for one in all_}
        for _ in range(plan.rounds):
            for one in all_:
                full[one.key].append(one.job(plan.seconds))
        # Half of what G can do, the same for all that can bear it, so that times compare.
        rate = statistics.median(report.per_second for report in full["G"]) / 2
        for _ in range(plan.rounds):
            for one in all_:
                half[one.key].append(one.job(plan.seconds, rate=_bearable(rate, full[one.key])))
                alone[one.key].append(one.job(plan.seconds / 2, connections=1))
        return {
            "conditions": {**_conditions(), **asdict(plan), "connections": CONNECTIONS, "half_rate": rate},
            "contestants": [_figures(one, full[one.key], half[one.key], alone[one.key]) for one in all_],
        }


def _bearable(rate: float, seen: list[Report]) -> float:
    return min(rate, statistics.median(report.per_second for report in seen) / 2)


def _figures(one: Contestant, full: list[Report], half: list[Report], alone: list[Report]) -> dict[str, Any]:
    return {
        "key": one.key,
        "what": one.what,
        "per_second": [report.per_second for report in full],
        "cpu": [report.cpu for report in full],
        "half": {"p50": _middle(half, "p50"), "p99": _middle(half, "p99")},
        "alone": {"p50": _middle(alone, "p50"), "p99": _middle(alone, "p99")},
        "wrong": sum(report.wrong for report in [*full, *half, *alone]),
        "memory": one.memory,
        "start": one.process.seconds,
    }


def _middle(reports: list[Report], name: str) -> float:
    values: list[float] = [getattr(report, name) for report in reports]
    return statistics.median(values)


def _conditions() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "versions": {library: version(library) for library in LIBRARIES},
        "load_average": os.getloadavg()[0],
    }
