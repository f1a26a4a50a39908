"""The audit log at the command line."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.audit import sentence
from mcp_authz.checkpoint_sinks import FileSink
from mcp_authz.checkpoints import Checkpoints
from mcp_authz.installation import utc_now
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.store.ports import Event
from tests.cli.desk import COMMAND, SOON, Desk, held_call, hold, settle


def _tamper(store: Path, *statements: str) -> None:
    with closing(sqlite3.connect(store)) as db:
        for statement in ("DROP TRIGGER log_is_never_altered", "DROP TRIGGER log_is_never_cut", *statements):
            db.execute(statement)
        db.commit()


async def test_records_are_sentences_and_can_be_chosen(desk: Desk) -> None:
    async with desk.open() as here:
        cast = await settle(here)
        call = held_call(cast)
        await hold(here, call)
        old = Event(kind="policy", at=utc_now() - timedelta(days=3), fields={"summary": "long ago"})
        await here.store.append(old)
    everything = desk.ok("audit", "list")
    assert "planner delegated to coder for alice" in everything and call.id in everything
    assert [record["kind"] for record in desk.json("audit", "list", "--limit", "2")] == ["decision", "policy"]
    assert [record["call"] for record in desk.json("audit", "list", "--call", call.id[:12])] == [call.id]
    assert {record["kind"] for record in desk.json("audit", "list", "--kind", "grant")} == {"grant"}
    assert "long ago" not in desk.ok("audit", "list", "--since", "2h")
    assert "long ago" in desk.ok("audit", "list", "--since", "4d")
    assert desk.json("audit", "list", "--since", "2090-01-01") == []
    assert {record["kind"] for record in desk.json("audit", "list", "--agent", "coder")} == {"enrolment", "delegation"}
    assert desk.run("audit", "list", "--since", "tomorrow").code == 2
    assert [record["call"] for record in desk.json("audit", "list", "--decision", "hold")] == [call.id]
    assert "delegation" in {record["kind"] for record in desk.json("audit", "list", "--person", "alice")}
    assert {record["kind"] for record in desk.json("audit", "list", "--session", cast.session.id)} >= {"delegation"}
    assert [record["kind"] for record in desk.json("audit", "list", "--text", "LONG ago", "--until", "2d")] == [
        "policy"
    ]
    assert desk.ok("audit", "list", "--text", "nowhere") == "no records are like that\n"


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        (
            "sign-in",
            {"summary": "coder was refused", "decision": "deny", "reason": "spent"},
            "coder was refused: spent",
        ),
        (
            "delegation",
            {"summary": "no", "decision": "deny", "reason": "to test", "detail": "too deep"},
            "no: too deep",
        ),
        (
            "delegation",
            {"summary": "planner delegated", "decision": "permit", "reason": "to test"},
            "planner delegated",
        ),
    ],
)
def test_what_was_refused_reads_with_why(kind: str, fields: dict[str, str], told: str) -> None:
    assert sentence(Event(kind=kind, at=utc_now(), fields=fields)) == f"{kind}: {told}"


def test_a_call_of_an_agent_that_works_for_itself_reads_so() -> None:
    own = {"actor": "agent:planner", "subject": "agent:planner", "chain": ["agent:planner"], "decision": "permit"}
    event = Event(kind="decision", at=utc_now(), fields={**own, "action": "pr.read"})
    assert sentence(event) == "planner for itself asked for pr.read: permitted"


async def test_a_log_longer_than_a_page_is_read_from_its_end(desk: Desk) -> None:
    async with desk.open() as here:
        await here.store.append(Event(kind="policy", at=utc_now(), fields={"summary": "the first"}))
        for number in range(1100):
            await here.store.append(Event(kind="administration", at=utc_now(), fields={"summary": f"event {number}"}))
    assert desk.json("audit", "list", "--limit", "1")[0]["fields"]["summary"] == "event 1099"
    assert desk.json("audit", "list", "--kind", "policy")[0]["fields"]["summary"] == "the first"
    assert len(desk.json("audit", "list", "--limit", "1050")) == 1050
    assert desk.ok("audit", "verify").startswith("1101 records, unbroken\nhead ")


async def test_tail_prints_what_is_new_and_ends_well(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    command = [*COMMAND, "--config", str(desk.config), "audit", "tail"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=desk.directory) as process:  # noqa: ASYNC220
        assert process.stdout is not None and process.stderr is not None
        assert "person alice registered" in process.stdout.readline()
        async with desk.open() as here:
            started = time.monotonic()
            await here.store.append(Event(kind="policy", at=utc_now(), fields={"summary": "something new"}))
        assert "something new" in process.stdout.readline()
        assert time.monotonic() - started < 10  # a second, on a machine with nothing else to do
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON) == 0
        assert process.stdout.read() == "" and process.stderr.read() == ""


def test_a_whole_chain_is_verified_also_in_a_copy(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    said = desk.ok("audit", "verify")
    assert said.startswith("1 record, unbroken\nhead ")
    copy = desk.path("copy.db")
    shutil.copy(desk.store, copy)
    alone = Desk(directory=desk.directory)
    done = alone.run("audit", "verify", "--store", copy, global_options=())
    assert (done.code, done.out) == (0, said)
    assert desk.json("audit", "verify") == {
        "unbroken": True,
        "records": 1,
        "first": 1,
        "head": said.splitlines()[1].removeprefix("head "),
        "broken": None,
        "checkpointed": None,
        "pruned": None,
        "restored": [],
        "lost_checkpoints": 0,
    }


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE log SET body = CAST(replace(body, 'bob', 'eve') AS BLOB) WHERE sequence = 2", "record 2 was altered"),
        ("DELETE FROM log WHERE sequence = 2", "record 2 is missing"),
        ("DELETE FROM log WHERE sequence = 3", "the log ends at record 2"),
        (
            "UPDATE log_head SET sequence = 2, hash = (SELECT hash FROM log WHERE sequence = 2)",
            "record 3 stands behind",
        ),
    ],
)
def test_a_broken_chain_is_found_and_named(desk: Desk, statement: str, why: str) -> None:
    for name in ("alice", "bob", "carol"):
        desk.ok("user", "add", name)
    _tamper(desk.store, statement)
    done = desk.run("audit", "verify")
    assert done.code == 1 and why in done.out and "Traceback" not in done.err
    done = desk.run("audit", "verify", "--json")
    assert done.code == 1 and done.json["unbroken"] is False and why in done.json["broken"]["why"]


async def test_old_records_are_pruned_into_an_archive_and_what_is_left_verifies_with_it(desk: Desk) -> None:
    assert "nothing was pruned: there is no checkpoint" in desk.ok("audit", "prune", "--keep", "30d")
    long_ago, sink = utc_now() - timedelta(days=40), FileSink(path=desk.path("kept.txt"))
    key = PrivateKey.generate()
    async with desk.open() as here:
        await here.store.append(Event(kind="administration", at=long_ago, fields={}))
        made = Checkpoints(
            store=here.store, clock=lambda: long_ago, issuer="https://a.example", signing=lambda: key, sinks=[sink]
        )
        assert await made.write() is not None
    assert "records 1 to 2 would go" in desk.ok("audit", "prune", "--keep", "30d", "--dry-run")
    done = desk.json("audit", "prune", "--keep", "30d", "--archive", desk.path("old.jsonl"))
    assert (done["pruned"], done["from"], done["until"]) == (True, 1, 2)
    assert desk.path("old.jsonl").stat().st_mode & 0o077 == 0
    said = desk.ok("audit", "verify")
    assert "2 records (3 to 4), unbroken" in said and "records up to 2 were pruned" in said
    desk.path("keys.json").write_text(desk.ok("audit", "keys"))
    proof = ("--checkpoints", desk.path("kept.txt"), "--keys", desk.path("keys.json"))
    assert "vouch for the first 2" in desk.ok("audit", "verify", "--archive", desk.path("old.jsonl"), *proof)
    assert "the first 2, which were pruned" in desk.refused("audit", "explain", "c_long_ago")
    assert desk.run("audit", "prune", "--keep", "1d").code == 1


def test_a_verification_that_is_interrupted_says_so_and_with_an_exit_code_of_its_own(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.path("keys.json").write_text(desk.ok("audit", "keys"))
    slow = desk.path("slow.txt")
    os.mkfifo(slow)
    words = ("audit", "verify", "--checkpoints", slow, "--keys", desk.path("keys.json"))
    command = [*COMMAND, "--config", str(desk.config), *map(str, words)]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as running,
        slow.open("w"),  # it is open as soon as the command reads it
    ):
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=SOON)
    assert (running.returncode, out, err) == (130, "", "mcp-authz: interrupted before it was done\n")
