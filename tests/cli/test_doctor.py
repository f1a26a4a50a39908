"""`doctor`: each thing that can be wrong is made wrong, and found; what is well is said to be well."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
import typer

from mcp_authz import unix_socket
from mcp_authz.accounts import Accounts, NewPasskey
from mcp_authz.agents import Agents, People
from mcp_authz.cli.main import app
from mcp_authz.config import load_config
from mcp_authz.doctor import servers as servers_module
from mcp_authz.doctor.access import OsUser
from mcp_authz.doctor.agents import check_agents
from mcp_authz.doctor.clients import check_clients
from mcp_authz.doctor.examination import examine
from mcp_authz.doctor.files import check_modes, check_secrets, check_space
from mcp_authz.doctor.finding import Case, Finding
from mcp_authz.doctor.people import check_people, check_rules
from mcp_authz.doctor.policy import check_policy
from mcp_authz.doctor.running import check_gateway, check_notifications
from mcp_authz.doctor.same_user import check_same_user
from mcp_authz.doctor.servers import check_servers
from mcp_authz.doctor.storage import check_store, read_inside
from mcp_authz.installation import utc_now
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Event, Pin
from tests.cli.desk import COMMAND, OPERATOR, ROOT, SOON, Desk, sealed, settle
from tests.ports import free_port
from tests.road.desktop_service import desktop

pytestmark = pytest.mark.thorough

BOOKS = f"""
[servers.books]
command = [{json.dumps(sys.executable)}, "-m", "tests.servers.bookshelf"]
cwd = {json.dumps(str(ROOT))}
"""
CLASSIFIED = f"""{BOOKS}
[servers.books.tools.lend]
hazard = "write"
"""
CRM = """
[servers.crm]
url = "http://localhost:1/mcp"
header_files = { A = "crm.token" }
"""


def case(desk: Desk, *, agent_user: OsUser | None = None, later: timedelta = timedelta()) -> Case:
    config, now = load_config(desk.config), utc_now() + later
    return Case(
        config=config,
        inside=read_inside(config, now),
        at=now,
        command=lambda *words: " ".join(["mcp-authz", *words]),
        agent_user=agent_user,
    )


def told(found: tuple[Finding, ...], state: str) -> str:
    """Everything that is said in this state, and what to do about it."""
    return "\n".join(f"{it.part}: {it.text} -> {it.do}" for it in found if it.state == state)


def is_fine(found: tuple[Finding, ...]) -> bool:
    return bool(found) and {it.state for it in found} == {"fine"}


def alter(desk: Desk, statement: str) -> None:
    """Somebody has written into the store with another program."""
    with closing(sqlite3.connect(desk.store)) as db:
        db.execute(statement)
        db.commit()


def paste(command: str) -> None:
    """The command has run in a shell."""
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - what a person would do


@contextmanager
def gateway(desk: Desk) -> Iterator[None]:
    """A real gateway runs on the desk's installation."""
    where = load_config(desk.config).socket
    process = subprocess.Popen(
        [*COMMAND, "--config", str(desk.config), "serve"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(desk.path("home")), "PYTHONPATH": str(ROOT)},
        cwd=desk.directory,
        start_new_session=True,
    )
    with process:
        try:
            until = time.monotonic() + SOON
            while not unix_socket.answers(where):
                assert process.poll() is None and time.monotonic() < until, "the gateway did not start"
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


async def healthy(desk: Desk, more: str = CLASSIFIED) -> None:
    """An installation with nothing to be said against it, as long as a gateway runs on it."""
    kept = 'audit = {checkpoints = ["file", "stdout"]}'
    desk.configure(f'data_dir = "data"\nnotify = "none"\npublic_url = "http://localhost:{free_port()}"\n{kept}\n{more}')
    desk.config.chmod(0o600)
    async with desk.open() as here:
        people, agents = People(here.store, here.clock), Agents(here.store, here.clock)
        sessions = Sessions(here.store, here.clock)
        await people.add("alice", by=OPERATOR)
        accounts = Accounts(here.store, here.clock)
        token = await accounts.invite((await people.show("alice")).person.name, by=OPERATOR)
        await accounts.register_invited(token, NewPasskey(credential=b"c", public_key=b"k", sign_count=0), "laptop")
        key = PrivateKey.generate()
        await agents.add("coder", owner="alice", key=key.public, ceiling=parse_scopes("books"), by=OPERATOR)
        grant = await sessions.grant("alice", "coder", scope=parse_scopes("books"), by=OPERATOR)
        await sessions.start(grant, purpose="read", by=OPERATOR)
    path = here.config.agent_key("coder")
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    path.write_text(key.to_pem())


async def test_of_a_healthy_installation_everything_is_fine(desk: Desk) -> None:
    await healthy(desk)
    with gateway(desk):
        done = await anyio.to_thread.run_sync(lambda: desk.run("doctor", "--json", "--agent-user", "nobody"))
        assert done.code == 0, done
        assert {it["state"] for it in done.json["findings"]} == {"fine"}, done.out
        assert done.json["state"] == "fine"
        parts = {it["part"] for it in done.json["findings"]}
        assert parts >= {"configuration", "data", "store", "policy", "server books", "agents", "people", "gateway"}
        plain = await anyio.to_thread.run_sync(lambda: desk.run("doctor", "--agent-user", "nobody"))
        assert plain.out.endswith("all is fine\n") and plain.out.isascii() and not plain.err


async def test_looking_changes_nothing_not_even_a_file_beside_the_store(desk: Desk) -> None:
    await healthy(desk)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in desk.directory.rglob("*")}
    done = desk.run("doctor")
    assert done.code == 0 and not done.err
    assert {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in desk.directory.rglob("*")} == before


def test_without_a_configuration_the_next_step_is_init(desk: Desk) -> None:
    done = desk.run("doctor", global_options=())
    assert done.code == 1 and "there is none at" in done.out and "-> mcp-authz init" in done.out


def test_a_configuration_that_cannot_be_used_is_broken_and_nothing_else_is_guessed(desk: Desk) -> None:
    desk.configure("public_ulr = 1")
    done = desk.run("doctor", "--json")
    assert done.code == 1 and [it["part"] for it in done.json["findings"]] == ["configuration"]
    assert "unknown key `public_ulr`" in done.json["findings"][0]["text"]


async def test_only_what_is_worth_knowing_is_no_failure(desk: Desk) -> None:
    desk.configure(f'data_dir = "data"\npublic_url = "http://localhost:{free_port()}"\n')
    desk.ok("init")
    done = desk.run("doctor")
    assert done.code == 0 and "nothing is broken" in done.out and "an agent with a shell that runs as you" in done.out


def test_a_terminal_gets_signs_and_words(desk: Desk) -> None:
    seen = desk.seated("doctor", out="terminal").terminal
    assert "\u2713 fine" in seen and "! note" in seen and "\u2192 mcp-authz" in seen


def test_a_user_that_the_system_does_not_know_is_a_mistake(desk: Desk) -> None:
    assert "no user `nobdy`" in desk.refused("doctor", "--agent-user", "nobdy")


OPEN_FILES: dict[str, tuple[str, int, str]] = {
    "store": ("data/store.db", 0o644, "the store can be read by others"),
    "master key": ("data/master.key", 0o640, "the master key can be read by others"),
    "agent key": ("data/agents/coder.pem", 0o604, "the key of agent coder can be read by others"),
    "secret": ("crm.token", 0o644, "the secret crm.token can be read by others"),
    "configuration": ("gateway.toml", 0o666, "the configuration can be changed by others"),
    "policy": ("own.cedar", 0o620, "the policy own.cedar can be changed by others"),
    "data directory": ("data", 0o755, "others can look into the data directory"),
}


@pytest.mark.parametrize("what", OPEN_FILES)
async def test_a_file_that_is_open_to_others_is_broken_and_the_command_closes_it(desk: Desk, what: str) -> None:
    name, mode, text = OPEN_FILES[what]
    await healthy(desk, f'policy = "own.cedar"\n{CRM}')
    for file in ("own.cedar", "crm.token"):
        desk.path(file).write_text("x")
        desk.path(file).chmod(0o600)
    assert is_fine(await check_modes(case(desk)))
    desk.path(name).chmod(mode)
    (found,) = await check_modes(case(desk))
    assert found.state == "broken" and text in found.text
    paste(found.do)
    assert is_fine(await check_modes(case(desk)))


async def test_a_secret_that_is_missing_or_empty_is_told_once(desk: Desk) -> None:
    desk.configure(f'data_dir = "data"\n{CRM}')
    assert "crm.token is missing" in told(await check_secrets(case(desk)), "broken")
    assert await check_servers(case(desk)) == ()
    desk.path("crm.token").touch(mode=0o600)
    assert "crm.token is empty" in told(await check_secrets(case(desk)), "note")


async def test_a_disk_that_is_nearly_full_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ok("init")
    assert is_fine(await check_space(case(desk)))
    monkeypatch.setattr("mcp_authz.doctor.files.LOW_SPACE", 2**70)
    assert "make room" in told(await check_space(case(desk)), "note")
    monkeypatch.setattr("mcp_authz.doctor.files.NO_SPACE", 2**70)
    assert "calls that cannot be recorded are denied" in told(await check_space(case(desk)), "broken")


async def test_a_damaged_store_is_broken(desk: Desk) -> None:
    await healthy(desk)
    assert is_fine(await check_store(case(desk)))
    raw = bytearray(desk.store.read_bytes())
    raw[8192:40960] = os.urandom(32768)
    desk.store.write_bytes(raw)
    assert "backup" in told(await check_store(case(desk)), "broken")


async def test_a_log_that_was_altered_is_broken(desk: Desk) -> None:
    await healthy(desk)
    alter(desk, "DROP TRIGGER log_is_never_altered")
    alter(desk, "UPDATE log SET body = CAST(replace(CAST(body AS TEXT), 'alice', 'mallo') AS BLOB) WHERE sequence = 2")
    assert "record 2 was altered" in told(await check_store(case(desk)), "broken")


async def test_only_the_end_of_a_long_log_is_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await healthy(desk)
    monkeypatch.setattr("mcp_authz.doctor.storage.VERIFIED", 2)
    found = await check_store(case(desk))
    assert is_fine(found) and "the newest 2 of" in told(found, "fine")


async def test_a_store_of_another_version_or_program_is_told(desk: Desk) -> None:
    await healthy(desk)
    for pragma, state, text in (
        ("PRAGMA user_version = 1", "note", "older version"),
        ("PRAGMA user_version = 99", "broken", "newer version"),
        ("PRAGMA application_id = 7", "broken", "another program"),
    ):
        alter(desk, pragma)
        here = case(desk)
        assert here.inside is None and text in told(await check_store(here), state), pragma


async def test_a_clock_that_was_set_back_is_told(desk: Desk) -> None:
    await healthy(desk)
    assert "the clock was set back" in told(await check_store(case(desk, later=-timedelta(hours=1))), "broken")


async def test_a_missing_master_key_is_told(desk: Desk) -> None:
    await healthy(desk)
    desk.path("data/master.key").unlink()
    assert "is missing" in told(await check_store(case(desk)), "broken")


POLICIES: dict[str, tuple[str, str]] = {
    "does not parse": ("permit (nonsense", "cannot be parsed"),
    "permits everything": ('@id("all") permit (principal, action, resource);', "canary"),
}


@pytest.mark.parametrize("what", POLICIES)
async def test_a_policy_with_which_no_gateway_would_start_is_broken(desk: Desk, what: str) -> None:
    text, said = POLICIES[what]
    assert is_fine(await check_policy(case(desk)))
    desk.path("own.cedar").write_text(text)
    desk.configure('data_dir = "data"\npolicy = "own.cedar"')
    assert said in told(await check_policy(case(desk)), "broken")


async def test_a_server_that_does_not_start_says_why(desk: Desk) -> None:
    desk.configure(
        'data_dir = "data"\n[servers.gone]\ncommand = ["no-such-program"]\n[servers.far]\nurl = "http://localhost:1/mcp"\n'
        '[servers.dies]\ncommand = ["/bin/sh", "-c", "echo out of cheese >&2; exit 3"]\n'
    )
    said = told(await check_servers(case(desk)), "broken")
    assert "server gone: `servers.gone.command`: program `no-such-program` is not installed" in said
    assert "out of cheese" in said and "try it yourself: /bin/sh -c 'echo out of cheese" in said
    assert "server far: its tools cannot be listed" in said


async def test_a_server_that_never_answers_is_given_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.configure(f'data_dir = "data"\n[servers.mute]\ncommand = ["/bin/sleep", "1000"]\n{CLASSIFIED}')
    monkeypatch.setattr(servers_module, "PATIENCE", timedelta(seconds=4))
    found = await check_servers(case(desk))
    assert "no answer within 4 seconds" in told(found, "broken") and "server books" in told(found, "fine")


async def test_what_nobody_classified_is_named_with_the_command_that_reviews_it(desk: Desk) -> None:
    desk.configure(f'data_dir = "data"\n{BOOKS}')
    found = await check_servers(case(desk))
    assert "nobody classified lend: held as destructive -> mcp-authz tools review books" in told(found, "note")


async def test_a_tool_that_changed_since_it_was_accepted_is_named(desk: Desk) -> None:
    await healthy(desk)
    async with desk.open() as here:
        pin = Pin(server="books", tool="lend", digest=bytes(32), definition={"name": "lend"}, seen_at=utc_now())
        await here.store.pin_first([pin], Event(kind="pin", at=utc_now()))
    said = told(await check_servers(case(desk)), "note")
    assert "books__lend is in quarantine" in said and "tools diff books__lend" in said


async def test_a_server_that_is_only_observed_is_a_loud_note(desk: Desk) -> None:
    desk.configure(f'data_dir = "data"\n{BOOKS}mode = "observe"\nobserve_destructive = ["lend"]\n')
    said = told(await check_servers(case(desk)), "note")
    assert "OBSERVE MODE" in said and "except lend" in said and "audit list --observed" in said


async def test_agents_that_cannot_do_anything_are_named(desk: Desk) -> None:
    assert "no agent is registered" not in told(await check_agents(case(desk)), "note")  # nothing is known yet
    await healthy(desk)
    assert is_fine(await check_agents(case(desk)))
    assert "ends on" in told(await check_agents(case(desk, later=timedelta(days=85))), "note")
    assert "ended on" in told(await check_agents(case(desk, later=timedelta(days=95))), "note")
    async with desk.open() as here:
        agents = Agents(here.store, here.clock)
        await agents.add("idle", owner="alice", key=PrivateKey.generate().public, ceiling=frozenset(), by=OPERATOR)
    said = told(await check_agents(case(desk)), "note")
    assert "idle has no grant" in said and "grant add --subject alice --agent idle" in said


async def test_agents_with_old_keys_are_named_where_keys_are_to_be_replaced(desk: Desk) -> None:
    await healthy(desk)
    assert "days old" not in told(await check_agents(case(desk, later=timedelta(days=96))), "note")
    said = told(await check_agents(case(desk, later=timedelta(days=98))), "note")
    assert "the key of coder is 98 days old" in said and "agent rotate coder" in said
    desk.configure(f"{desk.config.read_text()}\n[keys]\nrotate_days = 0\n")
    assert "days old" not in told(await check_agents(case(desk, later=timedelta(days=98))), "note")


async def test_an_agent_that_works_by_a_delegation_needs_no_grant(desk: Desk) -> None:
    async with desk.open() as here:
        await settle(here)
    found = await check_agents(case(desk))
    assert is_fine(found) and "1 open sessions" in told(found, "fine")  # two agents are in it


async def test_key_files_that_are_of_no_use_are_named(desk: Desk) -> None:
    await healthy(desk)
    folder = desk.path("data/agents")
    folder.joinpath("gone.pem").write_text(PrivateKey.generate().to_pem())
    folder.joinpath("coder.pem").write_text(PrivateKey.generate().to_pem())
    found = await check_agents(case(desk))
    assert "gone.pem is the key of no registered agent" in told(found, "note")
    assert "coder.pem is not a key of coder that counts" in told(found, "broken")
    folder.joinpath("coder.pem").write_text("nonsense")
    assert "cannot be read as a key" in told(await check_agents(case(desk)), "broken")


async def test_a_person_who_could_not_prove_an_approval_is_named(desk: Desk) -> None:
    async with desk.open() as here:
        await People(here.store, here.clock).add("me", by=OPERATOR)
        await People(here.store, here.clock).add("eve", by=OPERATOR)
    said = told(await check_people(case(desk)), "note")
    assert "me has no passkey and no approver key" in said and "-> mcp-authz user passkey eve" in said


async def test_an_approver_key_without_a_passphrase_is_broken(desk: Desk) -> None:
    async with desk.open() as here:
        await settle(here)
    desk.path("bob.key").write_text(sealed()[1])
    assert not told(await check_people(case(desk)), "broken")
    desk.path("bob.pem").write_text(sealed()[0].to_pem())
    said = told(await check_people(case(desk)), "broken")
    assert "bob.pem is bob's approver key without a passphrase" in said and "revoke key" in said


RULES: dict[str, tuple[str, str]] = {
    "a group without members": ('by = ["group:ghosts"]', "nobody may answer (group:ghosts)"),
    "more people than there are": ('by = ["subject"]\nquorum = 2', "it takes 2, and alice may answer"),
    "only who is excluded": ("outside_chain = true", "it takes 1, and nobody may answer"),
}


@pytest.mark.parametrize("what", RULES)
async def test_a_rule_that_nobody_could_meet_is_broken(desk: Desk, what: str) -> None:
    rule, said = RULES[what]
    desk.configure('data_dir = "data"\n[approval.destructive]\nby = ["user:bob"]\nassurance = "signed-in"')
    async with desk.open() as here:
        await settle(here)
    assert is_fine(await check_rules(case(desk))), told(await check_rules(case(desk)), "broken")
    desk.configure(f'data_dir = "data"\n[approval.destructive]\n{rule}')
    found = told(await check_rules(case(desk)), "broken")
    assert "nobody can meet rule `destructive`" in found and said in found


PROOFS: dict[str, tuple[str, str]] = {
    "a passkey that nobody has": ('by = ["user:bob"]\nassurance = "passkey"', "bob has no passkey"),
    "a prompt of an agent that has none": ('assurance = "client"', "alice has no passkey or approver key"),
}


@pytest.mark.parametrize("what", PROOFS)
async def test_a_rule_for_which_a_passkey_is_missing_names_who_needs_one(desk: Desk, what: str) -> None:
    rule, said = PROOFS[what]
    desk.configure(f'data_dir = "data"\n[approval.destructive]\n{rule}')
    async with desk.open() as here:
        await settle(here)
    (found,) = await check_rules(case(desk))
    assert found.state == "note" and f"rule `destructive`, `session`: {said}" in found.text
    assert found.do.startswith("mcp-authz user passkey ")


async def test_a_rule_that_can_be_met_for_some_only_is_a_note(desk: Desk) -> None:
    await healthy(desk, '[approval.destructive]\nassurance = "passkey"')
    async with desk.open() as here:
        await People(here.store, here.clock).add("eve", by=OPERATOR)
        await Sessions(here.store, here.clock).grant("eve", "coder", scope=parse_scopes("books"), by=OPERATOR)
    found = await check_rules(case(desk))
    assert "rule `destructive`, `session` for eve: eve has no passkey" in told(found, "note")
    assert "-> mcp-authz user passkey eve" in told(found, "note") and not told(found, "broken")


async def test_a_port_that_another_program_has_is_broken_and_the_program_is_named(desk: Desk) -> None:
    await healthy(desk)
    assert "is free" in told(await check_gateway(case(desk)), "note")
    with socket.create_server(("127.0.0.1", load_config(desk.config).listen_port)):
        said = told(await check_gateway(case(desk)), "broken")
    assert "is taken by" in said
    if sys.platform == "linux":
        assert f"process {os.getpid()}" in said


async def test_where_nobody_can_be_notified_it_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(desk.directory))
    assert "no desktop session" in told(await check_notifications(case(desk)), "note")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={desk.path('nobus')}")
    assert "shows no notifications" in told(await check_notifications(case(desk)), "note")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    desk.configure('data_dir = "data"\nnotify = "none"')
    assert is_fine(await check_notifications(case(desk)))


async def test_a_desktop_that_shows_notifications_is_fine(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="bus") as place:  # the path of a socket has few characters
        async with desktop(Path(place), monkeypatch) as service:
            assert is_fine(await check_notifications(case(desk)))
            assert service.shown == []


async def test_whoever_runs_agents_under_the_same_user_is_told_what_these_can_read(desk: Desk) -> None:
    await healthy(desk)
    (found,) = await check_same_user(case(desk))
    assert found.state == "note"
    for what in ("the configuration", "the store", "the master key", "the key of agent coder"):
        assert what in found.text
    assert "second user" in found.do and "container" in found.do and "another machine" in found.do
    (found,) = await check_same_user(
        case(desk, agent_user=OsUser(name="me", uid=os.geteuid(), gids=frozenset({os.getegid()})))
    )
    assert found.state == "broken" and "is who runs the gateway" in found.text


async def test_no_wrapped_client_is_nothing_to_say(desk: Desk) -> None:
    assert await check_clients(case(desk)) == ()


async def test_checks_run_at_once_within_a_bound_and_a_slow_one_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(_: Case) -> tuple[Finding, ...]:
        await anyio.sleep(1000)
        return ()

    heard: list[list[str]] = []
    monkeypatch.setattr("mcp_authz.doctor.examination.check_servers", slow)
    monkeypatch.setattr("mcp_authz.doctor.examination.PATIENCE", timedelta(seconds=4))
    found = await examine(case(desk), heard.append)
    assert "servers: this took more than 4 seconds" in told(found, "note") and "policy" in told(found, "fine")
    assert len(heard[0]) > 8 and heard[-1] == ["servers"]


async def test_every_command_that_is_named_is_one(desk: Desk) -> None:
    await healthy(desk, BOOKS)
    async with desk.open() as here:
        people = People(here.store, here.clock)
        await people.add("eve", by=OPERATOR)
        await people.add("bob", by=OPERATOR)
        await people.add_key("bob", sealed()[0].public, by=OPERATOR)
        pin = Pin(server="books", tool="lend", digest=bytes(32), definition={"name": "lend"}, seen_at=utc_now())
        await here.store.pin_first([pin], Event(kind="pin", at=utc_now()))
    desk.path("bob.pem").write_text(sealed()[0].to_pem())
    desk.path("data/agents/coder.pem").write_text("nonsense")
    named = {
        tuple(words[1:])
        for finding in await examine(case(desk, later=timedelta(days=85)), lambda names: None)
        if (words := finding.do.partition(";")[0].split())[:1] == ["mcp-authz"]
    }
    assert len(named) >= 6
    root = typer.main.get_command(app)
    for command, *more in named:
        _, found, _ = root.resolve_command(typer.Context(root), [command])  # type: ignore[attr-defined]
        assert not hasattr(found, "commands") or more[0] in found.commands, (command, more)
