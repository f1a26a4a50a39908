"""Row 55: an agent with a shell. As the same user it approves nothing; as another user it reads and changes nothing."""

from __future__ import annotations

import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import ParamSpec

import pytest

from mcp_authz import unix_socket
from mcp_authz.config import load_config
from mcp_authz.doctor.access import OsUser, may_change, may_connect, may_read
from mcp_authz.doctor.belongings import belongings
from mcp_authz.model import HoldState
from tests.cli.desk import PASSPHRASE, Desk, held_call, hold, sealed, settle

P = ParamSpec("P")

AGENT = OsUser(name="an agent", uid=60_001, gids=frozenset({60_002, 60_003}))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

CONFIG = """
data_dir = "data"
policy = "own.cedar"
[servers.crm]
url = "https://crm.example.com/mcp"
header_files = { Authorization = "crm.token" }
"""


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A desk in a place that other users can reach, as a home directory often is."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Desk(directory=Path(directory))


def set_up(desk: Desk) -> None:
    """Everything that an agent could want is there, as this program makes it."""
    desk.configure(CONFIG)
    desk.path("own.cedar").write_text((Path(__file__).parent.parent.parent / "policies/deny_all.cedar").read_text())
    desk.path("crm.token").touch(mode=0o600)
    desk.path("crm.token").write_text("secret")
    desk.ok("init")
    desk.ok("agent", "add", "coder", "--owner", _me(desk), "--new-key", desk.path("coder.pem"), "--ceiling", "crm")
    desk.path("data/agents").mkdir(mode=0o700)
    desk.path("coder.pem").rename(desk.path("data/agents/coder.pem"))


def _me(desk: Desk) -> str:
    name: str = desk.json("user", "list")[0]["name"]
    return name


def as_agent(question: Callable[P, bool], *args: P.args, **kwargs: P.kwargs) -> bool:
    """What another user of the system finds: a child becomes that user for good, and asks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a child of several threads: it only opens files
        child = os.fork()
    if child == 0:
        answer = 2
        try:
            os.setgroups(sorted(AGENT.gids))
            os.setgid(min(AGENT.gids))
            os.setuid(AGENT.uid)
            answer = int(question(*args, **kwargs))
        finally:
            os._exit(answer)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, 1}, "the child could not ask"
    return bool(code)


def opens(path: Path, flags: int) -> bool:
    try:
        os.close(os.open(path, flags))
    except OSError:
        return False
    return True


def could_open(path: Path, flags: int) -> bool:
    """As `opens`; who owns a file first gives themselves what its mode does not give."""
    with suppress(OSError):
        path.chmod(0o600)
    return opens(path, flags)


def could_change(path: Path) -> bool:
    return replaces(path) or could_open(path, os.O_WRONLY)


def replaces(path: Path) -> bool:
    """Whether something else can be put in the place of what lies there; it is put back."""
    aside = path.with_name(f"{path.name}.aside")
    try:
        path.rename(aside)
    except OSError:
        return False
    aside.rename(path)
    return True


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


# As the same user: what is promised is that a person is proved, and that doctor tells the rest.


async def test_the_approvers_key_without_a_passphrase_approves_nothing(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        held = await hold(here, held_call(await settle(here)))
    desk.path("bob.pem").write_text(sealed()[0].to_pem())
    for done in (
        desk.run("holds", "approve", held.id, "--as", "bob", "--key", desk.path("bob.pem")),
        desk.seated("holds", "approve", held.id, "--as", "bob", "--key", desk.path("bob.pem")),
    ):
        assert done.code == 1 and "not protected by a passphrase" in done.sentence
    async with desk.open() as here:
        after = await here.store.hold(held.id)
        assert after is not None and after.state is HoldState.PENDING


async def test_a_passphrase_that_a_program_writes_approves_nothing(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        held = await hold(here, held_call(await settle(here)))
    desk.path("bob.key").write_text(sealed()[1])
    words = ("holds", "approve", held.id, "--as", "bob", "--key", desk.path("bob.key"))
    done = desk.run(*words, stdin=f"{PASSPHRASE}\n" * 3)
    assert done.code == 1 and "at a terminal only" in done.sentence
    assert desk.json("holds", "show", held.id)["state"] == "pending"


def test_doctor_tells_what_an_agent_of_the_same_user_can_read_and_how_to_separate(desk: Desk) -> None:
    set_up(desk)
    (found,) = [it for it in desk.run("doctor", "--json").json["findings"] if it["part"] == "same user"]
    for what in ("the configuration", "the store", "the master key", "the key of agent coder", "the secret crm.token"):
        assert what in found["text"], what
    for way in ("second user", "container", "another machine"):
        assert way in found["do"], way


# As another user of the system.


@needs_root
def test_an_agent_under_another_user_can_read_none_of_it_and_change_nothing(desk: Desk) -> None:
    set_up(desk)
    config = load_config(desk.config)
    there = belongings(config)
    assert {it.path.name for it in there if it.secret} == {"store.db", "master.key", "coder.pem", "crm.token"}
    for it in there:
        assert not as_agent(opens, it.path, os.O_WRONLY), it.what
        assert not as_agent(replaces, it.path), it.what
        assert not it.secret or not as_agent(opens, it.path, os.O_RDONLY), it.what
    with unix_socket.listen(config.socket):
        assert not as_agent(connects, config.socket)
        assert connects(config.socket)
    done = desk.run("doctor", "--json", "--agent-user", "nobody")
    assert [it["state"] for it in done.json["findings"] if it["part"] == "same user"] == ["fine"]


@needs_root
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crm.token", "can read the secret crm.token"),
        ("own.cedar", "can change the policy own.cedar"),
        ("gateway.toml", "can change the configuration"),
    ],
)
def test_doctor_finds_what_was_left_open_for_the_agents_user(desk: Desk, name: str, said: str) -> None:
    set_up(desk)
    desk.path(name).chmod(0o666)
    assert as_agent(opens, desk.path(name), os.O_RDWR)
    done = desk.run("doctor", "--json", "--agent-user", "nobody")
    broken = [it["text"] for it in done.json["findings"] if it["part"] == "same user" and it["state"] == "broken"]
    assert done.code == 1 and any(said in text for text in broken), broken


@needs_root
def test_doctor_finds_a_directory_in_which_the_agents_user_could_put_another_configuration(desk: Desk) -> None:
    set_up(desk)
    desk.directory.chmod(0o777)
    assert as_agent(replaces, desk.config)
    done = desk.run("doctor", "--json", "--agent-user", "nobody")
    assert any("can change the configuration" in it["text"] for it in done.json["findings"])


# Owners and modes say what really is so.

OWNERS = {"agent": AGENT.uid, "root": 0}
GROUPS = {"one of its groups": 60_003, "another group": 60_009}


@contextmanager
def laid(directory: Path, folder_mode: int, mode: int, owner: int, group: int) -> Iterator[Path]:
    folder = directory / "folder"
    folder.mkdir()
    path = folder / "file"
    path.write_text("x")
    os.chown(path, owner, group)
    path.chmod(mode)
    os.chown(folder, 0, group)
    folder.chmod(folder_mode)
    yield path
    path.unlink()
    folder.rmdir()


@needs_root
def test_what_is_said_of_another_user_is_what_the_system_lets_them_do(desk: Desk) -> None:
    folders, modes = (0o700, 0o711, 0o750, 0o770, 0o777, 0o1777), (0o600, 0o640, 0o604, 0o660, 0o666, 0o000)
    for folder, mode, (who, owner), (which, group) in product(folders, modes, OWNERS.items(), GROUPS.items()):
        of = f"{folder:o} {mode:o} of {who} and {which}"
        with laid(desk.directory, folder, mode, owner, group) as path:
            assert may_read(AGENT, path) == as_agent(could_open, path, os.O_RDONLY), of
            assert may_change(AGENT, path) == as_agent(could_change, path), of


@needs_root
def test_what_is_said_of_a_socket_is_what_the_system_lets_them_do(desk: Desk) -> None:
    path = desk.path("folder/sock")
    with unix_socket.listen(path):
        for folder, mode in product((0o700, 0o711, 0o755), (0o600, 0o666)):
            path.parent.chmod(folder)
            path.chmod(mode)
            assert may_connect(AGENT, path) == as_agent(connects, path), (oct(folder), oct(mode))
