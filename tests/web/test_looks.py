"""The page for everybody: by keyboard alone, on a small screen, in light and dark, with enough contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.web.asking import asks, client
from tests.web.browser import browsers, link, person, signed_in
from tests.web.team import handed_on
from tests.world import World, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}
ADMIN = {"admins": ["user:alice"]}
LONG = {**DEPLOY, "version": "v" * 300 + "\n" + "word " * 100}

# Contrast of every text with the first painted surface behind it (WCAG 2.2 success criterion 1.4.3).
CONTRAST = """() => {
    const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = numbers(color).slice(0, 3).map((one) => one / 255)
            .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (node) => {
        for (let one = node; one; one = one.parentElement) {
            const color = getComputedStyle(one).backgroundColor;
            if ((numbers(color)[3] ?? 1) === 1) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const weak = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode.parentElement;
        const unseen = !node.checkVisibility() || node.closest(".unseen, noscript");
        if (unseen || !walk.currentNode.textContent.trim()) continue;
        const [one, other] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
        const contrast = (one + 0.05) / (other + 0.05);
        if (contrast < 4.5) weak.push(`${walk.currentNode.textContent.trim()}: ${contrast.toFixed(2)}`);
    }
    return weak;
}"""


async def settle(w: World) -> list[str]:
    """Calls in several states, and every page that there is to look at."""
    coder = await w.ready("coder", "deploy:production pr:merge:acme:api")
    denied = await w.call(coder, "acme__merge_pull_request", owner="acme", repo="api", number=1)
    await w.answer(denied.hold, by="alice", approve=False, reason="no")
    done = await w.call(coder, "acme__deploy", **DEPLOY)
    await w.answer(done.hold, by="alice")
    await w.call(coder, "acme__deploy", **DEPLOY)
    waits = await w.call(coder, "acme__deploy", **LONG)
    assert waits.is_held, waits.text
    await w.agent("tester", ceiling="pr")
    (root,) = await w.store.links((await w.store.sessions())[0].id)
    made = await handed_on(w, root, "tester")
    stops = [f"/stop/link/{made.id}", f"/sessions/{made.session}", "/sessions", "/agents", "/agent/coder"]
    more = ["/access", f"/authorize?{asks(await client(w))}", *stops, "/tools", "/tool/acme__deploy", "/person/alice"]
    more += ["/people", "/stop/tool/acme__deploy", "/stop/everything/user:alice", "/stop/calls"]
    return ["/holds", *(f"/holds/{call.hold}" for call in (denied, done, waits)), "/passkeys", "/holds/h_none", *more]


async def overflow(page: Any) -> int:
    """How many pixels of the page, or of anything in it, lie beyond its right edge; a picture scrolls in its frame."""
    wide: int = await page.evaluate(
        """() => Math.max(...[document.documentElement, ...document.querySelectorAll("main *")]
            .filter((one) => getComputedStyle(one).display !== "inline" && !one.matches(".unseen, .picture-frame"))
            .map((one) => one.scrollWidth - one.clientWidth))"""
    )
    return wide


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_fits_a_small_screen_and_can_be_read(tmp_path: Path, scheme: str) -> None:
    async with world(tmp_path, administration=ADMIN) as w, browsers() as browser:
        paths = await settle(w)
        await w.person("bob")
        small: Any = {"viewport": {"width": 360, "height": 640}, "color_scheme": scheme, "reduced_motion": "reduce"}
        stranger = await person(browser, "bob", **small)
        alice = await signed_in(browser, w, "alice", **small)
        pages = [
            (stranger, "/holds"),
            (stranger, "/welcome/x"),
            (stranger, (await link(w, "bob")).removeprefix(w.config.public_url)),
        ]
        shades = set()
        for them, path in [*pages, *((alice, path) for path in paths)]:
            await them.page.goto(f"{w.config.public_url}{path}")
            await them.page.locator("h1").wait_for()
            assert await overflow(them.page) == 0, path
            assert await them.page.evaluate(CONTRAST) == [], path
            shades.add(await them.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        (shade,) = shades
        assert (shade == "rgb(23, 24, 21)") == (scheme == "dark")


async def test_a_call_is_found_and_approved_by_keyboard_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        coder = await w.ready("coder", "deploy:production")
        alice = await person(browser, "alice")
        await alice.page.goto(await link(w, "alice"))
        await alice.tab_to("Make a passkey")
        await alice.press("Enter")
        await alice.heading("Nothing waits.")
        call = await w.call(coder, "acme__deploy", **DEPLOY)
        await alice.heading("1 call waits for you")

        await alice.tab_to("coder asks to run acme__deploy")
        await alice.press("Enter")
        await alice.heading("coder asks to run acme__deploy")
        passed = await alice.tab_to("Approve with passkey")
        assert passed == [
            "Skip to the content", "mcp-authz", "Held calls", "Sessions", "Agents", "Audit", "Access", "Passkeys",
            "alice", "Sign out", "All held calls", "reason", "Approve with passkey",
        ]  # fmt: skip
        await alice.press("Tab")
        assert await alice.focused() == "Deny"
        await alice.press("Shift+Tab", "Space")
        await alice.page.get_by_text("Approved. It runs once").first.wait_for()
        assert (await w.store.hold(call.hold)).state == "approved"
        assert "Approved" in await alice.focused(), "whoever listens is told where they are"


async def test_the_focus_can_be_seen_wherever_it_is_and_leaves_the_page_again(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ADMIN) as w, browsers() as browser:
        paths = await settle(w)
        alice = await signed_in(browser, w, "alice")
        for path in paths:
            await alice.page.goto(f"{w.config.public_url}{path}")
            await alice.page.locator("h1").wait_for()
            for _ in range(80):
                await alice.press("Tab")
                if await alice.page.evaluate("document.activeElement === document.body"):
                    break
                assert await alice.page.evaluate(
                    """() => [getComputedStyle(document.activeElement),
                        getComputedStyle(document.activeElement, "::after")]
                        .some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2)"""
                ), f"{path}: {await alice.focused()}"
            else:
                pytest.fail(f"{path} holds the focus")


async def test_everything_that_is_pressed_has_a_name_and_headings_come_in_order(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ADMIN) as w, browsers() as browser:
        paths = await settle(w)
        alice = await signed_in(browser, w, "alice")
        for path in paths:
            await alice.page.goto(f"{w.config.public_url}{path}")
            await alice.page.locator("h1").wait_for()
            nameless = await alice.page.evaluate(
                """() => [...document.querySelectorAll("a, button, input, textarea")]
                    .filter((one) => !(one.labels?.length || one.textContent.trim())).map((one) => one.outerHTML)"""
            )
            levels = await alice.page.evaluate(
                "() => [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))"
            )
            assert not nameless and levels[0] == 1 and levels.count(1) == 1, (path, nameless, levels)
            assert await alice.page.evaluate("document.documentElement.lang") == "en"
