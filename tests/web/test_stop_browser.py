"""An administrator stops things in a real browser: what runs is cancelled, and calls go on when they are let go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from tests.attacks.attacker import answer_in
from tests.attacks.test_34_revoked_while_held import SCOPE
from tests.attacks.test_34_revoked_while_running import permitted, plain
from tests.web.browser import Person, browsers, signed_in
from tests.web.test_browser import troubles
from tests.world import ENVELOPE, World, world

WAIT = {"tag": "x", "version": "1"}
SOON = 15


async def cancelled(told: list[Any]) -> str:
    """Why the one call that ran has ended."""
    with anyio.fail_after(SOON):
        while not told:  # noqa: ASYNC110 - the client has no event for this
            await anyio.sleep(0.01)
    return str(told.pop()["error"]["data"]["reason"])


async def why(ada: Person, reason: str, press: str) -> None:
    """Ada says why, and presses."""
    await ada.page.get_by_label("Why").fill(reason)
    await ada.page.get_by_role("button", name=press).click()


async def reads(w: World, token: str) -> str:
    """How a call of another tool ends."""
    result = answer_in(await w.raw_call(token, "plain__cancelled", {}))["result"]
    return str((result.get("_meta") or {}).get(ENVELOPE, {}).get("reason") or "done")


async def test_what_runs_is_cancelled_by_the_buttons_of_the_pages(tmp_path: Path) -> None:
    told: list[Any] = []

    async def call() -> None:
        told.append(answer_in(await w.raw_call(token, "plain__wait", WAIT)))

    roles = {"admins": ["user:ada"]}
    async with (
        world(tmp_path, servers={"plain": plain("read")}, administration=roles) as w,
        browsers() as browser,
        anyio.create_task_group() as group,
    ):
        coder = await w.ready("coder", SCOPE)
        token = await w.token(coder)
        await w.person("ada")
        ada = await signed_in(browser, w, "ada")
        complaints = troubles(ada)

        group.start_soon(call)
        await permitted(w, 1)
        await ada.page.get_by_role("link", name="Sessions").click()
        await ada.page.get_by_role("link", name="Stop all calls").click()
        await ada.heading("Stop all calls?")
        await ada.page.get_by_text("1 call runs now: coder's plain__wait").wait_for()
        await why(ada, "nobody knows yet", "Stop all calls")
        assert await cancelled(told) == "revoked"
        await ada.page.get_by_text("All calls are stopped").wait_for()
        assert await reads(w, token) == "stopped"

        await ada.page.get_by_role("link", name="Forward calls again").click()
        await ada.heading("Forward calls again?")
        await ada.page.get_by_role("button", name="Forward calls again").click()
        await ada.page.get_by_role("link", name="Stop all calls").wait_for()
        assert await reads(w, token) == "done"

        group.start_soon(call)
        await permitted(w, 3)
        await ada.page.get_by_role("link", name="Tools").click()
        await ada.page.get_by_role("link", name="plain__wait").click()
        await ada.tab_to("Switch off this tool")
        await ada.press("Enter")
        await ada.heading("Switch off the tool plain__wait?")
        await ada.page.get_by_text("1 running call: coder's plain__wait").wait_for()
        await why(ada, "it hangs", "Switch it off")
        assert await cancelled(told) == "revoked"
        await ada.page.get_by_text("by ada: it hangs").wait_for()
        assert await reads(w, token) == "done", "other tools go on"

        await ada.page.get_by_role("link", name="People").click()
        await ada.page.get_by_role("link", name="alice").click()
        await ada.page.get_by_role("link", name="End all that they have until now").click()
        await why(ada, "left us", "End all of it")
        await ada.heading("alice")
        await ada.page.get_by_role("listitem").filter(has_text="None.").first.wait_for()
        assert (await w.raw_call(token, "plain__cancelled", {})).status_code == 401
        assert not complaints
