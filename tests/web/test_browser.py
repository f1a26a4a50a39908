"""The page as people use it: a real browser, a passkey, calls that a real gateway holds, news without a reload."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Route

from mcp_authz.accounts import Accounts
from mcp_authz.model import Assurance, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.revocation import Revocation
from mcp_authz.rules import session_request
from tests.web.authenticator import visiting
from tests.web.browser import Person, browsers, link, person, signed_in
from tests.world import OPERATOR, Called, World, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}
SCOPE = "deploy:production pr:merge:acme:api"
STAYED = "document.body.dataset.stayed"


async def held(w: World) -> Called:
    """A call of alice's agent that waits."""
    return await w.call(await w.ready("coder", SCOPE), "acme__deploy", **DEPLOY)


def hold_url(w: World, call: Called) -> str:
    return f"{w.config.public_url}/holds/{call.hold}"


def troubles(them: Person) -> list[str]:
    """What the browser complains about from now on: errors, refused scripts and styles."""
    found: list[str] = []
    them.page.on("console", lambda said: found.append(said.text) if said.type in {"error", "warning"} else None)
    them.page.on("pageerror", lambda error: found.append(str(error)))
    return found


async def test_a_person_comes_by_their_link_and_approves_a_held_call_that_then_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        coder = await w.ready("coder", SCOPE)
        alice = await person(browser, "alice")
        complaints = troubles(alice)

        await alice.page.goto(await link(w, "alice"))
        await alice.heading("Welcome, alice")
        await alice.page.get_by_role("button", name="Make a passkey").click()
        await alice.heading("Nothing waits.")
        assert (await alice.credentials())[0]["isResidentCredential"] and not complaints

        await alice.page.get_by_role("button", name="Sign out").click()
        await alice.heading("Sign in")
        await alice.page.get_by_role("button", name="Sign in with a passkey").click()
        await alice.heading("Nothing waits.")
        complaints.clear()  # a page that asks for a sign-in is answered 401, and the browser says so

        await alice.page.evaluate(f"{STAYED} = 'yes'")
        call = await w.call(coder, "acme__deploy", **DEPLOY)
        assert call.is_held
        await alice.heading("1 call waits for you")
        assert await alice.page.evaluate(STAYED) == "yes", "it was not loaded again"
        assert await alice.page.title() == "(1) Held calls · mcp-authz"
        assert await alice.page.locator("#said").text_content() == "1 call waits for you."

        await alice.page.get_by_role("link", name="coder asks to run acme__deploy").click()
        await alice.heading("coder asks to run acme__deploy")
        await alice.page.get_by_role("button", name="Approve with passkey").click()
        await alice.page.get_by_text("Approved. It runs once").first.wait_for()
        assert not w.deployments()

        assert not (await w.call(coder, "acme__deploy", **DEPLOY)).is_held
        assert len(w.deployments()) == 1
        await alice.page.get_by_text("Approved, and done.").first.wait_for()
        (verdict,) = (await w.store.hold(call.hold)).verdicts
        assert verdict.assurance is Assurance.PASSKEY and not complaints


async def test_a_call_that_is_denied_with_a_reason_does_not_run(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        coder = await w.ready("coder", SCOPE)
        call = await w.call(coder, "acme__deploy", **DEPLOY)
        alice = await signed_in(browser, w, "alice")
        await alice.page.goto(hold_url(w, call))
        await alice.page.get_by_label("Reason").fill("not on a Friday")
        await alice.page.get_by_role("button", name="Deny").click()
        await alice.page.get_by_text("Denied. It does not run.").first.wait_for()
        await alice.page.get_by_text("not on a Friday").wait_for()
        again = await w.call(coder, "acme__deploy", **DEPLOY)
        assert again.envelope["reason"] == "approval_denied" and not w.deployments()


async def test_a_rule_that_asks_for_a_reason_is_said_before_the_passkey_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"destructive": {"reason": True}}) as w, browsers() as browser:
        call = await held(w)
        alice = await signed_in(browser, w, "alice")
        await alice.page.goto(hold_url(w, call))
        await alice.page.get_by_role("button", name="Approve with passkey").click()
        await alice.page.get_by_role("alert").get_by_text("write a reason").wait_for()
        assert await alice.page.evaluate("document.activeElement.id") == "reason"
        await alice.page.keyboard.type("agreed in the morning")
        await alice.page.get_by_role("button", name="Approve with passkey").click()
        await alice.page.get_by_text("Approved. It runs once").first.wait_for()


async def test_whoever_is_not_recognised_by_their_authenticator_approves_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        call = await held(w)
        alice = await signed_in(browser, w, "alice")
        await alice.page.goto(hold_url(w, call))
        await alice.verifies(False)
        await alice.page.get_by_role("button", name="Approve with passkey").click()
        await alice.page.get_by_role("alert").get_by_text("No passkey was shown").wait_for()
        assert (await w.store.hold(call.hold)).state is HoldState.PENDING
        await alice.verifies(True)
        await alice.page.get_by_role("button", name="Approve with passkey").click()
        await alice.page.get_by_text("Approved. It runs once").first.wait_for()


async def test_somebody_else_who_has_the_link_sees_that_it_is_not_theirs(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        call = await held(w)
        await w.person("bob")
        bob = await signed_in(browser, w, "bob")
        await bob.page.goto(hold_url(w, call))
        await bob.heading("Not yours, or not there")
        assert "acme" not in await bob.page.content()


async def test_what_others_do_appears_by_itself_and_what_was_typed_stays(tmp_path: Path) -> None:
    rule = {"by": ["group:ops"], "quorum": 2}
    async with world(tmp_path, approval={"destructive": rule}) as w, browsers() as browser:
        for name in ("bob", "carol", "dan"):
            await w.person(name, "ops")
        call = await held(w)
        bob = await signed_in(browser, w, "bob")
        await bob.page.goto(hold_url(w, call))
        await bob.page.get_by_label("Reason").fill("half a sen")
        await bob.page.evaluate(f"{STAYED} = 'yes'")

        async with visiting(w, "carol") as carol, visiting(w, "dan") as dan:
            await carol.approve(call.hold, "fine by me")
            await bob.page.get_by_text("1 of 2").wait_for()
            await bob.page.get_by_text("fine by me").wait_for()
            assert await bob.page.get_by_label("Reason").input_value() == "half a sen"
            assert await bob.page.evaluate("document.activeElement.id") == "reason"

            await dan.approve(call.hold)
            await bob.page.get_by_text("Approved. It runs once").first.wait_for()
            await bob.page.get_by_label("Reason").wait_for(state="detached")
        assert await bob.page.evaluate(STAYED) == "yes"
        assert "Approved." in (await bob.page.locator("#said").text_content() or "")


async def test_a_call_whose_time_runs_out_says_so_by_itself(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"destructive": {"expires_minutes": 5}}) as w, browsers() as browser:
        call = await held(w)
        alice = await signed_in(browser, w, "alice")
        await alice.page.clock.install()
        await alice.page.goto(hold_url(w, call))
        before = await seconds_left(alice)
        assert before <= 300
        await alice.page.clock.run_for(60_000)
        assert 55 <= before - await seconds_left(alice) < 200

        left = (await w.store.hold(call.hold)).expires_at - w.clock()
        w.clock.advance(left)
        await alice.page.clock.run_for(int(left.total_seconds() * 1000))
        await alice.page.get_by_text("Too late.").first.wait_for()
        await alice.page.get_by_role("button", name="Deny").wait_for(state="detached")


async def seconds_left(them: Person) -> int:
    """What the page counts down."""
    minutes, seconds = (await them.page.locator(".left").text_content() or "").split(":")
    return int(minutes) * 60 + int(seconds)


async def test_signing_out_in_one_tab_is_noticed_in_the_other(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        alice = await signed_in(browser, w, "alice")
        other = await alice.context.new_page()
        await other.goto(f"{w.config.public_url}/holds")
        await other.get_by_role("heading", name="Nothing waits.").wait_for()
        await other.get_by_role("button", name="Sign out").click()
        await alice.page.get_by_role("alert").get_by_text("You are signed out.").wait_for()


async def test_a_person_who_is_revoked_is_shown_out(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        alice = await signed_in(browser, w, "alice")
        await alice.heading("Nothing waits.")
        await Revocation(w.store, w.clock).revoke("person", "alice", reason="left", by=OPERATOR)
        await alice.page.get_by_role("alert").get_by_text("You are signed out.").wait_for()


async def test_a_second_passkey_is_made_on_the_page_and_replaced_ones_are_told_of(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        alice = await signed_in(browser, w, "alice")
        await alice.page.goto(f"{w.config.public_url}/passkeys")
        await alice.page.get_by_role("button", name="Add another passkey").click()
        await alice.page.get_by_role("alert").get_by_text("has a passkey for you already").wait_for()

        async def swap(route: Route) -> None:
            await alice.another_authenticator()  # the one she has was shown, and the new one is at hand
            await route.continue_()

        await alice.page.route("**/passkeys/question", swap)
        await alice.page.get_by_role("button", name="Add another passkey").click()
        await alice.page.locator(".card").nth(1).wait_for()

        await Accounts(w.store, w.clock).revoke_passkeys(PersonName("alice"), by=OPERATOR)
        again = await signed_in(browser, w, "alice")
        for path in ("/holds", "/passkeys"):
            await again.page.goto(f"{w.config.public_url}{path}")
            await again.page.get_by_text("The passkeys of alice were replaced").wait_for()


async def test_a_request_for_a_session_is_narrowed_before_it_is_approved(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="pr deploy")
        await w.grant("alice", "coder", "pr deploy")
        asked = {"purpose": "fix issue 41", "minutes": 60}
        call = await w.call(coder, session_request.NAME, **asked)
        alice = await signed_in(browser, w, "alice")
        await alice.page.goto(hold_url(w, call))
        await alice.heading("coder asks for a session")
        await alice.page.get_by_text("for 60 minutes, to fix issue 41").first.wait_for()

        approve = alice.page.get_by_role("button", name="Approve with passkey")
        await alice.page.get_by_label("Minutes").fill("61")
        await approve.click()
        await alice.page.get_by_role("alert").get_by_text("Choose from 1 to 60 minutes").wait_for()
        await alice.page.get_by_label("Minutes").fill("5")
        for box in await alice.page.get_by_role("checkbox").all():
            if await box.get_attribute("value") != "acme__list_pull_requests":
                await box.uncheck()
        await approve.click()
        await alice.page.get_by_text("Approved. It runs once").first.wait_for()
        (verdict,) = (await w.store.hold(call.hold)).verdicts
        assert verdict.terms == {"minutes": 5, "tools": ["acme__list_pull_requests"]}
        assert "for 5 minutes" in (await w.call(coder, session_request.NAME, **asked)).text
