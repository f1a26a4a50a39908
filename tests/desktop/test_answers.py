"""A held call on a desktop, answered where its person is: on the page, with a passkey."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import anyio

from tests.desktop.console import Home
from tests.desktop.test_a_day import READ, WRITE, desktop
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
            held = await runs(home, WRITE, fine=False)
            hold = re.search(r"http://localhost:8642(/holds/h_\w+)", held)
            assert hold is not None, held

            alice = await person(browser, "alice")
            await alice.page.goto(invited(home))
            await alice.page.get_by_role("button", name="Make a passkey").click()
            await alice.heading("1 call waits for you")
            await alice.page.goto(f"http://localhost:{home.port}{hold[1]}")
            await alice.heading("claude-desktop asks to run files__write_file")
            await alice.page.get_by_role("button", name="Approve with passkey").click()
            await alice.page.get_by_text("Approved. It runs once").first.wait_for()
            assert (home.path / "notes" / "todo.txt").read_text() == "buy milk\n"

            assert "Successfully wrote" in await runs(home, WRITE)
            await alice.page.get_by_text("Approved, and done.").first.wait_for()
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
