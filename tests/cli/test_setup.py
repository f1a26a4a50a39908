"""The first minutes: help, version, init, status, and how quickly they answer."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import unix_socket
from mcp_authz.accounts import Accounts, LinkOver, NewPasskey
from mcp_authz.cli.init import initialise, name_of
from mcp_authz.cli.places import the_only_one
from mcp_authz.config import load_config
from mcp_authz.installation import utc_now
from mcp_authz.store.ports import Event
from tests.cli.desk import Desk, held_call, hold, settle


def test_help_and_version_need_neither_store_nor_policy_engine(desk: Desk) -> None:
    code = (
        "import sys; from contextlib import suppress; from mcp_authz.cli.main import main\n"
        "with suppress(SystemExit): main()\n"
        "print([name for name in ('pydantic', 'cedarpy', 'nacl', 'sqlite_utils', 'mcp') if name in sys.modules])"
    )
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, option], check=True, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "[]", done.stdout
    assert desk.run("--version", global_options=()).out == f"mcp-authz {version('mcp-authz')}\n"


def test_the_installed_script_is_this_command_line() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("mcp-authz"), "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"mcp-authz {version('mcp-authz')}\n"


def test_an_unknown_command_is_a_usage_error_that_suggests(desk: Desk) -> None:
    done = desk.run("agnet", "list")
    assert done.code == 2 and "Did you mean 'agent'" in done.err
    assert desk.run("agent", "lst").code == 2
    assert desk.run("grant", "add", "--subject", "a", "--agent", "b", "--scope", "c", "--for", "1y").code == 2


def test_init_writes_a_configuration_that_works_and_is_done_once(desk: Desk) -> None:
    done = desk.run("init", global_options=())
    path = desk.path("home") / ".config" / "mcp-authz" / "gateway.toml"
    assert done.code == 0 and f"configuration {path} is written" in done.out and "you are " in done.out
    assert load_config(path).servers == {}
    path.write_text(path.read_text() + "# mine\n")
    again = desk.run("init", global_options=())
    assert again.code == 0 and "is there already" in again.out and path.read_text().endswith("# mine\n")
    status = desk.run("status", "--json", global_options=())
    assert status.json["counts"]["people"] == 1 and status.json["config"] == str(path)


def test_what_the_starter_configuration_suggests_is_accepted_too(desk: Desk) -> None:
    desk.ok("init")  # the desk has a configuration: nothing is written
    assert desk.config.read_text() == 'data_dir = "data"\n'
    desk.ok("init", "--config", desk.path("new/gateway.toml"))
    text = desk.path("new/gateway.toml").read_text()
    lines = [
        line.removeprefix("# ") if line.startswith("# [") or (line.startswith("# ") and " = " in line) else line
        for line in text.splitlines()
    ]
    assert len(set(lines) - set(text.splitlines())) > 8
    desk.config.write_text("\n".join(lines))
    assert set(tomllib.loads(desk.config.read_text())["servers"]) == {"files", "tickets"}
    load_config(desk.config)


async def test_status_says_what_there_is_without_a_running_gateway(desk: Desk) -> None:
    desk.configure('data_dir = "data"\n[servers.files]\ncommand = ["files"]\n')
    async with desk.open() as here:
        cast = await settle(here)
        await hold(here, held_call(cast))
    known = desk.json("status")
    assert known["counts"] == {"people": 2, "agents": 2, "grants": 1, "sessions": 1, "holds": 1}
    assert known["store"] == str(desk.store) and len(known["policy"]["digest"]) == 64
    assert known["servers"] == [
        {
            "name": "files",
            "environment": "local",
            "mode": "enforce",
            "reached_by": "files",
            "tools": 0,
            "quarantined": 0,
            "with_warnings": 0,
        }
    ]
    assert known["gateway"]["running"] is False and known["observed"] == []
    assert known["page"] == "http://localhost:8642/holds"
    assert "holds list" in desk.ok("status").splitlines()[-1]


def link(text: str) -> str:
    """The one-time link that a command printed."""
    (found,) = [line.strip() for line in text.splitlines() if line.strip().startswith("http")]
    return found


async def test_init_prints_a_link_that_registers_a_passkey_and_only_the_newest_one_is_good(desk: Desk) -> None:
    first, second = link(desk.ok("init")), link(desk.ok("init"))
    assert first != second and all(it.startswith("http://localhost:8642/welcome/") for it in (first, second))
    async with desk.open() as here:
        accounts = Accounts(here.store, here.clock)
        with pytest.raises(LinkOver):
            await accounts.invited(first.rpartition("/")[2])
        passkey = NewPasskey(credential=b"c", public_key=b"k", sign_count=0)
        await accounts.register_invited(second.rpartition("/")[2], passkey, "laptop")
    assert "/welcome/" not in desk.ok("init")


async def test_whoever_sets_up_another_installation_gets_what_they_need_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    path = tmp_path / "new" / "gateway.toml"
    done = await initialise(path)
    assert done.written and done.link is not None and done.config.source == path
    again = await initialise(path)
    assert not again.written and again.person == done.person and again.link not in {None, done.link}
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("login", "person"),
    [("alice", "alice"), ("Jane Doe", "jane-doe"), ("CORP\\bob", "corp-bob"), ("_apt", "apt"), ("ö", "me")],
    ids=lambda value: value.encode("ascii", "replace").decode(),
)
def test_every_login_makes_a_person(login: str, person: str) -> None:
    assert name_of(login) == person


def decided(call: str, at: datetime, **fields: Any) -> Event:
    whole = {"actor": "agent:coder", "tool": f"files__{call}", "server": "files", "because": [], **fields}
    return Event(kind="decision", at=at, call=f"c_{call}", fields=whole)


async def test_status_is_loud_about_what_is_only_observed_and_counts_what_would_not_have_run(desk: Desk) -> None:
    desk.configure('data_dir = "data"\n[servers.files]\ncommand = ["files"]\nmode = "observe"\n')
    denied = {"would": "deny", "reason": "policy", "because": ["r"]}
    held = {"would": "hold", "reason": "approval", "because": [], "rules": ["write"]}
    async with desk.open() as here:
        now = here.clock()
        for name, at, fields in (
            ("long_ago", now - timedelta(days=2), {"observed": denied}),
            ("one", now, {"observed": denied}),
            ("two", now, {"observed": denied}),
            ("three", now, {"observed": held}),
            ("four", now, {}),
        ):
            await here.store.append(decided(name, at, decision="permit", **fields))
    assert desk.json("status")["observed"] == [{"name": "files", "would_be_denied": 2, "would_be_held": 1}]
    said = desk.ok("status").splitlines()
    assert "OBSERVE MODE" in said[0] and "2 calls would have been denied, 1 held" in said[1]
    assert "permitted in observe mode, would have been held for write" in "\n".join(said)
    listed = desk.json("audit", "list", "--observed")
    assert [record["call"] for record in listed] == ["c_long_ago", "c_one", "c_two", "c_three"]


async def test_status_says_since_when_a_gateway_runs_and_what_happened_last(desk: Desk) -> None:
    desk.ok("init")
    async with desk.open() as here:
        for count in range(7):
            await here.store.append(decided(f"n{count}", here.clock(), decision="permit"))
        with the_only_one(here.config), unix_socket.listen(here.config.socket):
            known = desk.json("status")
            said = desk.ok("status")
    gateway = known["gateway"]
    assert gateway["running"] and gateway["answers"] and "http://localhost:8642/mcp" in gateway["where"]
    assert abs(datetime.fromisoformat(gateway["since"]) - utc_now()) < timedelta(minutes=1)
    assert "runs since" in said and [call["call"] for call in known["calls"]] == [f"c_n{n}" for n in range(2, 7)]
    assert desk.json("status")["gateway"]["running"] is False
