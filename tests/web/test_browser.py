"""The page as people use it: a real browser, a passkey, a call that a real gateway holds."""

from __future__ import annotations

from pathlib import Path

from tests.web.browser import browsers, link, person
from tests.world import world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}
SCOPE = "deploy:production"


async def test_a_person_comes_by_their_link_and_approves_a_held_call_that_then_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        coder = await w.ready("coder", SCOPE)
        alice = await person(browser, "alice")

        await alice.page.goto(await link(w, "alice"))
        await alice.heading("Welcome, alice")
        await alice.page.get_by_role("button", name="Make a passkey").click()
        await alice.heading("Nothing waits.")

        await alice.page.get_by_role("button", name="Sign out").click()
        await alice.heading("Sign in")
        await alice.page.get_by_role("button", name="Sign in with a passkey").click()
        await alice.heading("Nothing waits.")

        held = await w.call(coder, "acme__deploy", **DEPLOY)
        assert held.is_held
        await alice.heading("1 call waits for you")
        assert await alice.page.title() == "(1) Held calls · mcp-authz"

        await alice.page.get_by_role("link", name="coder asks to run acme__deploy").click()
        await alice.page.get_by_role("button", name="Approve with passkey").click()
        await alice.page.get_by_text("Approved. It runs once").first.wait_for()
        assert not w.deployments()

        assert not (await w.call(coder, "acme__deploy", **DEPLOY)).is_held
        assert len(w.deployments()) == 1
        await alice.page.get_by_text("Approved, and done.").first.wait_for()
