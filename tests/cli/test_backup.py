"""Backups and restores at the command line: what is refused, what is printed, and that rehearsals change nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

from mcp_authz.config import load_config
from mcp_authz.doctor.finding import Case
from mcp_authz.doctor.storage import check_store
from mcp_authz.installation import utc_now
from mcp_authz.store.ports import Event
from tests.cli.desk import Desk, settle
from tests.cli.test_commands_doc import keys


async def test_a_backup_is_one_file_for_its_owner_that_replaces_nothing_and_has_its_own_record(desk: Desk) -> None:
    async with desk.open() as here:
        await settle(here)
        file = desk.path("kept.db")
        made = desk.json("backup", file)  # while somebody has the store open
        assert {*made, "schema"} == keys("mcp-authz backup")
        (record,) = [r for r in await here.store.records(kind="administration") if "backup" in r.event.fields]
        assert (record.sequence, record.hash.hex()) == (made["records"], made["head"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in desk.directory.iterdir() if "kept" in path.name) == ["kept.db"]
    assert "is there already" in desk.refused("backup", file)
    assert set(desk.json("backup", file, "--verify")) == keys("mcp-authz backup")
    desk.path("torn.db").write_bytes(file.read_bytes()[:-8192])
    assert "torn.db" in desk.refused("backup", desk.path("torn.db"), "--verify")
    assert "no database" in desk.refused("backup", desk.config, "--verify")


async def test_a_restore_is_rehearsed_and_what_it_cannot_do_is_said(desk: Desk) -> None:
    async with desk.open() as here:
        await settle(here)
    file = desk.path("kept.db")
    desk.ok("backup", file)
    before = desk.json("audit", "verify")
    would = desk.json("restore", file, "--reason", "x", "--dry-run")
    assert set(would) == keys("mcp-authz restore") and would["dry_run"]
    assert "epoch 1 would begin" in desk.ok("restore", file, "--reason", "x", "--dry-run")
    assert desk.json("audit", "verify") == before
    assert "name the backup, or say --in-place" in desk.refused("restore", "--reason", "x")
    assert "--good goes with" in desk.refused("restore", file, "--reason", "x", "--good", "agent:coder")
    assert "there is no backup at" in desk.refused("restore", desk.path("nothing.db"), "--reason", "x")
    key = desk.directory / "data" / "master.key"
    key.rename(desk.path("master.key"))
    assert "put the key there that the backup was made with" in desk.refused("restore", file, "--reason", "x")
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    assert "does not open" in desk.refused("restore", file, "--reason", "x")
    desk.path("master.key").rename(key)
    desk.store.write_bytes(b"not any more")
    assert "--revocations-unknown" in desk.refused("restore", file, "--reason", "x")
    said = desk.ok("restore", file, "--reason", "x", "--revocations-unknown")
    assert "all calls are stopped" in said and "to be enrolled anew: " in said
    verified = desk.ok("audit", "verify")
    assert re.search(r"restored \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z+]", verified), verified
    assert desk.ok("status").startswith("ALL CALLS ARE STOPPED")


async def test_doctor_says_that_a_store_was_put_back_and_when_the_last_backup_was_made_long_ago(desk: Desk) -> None:
    async with desk.open() as here:
        await settle(here)
    desk.ok("backup", desk.path("kept.db"))
    case = Case(config=load_config(desk.config), inside=None, at=utc_now(), command=lambda *words: " ".join(words))
    assert not [it for it in await check_store(case) if "backup" in it.text or "put back" in it.text]
    late = await check_store(replace(case, at=case.at + timedelta(days=40)))
    assert [it.do for it in late if "for 40 days" in it.text and it.state == "note"]
    async with desk.open() as here:
        await here.store.append(Event(kind="administration", at=here.clock()))
    desk.store.write_bytes(desk.path("kept.db").read_bytes())
    (found,) = [it for it in await check_store(case) if "was put back" in it.text]
    assert found.state == "broken" and "restore --in-place" in found.do
