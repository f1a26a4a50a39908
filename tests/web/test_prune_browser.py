"""A person prunes a tree in a real browser, and exactly what was below the cut is refused from then on."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.attacker import answer_in
from tests.web.browser import browsers, signed_in
from tests.web.team import team
from tests.web.test_browser import troubles
from tests.world import world

LISTS = "acme__list_pull_requests"
REPO = {"owner": "acme", "repo": "api"}


async def test_pruning_the_middle_of_a_tree_stops_what_is_below_it_and_not_its_sibling(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        made = await team(w)
        tester, writer = [await w.token(made.actors[name]) for name in ("tester", "writer")]
        for token in (tester, writer):
            assert not answer_in(await w.raw_call(token, LISTS, REPO))["result"].get("isError"), "all is well"

        alice = await signed_in(browser, w, "alice")
        complaints = troubles(alice)
        await alice.page.get_by_role("link", name="Sessions").click()
        await alice.page.get_by_role("link", name="planner for alice").click()
        await alice.heading("planner works for alice")
        assert await alice.page.get_by_role("img", name="Who delegated what to whom for alice").is_visible()
        watching = await alice.context.new_page()
        await watching.goto(alice.page.url)

        await alice.tab_to(f"Prune coder {made.links['coder'].id}")
        await alice.press("Enter")
        await alice.heading("Prune the delegation to coder?")
        await alice.page.get_by_text("2 delegations: coder for alice").wait_for()
        await alice.page.get_by_role("button", name="Prune it").click()
        await alice.page.get_by_role("alert").get_by_text("Say why").wait_for()
        await alice.page.keyboard.type("went astray")
        await alice.page.get_by_role("button", name="Prune it").click()
        await alice.heading("planner works for alice")
        for page in (alice.page, watching):
            await page.get_by_text("Revoked by alice").wait_for()
        assert await alice.page.locator(".tree .state.open").count() == 2
        assert not complaints

        assert (await w.raw_call(tester, LISTS, REPO)).status_code == 401
        assert not answer_in(await w.raw_call(writer, LISTS, REPO))["result"].get("isError"), "its sibling goes on"
