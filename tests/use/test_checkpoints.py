"""Checkpoints of a real log in a real file, and what an independent verifier makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from examples import verify_audit
from mcp_authz.checkpoint_sinks import FileSink
from mcp_authz.checkpoints import Checkpoints
from mcp_authz.config import parse_config
from mcp_authz.doctor.checkpoints import check_checkpoints
from mcp_authz.doctor.finding import Case
from mcp_authz.locking import locked
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.store.offline import stored_records
from mcp_authz.store.ports import Store
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import START, Time, event
from tests.world import ROOT

KEY, NEXT = PrivateKey.from_seed(bytes(range(32))), PrivateKey.from_seed(bytes(range(1, 33)))


@asynccontextmanager
async def a_store(directory: Path) -> AsyncIterator[Store]:
    store = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=Time())
    try:
        yield store
    finally:
        await store.aclose()


def checkpoints(store: Store, directory: Path, *more: Path, key: PrivateKey = KEY) -> Checkpoints:
    sinks = [FileSink(path=path) for path in (directory / "checkpoints.txt", *more)]
    return Checkpoints(store=store, clock=Time(), issuer="https://authz.example.com", signing=lambda: key, sinks=sinks)


def verify(directory: Path, *keys: PrivateKey) -> tuple[int, str]:
    """What `examples/verify_audit.py` says of the store's log and the file of checkpoints."""
    rows = stored_records(directory / "store.db", limit=10_000)
    (directory / "log.jsonl").write_bytes(b"".join(row.body + b"\n" for row in rows))
    jwks = {"keys": [{**key.public.jwk, "kid": key.public.thumbprint} for key in keys]}
    (directory / "keys.json").write_text(json.dumps(jwks))
    files = [str(directory / name) for name in ("log.jsonl", "checkpoints.txt", "keys.json")]
    command = [sys.executable, str(ROOT / "examples" / "verify_audit.py"), *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout


async def test_checkpoints_follow_from_one_another_over_a_restart_and_a_new_key(tmp_path: Path) -> None:
    async with a_store(tmp_path) as store:
        assert await checkpoints(store, tmp_path).write() is None  # of nothing
        for number in range(3):
            await store.append(event(call=f"c_{number}"))
            written = await checkpoints(store, tmp_path).write()
            assert written is not None and written.checkpoint.number == number + 1
        assert await checkpoints(store, tmp_path).write() is None  # nothing was written since
    async with a_store(tmp_path) as store:
        await store.append(event())
        written = await checkpoints(store, tmp_path, key=NEXT).write()
        assert written is not None and written.checkpoint.number == 4
        new_keys = [r.event.fields["jwk"] for r in await store.records(kind="checkpoint") if "jwk" in r.event.fields]
    assert new_keys == [KEY.public.jwk, NEXT.public.jwk]
    assert verify(tmp_path, KEY, NEXT) == (0, "10 records hang together; checkpoints vouch for the first 9\n")
    assert verify(tmp_path, KEY)[0] == 1  # who does not know the new key is told


async def test_an_independent_verifier_finds_a_log_that_was_cut_or_written_anew(tmp_path: Path) -> None:
    async with a_store(tmp_path) as store:
        for number in range(5):
            await store.append(event(call=f"c_{number}"))
        await checkpoints(store, tmp_path).write()
    assert verify(tmp_path, KEY)[0] == 0
    whole = (tmp_path / "log.jsonl").read_bytes().splitlines(keepends=True)
    texts = (tmp_path / "checkpoints.txt").read_text()
    files = [str(tmp_path / name) for name in ("log.jsonl", "checkpoints.txt", "keys.json")]
    for lines in (whole[:4], whole[1:], [*whole[:2], *whole[3:]], [whole[0].replace(b"c_0", b"c_9"), *whole[1:]], []):
        (tmp_path / "log.jsonl").write_bytes(b"".join(lines))
        assert verify_audit.main(*files) == 1
    (tmp_path / "log.jsonl").write_bytes(b"".join(whole))
    (tmp_path / "checkpoints.txt").write_text(texts[:-20] + ("A" if texts[-20] != "A" else "B") + texts[-19:])
    assert verify_audit.main(*files) == 1


async def test_a_sink_that_cannot_be_written_is_on_record_and_the_others_have_the_checkpoint(tmp_path: Path) -> None:
    async with a_store(tmp_path) as store:
        await store.append(event())
        written = await checkpoints(store, tmp_path, tmp_path / "not-there" / "file").write()
        assert written is not None and len(written.kept) == len(written.failed) == 1
        last = await store.last_of("checkpoint")
    assert last is not None and "could not be reached" in last.event.fields["summary"]
    assert (tmp_path / "checkpoints.txt").read_text().strip() == written.text
    assert (tmp_path / "checkpoints.txt").stat().st_mode & 0o077 == 0


async def test_a_place_that_was_away_is_brought_what_it_lacks_in_order_also_after_a_restart(tmp_path: Path) -> None:
    away = tmp_path / "elsewhere" / "checkpoints.txt"
    async with a_store(tmp_path) as store:
        for _ in range(2):
            await store.append(event())
            written = await checkpoints(store, tmp_path, away).write()
            assert written is not None and written.failed == (f"file:{away}",)
        last = await store.last_of("checkpoint")
        assert last is not None and list(last.event.fields["behind"]) == [f"file:{away}"]
    away.parent.mkdir()
    async with a_store(tmp_path) as store:
        again = checkpoints(store, tmp_path, away)
        assert await again.write() is None  # nothing was written since, and what is lacking is brought all the same
        last = await store.last_of("checkpoint")
        assert last is not None and last.event.fields["behind"] == {}
        await store.append(event())
        assert await again.write() is not None
    assert away.read_text() == (tmp_path / "checkpoints.txt").read_text()
    assert len(away.read_text().split()) == 3
    (tmp_path / "checkpoints.txt").write_text(away.read_text())
    assert verify(tmp_path, KEY)[0] == 0


async def test_a_gateway_that_was_killed_before_a_checkpoint_was_brought_anywhere_leaves_no_gap(tmp_path: Path) -> None:
    async with a_store(tmp_path) as store:
        await store.append(event())
        assert await checkpoints(store, tmp_path).write() is not None
        await store.append(event())
        assert await checkpoints(store, tmp_path).write() is not None
    lines = (tmp_path / "checkpoints.txt").read_text().splitlines(keepends=True)
    (tmp_path / "checkpoints.txt").write_text(lines[0])  # as if it had ended between log and file
    async with a_store(tmp_path) as store:
        await store.append(event())
        assert await checkpoints(store, tmp_path).write() is not None
    assert len((tmp_path / "checkpoints.txt").read_text().split()) == 3
    assert verify(tmp_path, KEY)[0] == 0


async def test_doctor_says_where_checkpoints_are_of_little_use_and_which_place_lacks_some(tmp_path: Path) -> None:
    async def said(**audit: object) -> str:
        config = parse_config({"data_dir": str(tmp_path), "audit": audit})
        case = Case(config=config, inside=None, at=START + timedelta(hours=1), command=lambda *words: " ".join(words))
        return "\n".join(f"{it.state}: {it.text}" for it in await check_checkpoints(case))

    assert "none are made" in await said(checkpoints=[])
    away = tmp_path / "elsewhere" / "checkpoints.txt"
    async with a_store(tmp_path) as store:
        await store.append(event())
        await checkpoints(store, tmp_path, away).write()
        await store.append(event())
        assert "note: they are kept beside the store alone" in await said()
        elsewhere = await said(checkpoints=["file", f"file:{away}"])
        assert f"file:{away} lacks some" in elsewhere and "the newest is of" not in elsewhere
        with locked(tmp_path / "gateway.lock"):  # a gateway runs, and has made none for an hour
            assert "though one is made every 10 minutes" in await said()
