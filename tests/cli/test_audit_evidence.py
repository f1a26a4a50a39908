"""What can be proved elsewhere about the log: by checkpoints that were kept, and by an excerpt with one call."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import anyio
import pytest

from mcp_authz.checkpoint_sinks import FileSink
from mcp_authz.checkpoints import Checkpoints
from mcp_authz.live_keys import LiveKeys
from mcp_authz.rules.log import record_bytes, record_hash
from mcp_authz.store.offline import stored_records
from tests.cli.desk import Desk
from tests.world import World, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}


async def checkpoint(w: World, file: Path) -> None:
    """A checkpoint as the gateway makes them while it serves."""
    keys = await LiveKeys.load(w.store, "checkpoint", clock=w.clock)
    made = Checkpoints(
        store=w.store,
        clock=w.clock,
        issuer=w.config.public_url,
        signing=lambda: keys.signing,
        sinks=[FileSink(path=file)],
    )
    assert await made.write() is not None


async def a_deployment(w: World) -> str:
    """A call that was held, approved and run; the id of the call that ran."""
    coder = await w.ready("coder", "deploy")
    held = await w.call(coder, "acme__deploy", **DEPLOY)
    await w.answer(held.hold, by="alice")
    assert not (await w.call(coder, "acme__deploy", **DEPLOY)).is_error
    return next(record.event.call or "" for record in await w.records("outcome"))


async def test_one_call_is_told_and_shown_elsewhere_without_the_rest_of_the_log(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints.txt"
    async with world(tmp_path) as w:
        call = await a_deployment(w)
        await checkpoint(w, file)
    desk = Desk(directory=tmp_path)
    (tmp_path / "gateway.toml").write_text(f'data_dir = "{tmp_path / "data"}"\n')
    said = await anyio.to_thread.run_sync(lambda: explained(desk, call))
    story, records = said["story"], said["records"]
    assert story.startswith(
        "coder, for alice, asked for deploy.create (deploy_environment staging, repo acme/api): held"
    )
    assert "approved by alice while signed in, done in" in story
    assert [record["kind"] for record in records] == ["decision", "approval", "decision", "outcome"]
    excerpt = json.loads((tmp_path / "call.json").read_text())
    assert excerpt["uncovered"] == [] and len(excerpt["checkpoints"][0]["records"]) == 8
    assert (tmp_path / "call.json").stat().st_mode & 0o077 == 0
    (tmp_path / "far").mkdir()
    far = Desk(directory=tmp_path / "far")
    verify = ("audit", "verify", "--excerpt", str(tmp_path / "call.json"), "--keys", str(tmp_path / "keys.json"))
    done = await anyio.to_thread.run_sync(lambda: far.run(*verify, global_options=()))
    assert done.code == 0 and done.out.count("(checkpoint 1)") == 8, done
    (tmp_path / "call.json").write_text((tmp_path / "call.json").read_text().replace("permit", "denied"))
    done = await anyio.to_thread.run_sync(lambda: far.run(*verify, global_options=()))
    assert done.code == 1 and "is not in the log that checkpoint 1 signs" in done.err, done


def explained(desk: Desk, call: str) -> dict[str, object]:
    """What the command says of the call, whose excerpt and keys are written beside the store."""
    (desk.directory / "keys.json").write_text(desk.ok("audit", "keys"))
    said: dict[str, object] = desk.json("audit", "explain", call, "--bundle", str(desk.directory / "call.json"))
    assert "there already" in desk.refused("audit", "explain", call, "--bundle", str(desk.directory / "call.json"))
    assert "no record is of" in desk.refused("audit", "explain", "c_nothing")
    return said


@pytest.mark.parametrize("tampering", ["", "cut", "anew"])
async def test_a_log_is_also_what_the_checkpoints_say_that_were_kept_elsewhere(tmp_path: Path, tampering: str) -> None:
    file, store = tmp_path / "checkpoints.txt", tmp_path / "data" / "store.db"
    async with world(tmp_path) as w:
        await w.person("alice")
        await w.person("bob")
        await checkpoint(w, file)
        (tmp_path / "keys.json").write_text(json.dumps(w.running.checkpoint_keys.jwks))
        records = len(await w.records())
    if tampering:
        rewrite(store, cut=tampering == "cut")
    verify = (
        "audit",
        "verify",
        "--store",
        str(store),
        "--checkpoints",
        str(file),
        "--keys",
        str(tmp_path / "keys.json"),
    )
    done = await anyio.to_thread.run_sync(lambda: Desk(directory=tmp_path).run(*verify, global_options=()))
    if tampering:
        assert done.code == 1 and f"the log was {'cut' if tampering == 'cut' else 'written anew'}" in done.out, done
    else:
        assert done.code == 0 and f"1 checkpoints vouch for the first {records - 1}" in done.out, done


def rewrite(store: Path, *, cut: bool) -> None:
    """Who can write the file takes the newest records away, or writes them anew with hashes that fit."""
    rows = list(stored_records(store, limit=1000))
    kept, previous = rows[:-3], rows[-4].hash
    made = []
    for row in [] if cut else rows[-3:]:
        body = json.loads(row.body)
        changed = record_bytes(
            sequence=row.sequence,
            previous=previous,
            kind=body["kind"],
            at=datetime.fromisoformat(body["at"]),
            call=body["call"],
            fields={**body["fields"], "by": "user:nobody"},
        )
        previous = record_hash(changed)
        made.append((row.sequence, changed, previous))
    with closing(sqlite3.connect(store)) as db:
        db.execute("DROP TRIGGER log_is_never_cut")
        db.execute("DELETE FROM log WHERE sequence > ?", (kept[-1].sequence,))
        db.executemany("INSERT INTO log (sequence, body, hash) VALUES (?, ?, ?)", made)
        head = (made[-1][0], made[-1][2]) if made else (kept[-1].sequence, kept[-1].hash)
        db.execute("UPDATE log_head SET sequence = ?, hash = ?", head)
        db.commit()


async def test_the_beginning_of_several_ids_tells_of_no_call_and_shreds_none(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        for version in ("1.4.0", "1.5.0"):
            await w.call(coder, "acme__deploy", **{**DEPLOY, "version": version})
    desk = Desk(directory=tmp_path)
    (tmp_path / "gateway.toml").write_text(f'data_dir = "{tmp_path / "data"}"\n')
    for command in (["explain", "c_"], ["shred", "h_", "--reason", "a slip"]):
        said = await anyio.to_thread.run_sync(desk.refused, "audit", *command)
        assert "more than one call or hold begins with" in said
