"""Row 47: another page in the person's own browser: another site, another port, a rebound name, a frame around ours."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mcp_authz.model import HoldState
from tests.web.asking import asks, client, grants, question
from tests.web.authenticator import visiting
from tests.web.browser import browsers, signed_in
from tests.web.team import team
from tests.world import World, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}


@contextmanager
def other_page() -> Iterator[str]:
    """A page on another port of localhost: for the browser it is the same site, and it gets the same cookies."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>another page</title><body>")

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def held(w: World) -> str:
    call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
    return f"{w.config.public_url}/holds/{call.hold}"


async def test_a_page_on_another_port_has_the_cookie_sent_and_still_neither_reads_nor_answers(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        url = await held(w)
        alice = await signed_in(browser, w, "alice")
        with other_page() as evil:
            await alice.page.goto(evil)
            for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
                for mode in ("cors", "no-cors"):
                    said = await alice.page.evaluate(
                        """([url, kind, mode]) => fetch(url, {method: "POST", credentials: "include", mode, body: "{}",
                            headers: {"content-type": kind}}).then((r) => r.status || r.type, (e) => "refused")""",
                        [f"{url}/deny", kind, mode],
                    )
                    assert said in {"refused", "opaque"}, (kind, mode, said)
            read = "(url) => fetch(url, {credentials: 'include'}).then((r) => r.text(), () => 'refused')"
            assert await alice.page.evaluate(read, url) == "refused"
        assert [held.state for held in await w.store.holds()] == [HoldState.PENDING]


async def test_a_form_of_another_page_answers_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        url = await held(w)
        alice = await signed_in(browser, w, "alice")
        with other_page() as evil:
            await alice.page.goto(evil)
            async with alice.page.expect_navigation() as gone:
                await alice.page.evaluate(
                    """(url) => { const form = document.createElement("form"); form.method = "POST"; form.action = url;
                        form.enctype = "text/plain"; document.body.append(form); form.submit(); }""",
                    f"{url}/deny",
                )
            answer = await gone.value
            assert answer is not None and answer.status == 403
        assert [held.state for held in await w.store.holds()] == [HoldState.PENDING]


async def test_no_page_puts_ours_into_a_frame_or_keeps_a_hand_on_its_window(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        url = await held(w)
        alice = await signed_in(browser, w, "alice")
        with other_page() as evil:
            await alice.page.goto(evil)
            await alice.page.evaluate(
                """(url) => new Promise((done) => { const frame = document.createElement("iframe"); frame.src = url;
                    frame.onload = done; document.body.append(frame); })""",
                url,
            )
            (frame,) = alice.page.frames[1:]
            assert "coder asks" not in await frame.content()

            async with alice.context.expect_page() as opened:
                await alice.page.evaluate("(url) => { window.ours = window.open(url); }", url)
            ours = await opened.value
            await ours.get_by_role("heading", name="coder asks to run").wait_for()
            assert await alice.page.evaluate("window.ours.closed"), "the opener lost it"
            assert await ours.evaluate("window.opener === null")


async def test_a_name_that_was_rebound_to_this_machine_is_told_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        url = await held(w)
        async with visiting(w, "alice") as alice:
            path, port = url.removeprefix(w.config.public_url), w.config.listen_port
            for host in ("evil.example", f"evil.example:{port}", f"localhost.evil.example:{port}", f"0.0.0.0:{port}"):
                for answer in (
                    await alice.get(path, host=host),
                    await alice.post(f"{path}/deny", {}, host=host),
                    await alice.post(f"{path}/deny", {}, host=host, origin=f"http://{host}"),
                ):
                    assert answer.status_code == 421 and "coder" not in answer.text
        assert [held.state for held in await w.store.holds()] == [HoldState.PENDING]


async def test_a_link_of_another_site_opens_the_page_for_whoever_is_signed_in(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        url = await held(w)
        alice = await signed_in(browser, w, "alice")
        await alice.page.goto("data:text/html,<body>")
        await alice.page.evaluate(
            """(url) => { const link = document.createElement("a"); link.href = url; link.textContent = "open";
                document.body.append(link); }""",
            url,
        )
        await alice.page.get_by_role("link", name="open").click()
        await alice.heading("coder asks to run acme__deploy")


async def test_no_other_page_agrees_refuses_or_stops_in_the_persons_name(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.ready("coder", "pr:read")
        query = asks(await client(w))
        async with visiting(w, "alice") as alice:
            (grant,) = await grants(w)
            nonce, options = await question(alice, query, ["pr:read:*:*"])
            posts = {
                "/authorize/question": {"query": query, "scopes": ["pr:read:*:*"], "days": 1},
                "/authorize/agree": {"nonce": nonce, "answer": alice.passkey.show(options, alice.origin)},
                "/authorize/refuse": {"query": query},
                f"/access/{grant.id}/stop": {},
                f"/access/{grant.id}/stop-all": {},
            }
            for path, body in posts.items():
                raw, kind = json.dumps(body).encode(), {"content-type": "application/json"}
                bare = await alice.http.post(f"{alice.origin}{path}", content=raw, headers=kind)
                assert bare.status_code == 403, "no Origin"
                for origin in ("http://localhost:1", "https://evil.example", "null"):
                    assert (await alice.post(path, body, origin=origin)).status_code == 403
                assert (await alice.post(path, body, sec_fetch_site="same-site")).status_code == 403
                for other in ("text/plain", "application/x-www-form-urlencoded", ""):
                    assert (await alice.post(path, body, content_type=other)).status_code == 415
                assert (await alice.post(path, body, host="evil.example")).status_code == 421
                assert (await alice.get(path)).status_code in {404, 405}, "no link does it"
        assert await grants(w) == [grant] and await w.records("revocation") == ()


async def test_a_frame_shows_no_question_of_a_client(tmp_path: Path) -> None:
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        url = f"{w.config.public_url}/authorize?{asks(await client(w))}"
        alice = await signed_in(browser, w, "alice")
        with other_page() as evil:
            await alice.page.goto(evil)
            await alice.page.evaluate(
                """(url) => new Promise((done) => { const frame = document.createElement("iframe"); frame.src = url;
                    frame.onload = done; document.body.append(frame); })""",
                url,
            )
            (frame,) = alice.page.frames[1:]
            assert "Cursor" not in await frame.content()


async def test_the_page_never_leads_to_what_a_browser_runs_by_itself(tmp_path: Path) -> None:
    """The gateway registers no such address; the page's script would not go there either."""
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        url = f"{w.config.public_url}/authorize?{asks(await client(w), response_type='token')}"
        alice = await signed_in(browser, w, "alice")
        for bad in (
            "javascript:document.title='run'",
            "data:text/html,x",
            "http://evil.example/",
            "blob:x",
            "about:blank",
        ):
            await alice.page.goto(url)
            button = alice.page.get_by_role("button", name="Return to Cursor")
            await button.evaluate("(button, bad) => { button.dataset.leave = bad; }", bad)
            await button.click()
            await alice.page.get_by_text("The answer would go where no page may lead.").wait_for()
            assert alice.page.url == url and await alice.page.title() != "run"


async def test_another_page_stops_nothing_and_starts_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, administration={"admins": ["user:alice"]}) as w:
        made = await team(w)
        session, why = made.session.id, {"reason": "x"}
        async with visiting(w, "alice") as alice:
            await alice.post("/stop/calls", why)
            for path in (
                f"/stop/session/{session}",
                f"/stop/link/{made.links['coder'].id}",
                "/stop/agent/coder",
                "/stop/calls/over",
            ):
                for origin in ("https://evil.example", "null", f"http://localhost:{w.config.listen_port + 1}"):
                    assert (await alice.post(path, why, origin=origin)).status_code == 403, (path, origin)
                assert (await alice.post(path, why, sec_fetch_site="same-site")).status_code == 403
                assert (await alice.post(path, why, content_type="text/plain")).status_code == 415
            told = await alice.get(f"/sessions/{session}/picture.svg")
            assert (
                told.headers["x-frame-options"] == "DENY"
                and told.headers["cross-origin-resource-policy"] == "same-origin"
            )
        (switch,) = await w.store.switched_off()
        assert switch.is_everything and (await w.store.session(session)).status == "active"
