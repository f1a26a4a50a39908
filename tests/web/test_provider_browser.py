"""The whole road in a real browser: to the provider, back, an approval, and out again; and how its pages look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.accounts import Accounts
from mcp_authz.model import HoldState
from mcp_authz.principals import PersonName
from tests.web.browser import browsers, link, person, signed_in
from tests.web.elsewhere import house
from tests.web.test_looks import CONTRAST, overflow
from tests.world import OPERATOR, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}


async def test_a_person_signs_in_at_their_company_approves_and_signs_out_everywhere(tmp_path: Path) -> None:
    async with house(tmp_path) as (w, _), browsers() as browser:
        await w.person("alice-of-somewhere-else")
        alice = await person(browser, "alice")
        await alice.page.goto(f"{w.config.public_url}/holds")
        await alice.heading("Sign in")
        await alice.page.get_by_role("button", name="Sign in with Example Company").click()
        await alice.page.get_by_label("Name").fill("1001")
        await alice.page.get_by_role("button", name="Sign in").click()
        await alice.page.wait_for_url("**/holds")
        await alice.heading("Nothing waits.")
        await alice.page.get_by_text("Signed in as alice").wait_for()

        call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
        await alice.page.get_by_role("link", name="coder asks to run acme__deploy").click()
        await alice.page.get_by_role("button", name="Approve", exact=True).click()
        await alice.page.get_by_text("Approved. It runs once").first.wait_for()
        assert (await w.store.hold(call.hold)).state is HoldState.APPROVED

        other = await alice.context.new_page()
        await other.goto(f"{w.config.public_url}/holds")
        await other.get_by_role("heading", name="Nothing waits.").wait_for()
        await alice.page.get_by_role("link", name="Passkeys").click()
        await alice.page.wait_for_url("**/passkeys")  # its script has been read by then, and hears the button
        await alice.page.get_by_role("button", name="Sign out everywhere").click()
        await alice.heading("Sign in")
        await other.get_by_text("You are signed out.").wait_for()


async def test_a_link_that_is_too_old_and_a_passkey_that_was_lost_lead_on(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, browsers() as browser:
        await w.person("alice")
        alice = await signed_in(browser, w, "alice")
        await alice.another_authenticator()
        await alice.page.get_by_role("button", name="Sign out").click()
        await alice.heading("Sign in")
        await alice.page.get_by_text("No passkey, or lost it?").click()
        await alice.page.get_by_text("mcp-authz user passkey NAME --replace").wait_for()

        await Accounts(w.store, w.clock).revoke_passkeys(PersonName("alice"), by=OPERATOR)
        old = await link(w, "alice")
        w.clock.advance(limits.INVITATION)
        await alice.page.goto(old)
        await alice.heading("This link leads nowhere")
        await alice.page.get_by_text("The time of this link is up").wait_for()
        await alice.page.goto(await link(w, "alice"))
        await alice.page.get_by_role("button", name="Make a passkey").click()
        await alice.page.get_by_text("The passkeys of alice were replaced").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_pages_of_signing_in_fit_a_small_screen_and_can_be_read(tmp_path: Path, scheme: str) -> None:
    async with house(tmp_path, servers={}) as (w, _), browsers() as browser:
        small: Any = {"viewport": {"width": 360, "height": 640}, "color_scheme": scheme, "reduced_motion": "reduce"}
        alice = await person(browser, "alice", **small)

        async def look(heading: str) -> None:
            await alice.heading(heading)
            assert await overflow(alice.page) == 0, heading
            assert await alice.page.evaluate(CONTRAST) == [], heading

        await alice.page.goto(f"{w.config.public_url}/passkeys")
        await look("Sign in")
        await alice.page.get_by_text("No passkey, or lost it?").click()
        await look("Sign in")
        await alice.page.get_by_role("button", name="Sign in with Example Company").click()
        await alice.page.get_by_label("Name").fill("1001")
        await alice.page.get_by_role("button", name="Sign in").click()
        await look("Your passkeys")
