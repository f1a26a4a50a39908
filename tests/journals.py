"""A tool server with a journal behind a gateway, and what its journal and the audit log must say of each other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_authz.audit import Evidence
from mcp_authz.installation import Installation
from mcp_authz.model import HoldState
from mcp_authz.rules.log import first_break
from mcp_authz.store.offline import stored_head, stored_records
from mcp_authz.store.ports import Record
from tests.site import PROGRAM, Site
from tests.world import ROOT

JOURNAL = Path(__file__).parent / "servers" / "journal.py"
TOOLS = {"look": {"hazard": "read", "scopes": ["use"]}, "drop": {"hazard": "destructive", "scopes": ["use"]}}
MANY = 1_000_000


def keeping(directory: Path) -> dict[str, Any]:
    """The configuration of the server `it`; its journal is in this directory, beside the gateway's data."""
    command = [sys.executable, str(JOURNAL), str(journal_of(directory)), str(directory / "data" / "store.db")]
    return {"it": {"command": command, "cwd": str(directory), "tools": TOOLS}}


def journal_of(directory: Path) -> Path:
    return directory / "journal"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One call that reached the tool server, and how far the audit log had come by then."""

    tool: str
    n: int
    head: int


def ran(directory: Path) -> list[Ran]:
    """What the tool server ran, in the order it did."""
    file = journal_of(directory)
    return [Ran(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


async def assert_accounted_for(here: Site, store: Installation, made: Mapping[int, Any]) -> Counter[str]:
    """Each call that ran was decided before, and each that was decided has one end; how many ended in which way.

    `made` has the arguments of every call there was, by `n`.
    """
    records = await store.store.records(limit=MANY)
    evidence = Evidence(await store.store.secret("evidence-key", lambda: b""))
    n_of = {evidence.digest(one): n for n, one in made.items()}
    permits = [it for it in records if it.event.kind == "decision" and it.event.fields["decision"] == "permit"]
    decided: dict[int, list[Record]] = {}
    for it in permits:
        decided.setdefault(n_of[it.event.fields["arguments_digest"]], []).append(it)

    journal = ran(here.config.data.parent)
    for call in journal:
        assert call.n in decided, f"call {call.n} ran without a decision"
        assert any(it.sequence <= call.head for it in decided[call.n]), f"call {call.n} ran before its decision"
    assert Counter(call.n for call in journal).most_common(1)[0][1] == 1, "a call ran twice"

    outcomes = [it for it in records if it.event.kind == "outcome"]
    ends = Counter(it.event.call for it in outcomes)
    assert ends == Counter(it.event.call for it in permits), "a call without an outcome, or with two"
    ended = {it.event.call: it for it in outcomes}
    assert all(ended[it.event.call].sequence > it.sequence for it in permits)

    holds = {held.id: held.state for held in await store.store.holds()}
    claimed = {it.event.fields["approval"]["hold"] for it in permits if "approval" in it.event.fields}
    assert HoldState.CLAIMED not in holds.values()
    assert {holds[hold] for hold in claimed} <= {HoldState.DONE, HoldState.FAILED, HoldState.UNKNOWN}
    assert {call.n for call in journal if call.tool == "drop"} <= {
        n for n, decisions in decided.items() if all("approval" in it.event.fields for it in decisions)
    }
    return Counter(it.event.fields["outcome"] for it in outcomes)


def assert_verifies(here: Site, directory: Path) -> None:
    """The chain hangs together, says the gateway's own code, and says a verifier that has nothing of it."""
    path, out = here.config.data / "store.db", directory / "log.jsonl"
    assert first_break(stored_records(path, limit=MANY), head=stored_head(path)) is None
    export = [str(PROGRAM), "--config", str(here.file), "audit", "export", "--format", "chain", "--out", str(out)]
    subprocess.run(export, check=True, capture_output=True, timeout=60)
    verify = [sys.executable, str(ROOT / "examples" / "verify_audit.py"), str(out)]
    said = subprocess.run(verify, check=False, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stdout + said.stderr
