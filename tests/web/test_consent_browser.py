"""The whole road of a stock client in a real browser: from `/authorize` over the person's answer to tokens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from mcp_authz.accounts import Accounts
from mcp_authz.model import ToolName
from mcp_authz.principals import AgentName, Authentication, PersonName, SessionId
from mcp_authz.rules.scope import Scope
from mcp_authz.step_ups import StepUp
from mcp_authz.web.visitor import Cookies
from tests.web.asking import VERIFIER, agree, asks, client, grants
from tests.web.authenticator import visiting
from tests.web.browser import browsers, person, signed_in
from tests.web.test_looks import CONTRAST, overflow
from tests.world import OPERATOR, World, world


@dataclass
class Callback:
    """A client that listens on this computer for its answer."""

    url: str
    heard: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Callback]:
    """A client's own little server, as stock clients have one while they sign in."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/callback":
                callback.heard.append({**dict(parse_qsl(parts.query)), "referer": self.headers.get("referer", "")})
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>client</title><h1>Signed in</h1>")

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    callback = Callback(f"http://127.0.0.1:{server.server_address[1]}/callback")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield callback
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def token(w: World, by: Any, code: str, to: str) -> httpx2.Response:
    """What the client gets for its code."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": by.id,
        "redirect_uri": to,
        "code_verifier": VERIFIER,
    }
    async with httpx2.AsyncClient() as http:
        return await http.post(f"{w.config.public_url}/token", data=form)


async def test_a_person_signs_in_narrows_and_agrees_and_the_client_uses_a_tool(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        cursor = await client(w)
        alice = await signed_in(browser, w, "alice")
        with listening() as callback:
            to = callback.url
            await alice.page.goto("data:text/html,<body>")  # another site: the cookie stays behind
            await alice.page.evaluate(
                """(url) => { const link = document.createElement("a"); link.href = url; link.textContent = "open";
                    document.body.append(link); }""",
                f"{w.config.public_url}/authorize?{asks(cursor, redirect_uri=to)}",
            )
            await alice.page.get_by_role("link", name="open").click()
            await alice.heading("Let Cursor act for you?")
            await alice.page.locator("[value='secret:read']").uncheck()
            await alice.page.get_by_role("button", name="Agree with passkey").click()
            await alice.page.get_by_role("heading", name="Signed in").wait_for()
            (heard,) = callback.heard
            assert heard["referer"] == ""
            answer = await token(w, cursor, heard["code"], to)
            assert answer.status_code == 200, answer.text
            await alice.page.go_back()
            await alice.page.wait_for_url("data:**")  # the question is not in the history any more
        (grant,) = await grants(w)
        assert "secret:read" not in grant.scope and "pr:read:*:*" in grant.scope
        called = await w.raw_call(
            answer.json()["access_token"], "acme__list_pull_requests", {"owner": "acme", "repo": "api"}
        )
        assert called.status_code == 200 and '"isError":true' not in called.text, called.text


async def settle(w: World, cursor: Any) -> list[str]:
    """Something agreed to, a call that asks for more, odd clients: and every page that there is to look at."""
    read = "pr:read:*:*"
    async with visiting(w, "alice") as alice:
        for scope in (read, f"{read} secret:read"):
            assert (await agree(alice, asks(cursor, scope=scope), scope.split())).status_code == 200
    await w.ready("coder", "deploy:production")
    w.running.step_ups.note(
        StepUp(
            agent=AgentName("cursor@alice"),
            session=SessionId("s_1"),
            tool=ToolName("acme__merge_pull_request"),
            scopes=(Scope("pr:merge:acme:api"),),
            at=w.clock(),
        )
    )
    odd = await client(
        w, "C\u03bfrs\u3164or \u202eevil " + "long" * 20, kind="dynamic", to="https://elsewhere.example/cb"
    )
    stopped = await client(w, "Elsewhere", to="vscode://callback")
    return [
        f"/authorize?{asks(cursor)}",
        f"/authorize?{asks(cursor, scope=f'{read} pr:merge')}",
        f"/authorize?{asks(cursor, scope=read)}",
        f"/authorize?{asks(odd, requested_actor='agent:coder')}",
        f"/authorize?{asks(stopped, scope='none:such')}",
        f"/authorize?{asks(cursor, response_type='token')}",
        f"/authorize?{asks(cursor, redirect_uri='https://evil.example/')}",
        "/authorize?client_id=x",
        "/access",
    ]


async def assert_named(page: Any, path: str) -> None:
    """Everything that is pressed has a name, what describes it is there, and headings come in order."""
    nameless = await page.evaluate(
        """() => [...document.querySelectorAll("a, button, input, select, summary")]
            .filter((one) => !(one.labels?.length || one.textContent.trim())).map((one) => one.outerHTML)"""
    )
    ids = await page.evaluate("() => [...document.querySelectorAll('[id]')].map((one) => one.id)")
    told = await page.evaluate(
        """() => [...document.querySelectorAll("[aria-describedby]")]
            .flatMap((one) => one.getAttribute("aria-describedby").split(" "))"""
    )
    levels = await page.evaluate(
        "() => [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))"
    )
    assert not nameless and levels[0] == 1 and levels.count(1) == 1, (path, nameless, levels)
    assert len(ids) == len(set(ids)) and set(told) <= set(ids), path


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_pages_fit_a_small_screen_and_can_be_read(tmp_path: Path, scheme: str) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        cursor = await client(w)
        small: Any = {"viewport": {"width": 360, "height": 640}, "color_scheme": scheme, "reduced_motion": "reduce"}
        paths = await settle(w, cursor)
        await Accounts(w.store, w.clock).revoke_passkeys(PersonName("alice"), by=OPERATOR)
        alice = await signed_in(browser, w, "alice", **small)
        for path in paths:
            await alice.page.goto(f"{w.config.public_url}{path}")
            await alice.page.locator("h1").wait_for()
            assert await overflow(alice.page) == 0, path
            assert await alice.page.evaluate(CONTRAST) == [], path
            await assert_named(alice.page, path)


async def test_a_person_agrees_by_keyboard_alone_and_is_told_when_the_answer_went_to_an_application(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        alice = await signed_in(browser, w, "alice")
        query = asks(await client(w, "Zed", to="zed://callback"), scope="pr:read secret:read")
        await alice.page.goto(f"{w.config.public_url}/authorize?{query}")
        await alice.heading("Let Zed act for you?")
        assert await alice.page.evaluate("document.activeElement === document.body"), "nothing is pressed by accident"
        await alice.tab_to("n1")
        await alice.press("Space")
        passed = await alice.tab_to("Agree with passkey")
        assert passed[0] == "n2" and "Not now" not in passed
        await alice.press("Enter")
        await alice.page.get_by_role("heading", name="You can close this page now").wait_for()
        assert "You can close this page now" in await alice.focused(), "whoever listens is told"
        assert not await alice.page.get_by_role("button", name="Agree with passkey").is_visible()
        assert await alice.page.get_by_role("button", name="Nothing happened? Open Zed").is_visible()
        (grant,) = await grants(w)
        assert len(grant.scope) == 1


async def test_not_now_tells_the_client_so(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, browsers() as browser:
        await w.person("alice")
        alice = await signed_in(browser, w, "alice")
        with listening() as callback:
            query = asks(await client(w), redirect_uri=callback.url)
            await alice.page.goto(f"{w.config.public_url}/authorize?{query}")
            await alice.page.get_by_role("button", name="Not now").click()
            await alice.page.get_by_role("heading", name="Signed in").wait_for()
            assert callback.heard[0]["error"] == "access_denied"


async def test_somebody_else_signs_in_and_the_question_is_still_there(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, browsers() as browser:
        await w.person("alice")
        alice = await signed_in(browser, w, "alice")
        await alice.page.goto(f"{w.config.public_url}/authorize?{asks(await client(w))}")
        await alice.page.get_by_role("button", name="Not you?").click()
        await alice.heading("Sign in")
        await alice.page.get_by_role("button", name="Sign in with a passkey").click()
        await alice.heading("Let Cursor act for you?")


async def test_a_client_that_wants_no_page_is_told_whether_somebody_is_signed_in(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, browsers() as browser:
        await w.person("alice")
        by = await client(w, "Portal", kind="registered")
        for name in ("alice", "nobody"):
            them = await (signed_in(browser, w, name) if name == "alice" else person(browser, name))
            with listening() as callback:
                url = f"{w.config.public_url}/authorize?{asks(by, redirect_uri=callback.url, prompt='none')}"
                await them.page.goto("data:text/html,<body>")  # another site: the cookie stays behind
                await them.page.evaluate("(url) => { location.href = url; }", url)
                await them.page.get_by_role("heading", name="Signed in").wait_for()
                expected = "interaction_required" if name == "alice" else "login_required"
                assert callback.heard[0]["error"] == expected


async def test_without_a_passkey_a_click_that_was_meant_for_another_page_agrees_to_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, browsers() as browser:
        await w.person("bob")
        shown = Authentication(at=w.clock(), amr=("pwd",), issuer="https://login.example.com")
        accounts, bob = Accounts(w.store, w.clock), await person(browser, "bob")
        cookie, url = await accounts.sign_in_elsewhere(PersonName("bob"), shown), w.config.public_url
        name = Cookies(accounts, w.store, url).name
        await bob.page.context.add_cookies([{"name": name, "value": cookie, "url": url}])
        with listening() as callback:
            await bob.page.goto(f"{url}/authorize?{asks(await client(w), redirect_uri=callback.url)}")
            await bob.page.evaluate("half => localStorage.setItem('half', half)", await accounts.other_half(cookie))
            await bob.page.evaluate("dispatchEvent(new Event('focus')); document.querySelector('[data-agree]').click()")
            await bob.page.get_by_role("alert").filter(has_text="Read it").wait_for()
            assert await grants(w) == [] == callback.heard
            await bob.page.wait_for_timeout(800)
            await bob.page.get_by_role("button", name="Agree").click()
            await bob.page.get_by_role("heading", name="Signed in").wait_for()
            assert "code" in callback.heard[0]
