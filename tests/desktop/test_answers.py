"""A held call on a desktop, answered where its person is: on the page, with a passkey."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from mcp_authz.cli.invocation import login_name
from tests.cli.desk import PASSPHRASE, Desk
from tests.desktop.console import Home
from tests.desktop.test_a_day import FILE, READ, WRITE, desktop, sent_to
from tests.web.browser import browsers, person

LINK = re.compile(r"http://localhost:8642(/welcome/\S+)")


async def runs(home: Home, command: str, *, fine: bool = True) -> str:
    """The command's output; the browser goes on meanwhile."""
    return await anyio.to_thread.run_sync(partial(home.run, command, fine=fine))


def invited(home: Home) -> str:
    """The one-time link that `wrap` printed, as this home's gateway has it."""
    found = LINK.search(home.said)
    assert found is not None, home.said
    return f"http://localhost:{home.port}{found[1]}"


async def test_a_person_comes_by_the_link_that_wrap_printed_and_approves_on_the_page(tmp_path: Path) -> None:
    with desktop(tmp_path) as home:
        async with browsers() as browser:
            page, done = sent_to(await runs(home, WRITE))

            alice = await person(browser, "alice")
            await alice.page.goto(invited(home))
            await alice.page.get_by_role("button", name="Make a passkey").click()
            await alice.heading("1 call waits for you")
            await alice.page.goto(f"http://localhost:{home.port}{page}")
            await alice.heading("claude-desktop asks to run files__write_file")
            assert (home.path / "notes" / "todo.txt").read_text() == "buy milk\n"
            await alice.page.get_by_role("button", name="Approve with passkey").click()
            await alice.page.get_by_text("Approved, and done.").first.wait_for()  # the call had waited

            assert "Successfully wrote" in await runs(home, done)
            assert (home.path / "notes" / "todo.txt").read_text() == "nothing"


async def test_a_link_that_was_used_or_is_too_old_says_how_to_get_another(tmp_path: Path) -> None:
    with desktop(tmp_path) as home:
        async with browsers() as browser:
            await runs(home, READ)
            alice, other = await person(browser, "alice"), await person(browser, "other")
            await alice.page.goto(invited(home))
            await alice.page.get_by_role("button", name="Make a passkey").click()
            await alice.heading("Nothing waits.")
            await other.page.goto(invited(home))
            await other.heading("This link leads nowhere")
            await other.page.get_by_text("mcp-authz user passkey NAME").wait_for()


@dataclass(frozen=True)
class Seat(Desk):
    """A terminal in somebody's home."""

    @property
    def config(self) -> Path:
        return Path(self.env["HOME"]) / ".config" / "mcp-authz" / "gateway.toml"


def test_a_person_approves_in_a_terminal_with_the_passphrase_of_their_key(tmp_path: Path) -> None:
    with desktop(tmp_path) as home:
        seat, key = Seat(tmp_path, env=home.environment), str(tmp_path / "me.key")
        new = (("passphrase for the key", PASSPHRASE), ("the same again", PASSPHRASE))
        assert seat.seated("user", "key", login_name(), key, types=new).code == 0
        page, respond = sent_to(home.run(WRITE))
        words = ("holds", "approve", page.split("/")[2], "--as", login_name(), "--key", key)
        done = seat.seated(*words, types=(("passphrase", PASSPHRASE),))
        assert done.code == 0 and "claude-desktop asks to run files__write_file" in done.out, done
        assert "Successfully wrote" in home.run(respond)


def test_the_inspector_lists_and_calls_what_was_wrapped(tmp_path: Path) -> None:
    with desktop(tmp_path, waiting=1) as home:
        inspect = f"mcp-inspector --cli --config {FILE} --server mcp-authz --method"
        assert "files__write_file" in home.run(f"{inspect} tools/list")
        read = f"{inspect} tools/call --tool-name files__read_text_file --tool-arg path=todo.txt"
        assert "buy milk" in home.run(read)
        write = read.replace("read_text_file", "write_file") + " --tool-arg content=nothing"
        assert "Held, not executed" in home.run(write, fine=False)
        home.run(f"mcp-authz wrap {FILE} --undo")
        assert '"files"' in (home.path / FILE).read_text()
