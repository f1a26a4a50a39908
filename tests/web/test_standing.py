"""Approving calls like the one on the page: read in a sentence, signed by the passkey, used, and ended."""

from __future__ import annotations

from pathlib import Path

from mcp_authz.model import Assurance
from tests.web.browser import browsers, signed_in
from tests.world import world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1"}


async def test_a_person_reads_what_they_also_approve_signs_it_and_ends_it(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"destructive": {"assurance": "passkey"}}) as w, browsers() as browser:
        coder = await w.ready("coder", "deploy")
        held = await w.call(coder, "acme__deploy", **DEPLOY)
        alice = await signed_in(browser, w, "alice", viewport={"width": 390, "height": 800}, color_scheme="dark")
        page = alice.page
        await page.get_by_role("link", name="coder asks to run").click()
        await page.get_by_text("Also approve calls like this").click()
        await page.get_by_label("How many more").fill("2")
        await page.get_by_label("What version may be").select_option("any value")
        await page.get_by_label("What environment may be").select_option("one of a list")
        await page.get_by_label("Values of environment").fill("staging\ntest")
        permits = page.locator("[data-says]")
        await page.locator("[data-says]", has_text='or "test", version any').wait_for()
        text = await permits.inner_text()
        assert text.startswith("the next 2 calls of acme__deploy by coder in this session")
        assert 'environment one of "staging" or "test", version any, until ' in text
        await page.screenshot(path=tmp_path / "alike.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.get_by_role("button", name="Approve this and the next 2").click()
        await page.locator("[data-live=state]", has_text="It runs once").wait_for()

        (standing,) = await w.store.standing_approvals()
        assert standing.assurance is Assurance.PASSKEY and standing.passkey is not None
        assert not (await w.call(coder, "acme__deploy", **DEPLOY)).is_error
        assert not (await w.call(coder, "acme__deploy", **{**DEPLOY, "version": "2"})).is_error
        assert len(w.deployments()) == 2
        await page.goto(f"{w.config.public_url}/holds")
        await page.get_by_text("1 of 2 left").wait_for()
        await page.screenshot(path=tmp_path / "ahead.png", full_page=True)
        await page.get_by_role("button", name="End").click()
        await page.get_by_text("1 of 2 left").wait_for(state="detached")
        assert (await w.call(coder, "acme__deploy", **{**DEPLOY, "version": "3"})).is_held
        assert held.hold and len(w.deployments()) == 2
