"""A process that prunes is killed at each of its moments: log and archives are one chain, and the next one goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from examples import verify_audit
from mcp_authz.checkpoint_sinks import FileSink
from mcp_authz.checkpoints import Checkpoints
from mcp_authz.cli.verification import Proof, kept_checkpoints, verify
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.store.offline import stored_records
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.killed_pruning import MONTH
from tests.store.world import Time, event

KEY = PrivateKey.from_seed(bytes(range(32)))
MOMENTS = (
    "while the archive is written", "before the archive has its name", "with an archive that nobody knows of",
    "before a row is gone", "when some rows are gone", "never",
)  # fmt: skip
SOON = 60


async def lived(directory: Path) -> list[bytes]:
    """The records of a log of many months, each of which ended with a checkpoint."""
    clock = Time()
    store = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=clock)
    sinks = [FileSink(path=directory / "checkpoints.txt")]
    made = Checkpoints(store=store, clock=clock, issuer="https://a.example", signing=lambda: KEY, sinks=sinks)
    for _ in range(2 * len(MOMENTS)):
        for number in range(5):
            await store.append(replace(event(call=f"c_{number}"), at=clock()))
        assert await made.write() is not None
        clock.pass_(MONTH)
    await store.aclose()
    return [row.body for row in stored_records(directory / "store.db")]


def archives(directory: Path) -> list[Path]:
    return sorted(it for it in (directory / "archives").glob("*") if not it.name.startswith("."))


def assert_one_chain(directory: Path, before: list[bytes]) -> None:
    """All archives that there are, and the log behind them, are the log that there was and what came since."""
    kept, keys = directory / "checkpoints.txt", directory / "keys.json"
    checkpoints, known = kept_checkpoints(kept), {KEY.public.thumbprint: KEY.public}
    for files in ((), tuple(archives(directory))):
        proof = Proof(checkpoints=checkpoints, keys=known, archives=files)
        found = verify(directory / "store.db", lambda *_: None, proof)
        assert found.broken is None, found.broken
    assert found.first == 1
    archived = b"".join(file.read_bytes() for file in archives(directory))
    after = len(archived.splitlines())
    bodies = [*archived.splitlines(), *(row.body for row in stored_records(directory / "store.db", after=after))]
    assert bodies[: len(before)] == before
    (directory / "whole.jsonl").write_bytes(b"".join(body + b"\n" for body in bodies))
    keys.write_text(json.dumps({"keys": [{**KEY.public.jwk, "kid": KEY.public.thumbprint}]}))
    assert verify_audit.main(str(directory / "whole.jsonl"), str(kept), str(keys)) == 0


async def test_whenever_a_process_that_prunes_is_killed_nothing_is_lost_or_doubled_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    before = await lived(tmp_path)
    for months, moment in enumerate(MOMENTS, start=2):
        command = (sys.executable, "-m", "tests.store.killed_pruning", str(tmp_path), str(months), moment)
        done = subprocess.run(command, timeout=SOON, check=False)  # noqa: ASYNC221 - nothing else goes on
        assert done.returncode == (0 if moment == "never" else -signal.SIGKILL), moment
        assert_one_chain(tmp_path, before)
    left = [it.name for it in (tmp_path / "archives").iterdir()]
    assert not [name for name in left if name.startswith(".")], "what was half written is gone"
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    base = (await store.log_base()).sequence
    await store.aclose()
    assert stored_records(tmp_path / "store.db")[0].sequence == base + 1
    assert sum(len(file.read_bytes().splitlines()) for file in archives(tmp_path)) == base
