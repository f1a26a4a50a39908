"""`python -m bench`: the comparison, and how long a start takes.

`python -m bench steps`: where the time goes, and what growth costs; `python -m bench proofs`: what chains and proofs
cost; `python -m bench policies`: what decisions and lists cost; `python -m bench holds`: what held calls cost;
`python -m bench revocation`: how soon a revocation counts;
`python -m bench audit`: what the log costs; `python -m bench start`: a start alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio

from bench import compare, table
from bench.audit import audit
from bench.growth import growth
from bench.holds import holds
from bench.house import house
from bench.policies import policies
from bench.process import started
from bench.proofs import proofs
from bench.revocation import revocation
from bench.start import start
from bench.steps import steps


async def look(*, calls: int, share: int) -> dict[str, Any]:
    """The steps of one call, and what growth costs it."""
    with tempfile.TemporaryDirectory(prefix="mcp-authz-bench-") as name, started("-m", "bench.tool_server") as server:
        async with house(Path(name) / "steps", f"http://127.0.0.1:{server.port}/mcp") as one:
            measured = await steps(one, calls)
        grown = await growth(Path(name), share=share)
    return {"steps": dict(measured), "growth": [asdict(one) for one in grown]}


async def prove(calls: int) -> dict[str, Any]:
    """What chains and proofs cost."""
    with tempfile.TemporaryDirectory(prefix="mcp-authz-bench-") as name, started("-m", "bench.tool_server") as server:
        async with house(Path(name), f"http://127.0.0.1:{server.port}/mcp") as one:
            return {"proofs": dict(await proofs(one, calls))}


async def judge(calls: int) -> dict[str, Any]:
    """What decisions cost by the number of rules, and lists by their length."""
    with tempfile.TemporaryDirectory(prefix="mcp-authz-bench-") as name, started("-m", "bench.tool_server") as server:
        async with house(Path(name), f"http://127.0.0.1:{server.port}/mcp") as one:
            return {"policies": dict(await policies(one, calls))}


async def hold(share: int) -> dict[str, Any]:
    """What held calls cost."""
    with tempfile.TemporaryDirectory(prefix="mcp-authz-bench-") as name, started("-m", "bench.tool_server") as server:
        return {"holds": await holds(Path(name), f"http://127.0.0.1:{server.port}/mcp", share=share)}


async def revoke(rounds: int) -> dict[str, Any]:
    """How soon a revocation counts."""
    with tempfile.TemporaryDirectory(prefix="mcp-authz-bench-") as name, started("-m", "bench.tool_server") as server:
        return {"revocation": await revocation(Path(name), f"http://127.0.0.1:{server.port}/mcp", rounds=rounds)}


async def record(*, lengths: tuple[int, ...], appends: int) -> dict[str, Any]:
    """What the log costs."""
    with tempfile.TemporaryDirectory(prefix="mcp-authz-bench-") as name:
        return {"audit": await audit(Path(name), lengths=lengths, appends=appends)}


def main() -> None:
    """The measurement was made and printed; nothing is asserted."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=("compare", "steps", "proofs", "policies", "holds", "revocation", "audit", "start"),
        default="compare",
    )
    parser.add_argument("--quick", action="store_true", help="about 20 seconds, good for a first look only")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    if asked.what == "steps":
        calls, share = (90, 50) if asked.quick else (900, 1)
        run = anyio.run(lambda: look(calls=calls, share=share), backend_options={"use_uvloop": True})
        shown = table.show_steps(run)
    elif asked.what == "proofs":
        run = anyio.run(prove, 200 if asked.quick else 2000)
        shown = table.show_proofs(run)
    elif asked.what == "policies":
        run = anyio.run(judge, 200 if asked.quick else 2000)
        shown = table.show_policies(run)
    elif asked.what == "holds":
        run = anyio.run(lambda: hold(20 if asked.quick else 1), backend_options={"use_uvloop": True})
        shown = table.show_holds(run)
    elif asked.what == "revocation":
        run = anyio.run(lambda: revoke(rounds=20 if asked.quick else 200), backend_options={"use_uvloop": True})
        shown = table.show_revocation(run)
    elif asked.what == "audit":
        lengths, appends = ((10_000,), 1000) if asked.quick else ((10_000, 1_000_000), 10_000)
        run = anyio.run(lambda: record(lengths=lengths, appends=appends), backend_options={"use_uvloop": True})
        shown = table.show_audit(run)
    elif asked.what == "start":
        run = {"start": asdict(start(rounds=3 if asked.quick else 9))}
        shown = table.show_start(run)
    else:
        run = compare.compare(compare.QUICK if asked.quick else compare.FULL)
        run |= {"start": asdict(start(rounds=3 if asked.quick else 9))}
        shown = f"{table.show(run)}\n\n{table.show_start(run)}"
    print(json.dumps(run, indent=2) if asked.json else shown)


if __name__ == "__main__":
    main()
