"""What every answer of the page carries, and which requests it lets in."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from starlette.responses import Response

from mcp_authz import limits
from mcp_authz.accounts import Accounts
from mcp_authz.agents import People
from mcp_authz.web.visitor import Cookies
from tests.web.authenticator import visit, visiting
from tests.world import OPERATOR, World, world

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)


async def settle(w: World) -> None:
    await People(w.store, w.clock).add("alice", by=OPERATOR)


def assert_guarded(answer: httpx2.Response) -> None:
    told = {name: answer.headers.get(name) for name in (*GUARDS,)}
    assert told == GUARDS, answer.url


GUARDS = {
    "content-security-policy": CSP,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


async def test_every_answer_carries_the_headers_that_keep_others_out(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visit(w) as stranger:
            for path in (
                "/",
                "/holds",
                "/holds/h_1",
                "/passkeys",
                "/events",
                "/welcome/x",
                "/static/page.js",
                "/static/x",
            ):
                assert_guarded(await stranger.get(path))
            assert_guarded(await stranger.get("/holds", host="evil.example"))
            assert_guarded(await stranger.post("/sign-in", {}, origin="https://evil.example"))
            assert_guarded(await stranger.post("/sign-in/question", {}))
        async with visiting(w, "alice") as alice:
            for path in ("/", "/holds", "/holds/h_1", "/passkeys", "/sign-in", "/access", "/authorize", "/authorize/x"):
                assert_guarded(await alice.get(path))


async def test_a_page_has_no_script_or_style_of_its_own_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            for path in ("/holds", "/passkeys", "/access", "/authorize"):
                page = (await alice.get(path)).text
                assert "<style" not in page and " style=" not in page and " onclick" not in page
                assert page.count("<script") == 1 and '<script type="module" src="/static/page.js">' in page
                assert "http" not in page.replace("http-equiv", "")


async def test_an_address_leads_to_the_name_with_path_and_query(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, visit(w) as stranger:
        port = w.config.listen_port
        for address in (f"127.0.0.1:{port}", f"[::1]:{port}"):
            answer = await stranger.get("/holds/a%2Fb?x=1", host=address)
            assert answer.status_code == 307
            assert answer.headers["location"] == f"http://localhost:{port}/holds/a%2Fb?x=1"
            assert (await stranger.post("/sign-in/question", {}, host=address)).status_code == 421


@pytest.mark.parametrize("host", ["evil.example", "localhost", "localhost:1", "localhost.evil.example:{port}", ""])
async def test_another_host_is_told_nothing(tmp_path: Path, host: str) -> None:
    async with world(tmp_path, servers={}) as w, visit(w) as stranger:
        answer = await stranger.get("/holds", host=host.format(port=w.config.listen_port))
        assert answer.status_code in {400, 421} and "passkey" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://localhost:1"}, 403),
        ({"origin": "http://127.0.0.1:{port}"}, 403),
        ({"origin": "https://localhost:{port}"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "none"}, 403),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "multipart/form-data; boundary=x"}, 415),
        ({"content_type": ""}, 415),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({}, 200),
    ],
    ids=str,
)
async def test_only_this_very_page_changes_anything(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async with world(tmp_path, servers={}) as w, visit(w) as stranger:
        told = {name: value.format(port=w.config.listen_port) for name, value in headers.items()}
        assert (await stranger.post("/sign-in/question", {}, **told)).status_code == status


async def test_a_request_without_an_origin_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, httpx2.AsyncClient() as http:
        answer = await http.post(f"{w.config.public_url}/sign-in/question", json={})
        assert answer.status_code == 403


async def test_a_body_is_bounded_and_strict(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            big = b'{"nonce": "' + b"a" * limits.PAGE_BODY_BYTES + b'"}'
            assert (await alice.post("/sign-in", big)).json() == {"error": "The request is too long."}
            for body in (
                b"[]",
                b"",
                b"nonsense",
                b'{"a": 1, "a": 2}',
                b'{"nonce": 1, "answer": {}}',
                b'{"nonce": "AAAA"}',
            ):
                answer = await alice.post("/sign-in", body)
                assert answer.status_code == 400 and answer.json()["error"].endswith("."), answer.text


@pytest.mark.parametrize("cookie", ["", "x", "AAAA", "=", "a" * 43, '"quoted"'])
async def test_without_a_cookie_of_ours_there_is_only_the_sign_in_page(tmp_path: Path, cookie: str) -> None:
    async with world(tmp_path, servers={}) as w, visit(w) as stranger:
        name = f"mcp-authz-{w.config.listen_port}"
        for path in ("/holds", "/holds/h_1", "/passkeys", "/events"):
            answer = await stranger.get(path, cookie=f"{name}={cookie}")
            assert answer.status_code == 401 and "<h1>Sign in</h1>" in answer.text
        for path in ("/holds/h_1/deny", "/holds/h_1/approve", "/holds/h_1/question", "/passkeys/proof", "/sign-out"):
            answer = await stranger.post(path, {"nonce": "AAAA", "answer": {}}, cookie=f"{name}={cookie}")
            assert answer.status_code == 401 and answer.json()["again"] is True, path  # the page leads to the sign-in


async def test_the_cookie_is_kept_from_scripts_and_other_sites_and_only_its_digest_is_kept_here(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visit(w) as alice:
            answer = await alice.register(await alice.invite("alice"))
            words = answer.headers["set-cookie"].lower().split("; ")
            assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= set(words)
            token = alice.http.cookies[f"mcp-authz-{w.config.listen_port}"]
        for file in (tmp_path / "data").iterdir():
            assert token.encode() not in file.read_bytes(), file


async def test_signing_out_ends_the_sign_in_and_not_only_the_cookie(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            cookie = f"mcp-authz-{w.config.listen_port}={alice.http.cookies[f'mcp-authz-{w.config.listen_port}']}"
            assert (await alice.post("/sign-out", {})).status_code == 200
        async with visit(w) as thief:
            assert (await thief.get("/holds", cookie=cookie)).status_code == 401


async def test_a_sign_in_ends_after_twelve_hours(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            for _ in range(11):
                w.clock.advance(timedelta(hours=1))
                assert (await alice.get("/holds")).status_code == 200
            w.clock.advance(timedelta(hours=1))
            assert (await alice.get("/holds")).status_code == 401


async def test_a_sign_in_that_nobody_uses_ends_after_two_hours(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            w.clock.advance(limits.SIGN_IN_IDLE)
            assert (await alice.get("/holds")).status_code == 401


async def test_a_page_that_is_only_left_open_is_no_use_of_a_sign_in(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            w.clock.advance(limits.SIGN_IN_IDLE / 2)
            for path in ("/holds", "/sign-in"):  # what the script fetches by itself, when something has changed
                assert (await alice.get(path, sec_fetch_dest="empty")).status_code in {200, 204}
            w.clock.advance(limits.SIGN_IN_IDLE / 2)
            assert (await alice.get("/holds")).status_code == 401

        async with visit(w) as alice:
            await People(w.store, w.clock).add("bob", by=OPERATOR)
            await alice.register(await alice.invite("bob"))
            for _ in range(3):
                w.clock.advance(limits.SIGN_IN_IDLE / 2)
                assert (await alice.get("/holds", sec_fetch_dest="document")).status_code == 200
            w.clock.advance(limits.SIGN_IN_IDLE / 2)
            assert (await alice.post("/passkeys/proof", {}, sec_fetch_dest="empty")).status_code == 200
            w.clock.advance(limits.SIGN_IN_IDLE / 2)
            assert (await alice.get("/holds")).status_code == 200, "a button is pressed by somebody"


async def test_a_link_that_is_over_says_what_to_do(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visit(w) as alice:
            expired = await alice.invite("alice")
            w.clock.advance(limits.INVITATION)
            used = await alice.invite("alice")
            assert (await alice.register(used)).status_code == 200
            for path, why in (
                (expired, "The time of this link is up"),
                (used, "This link was used already"),
                ("/welcome/AAAA", "There is no such invitation"),
                ("/welcome/%00", "There is no such invitation"),
            ):
                page = await alice.get(path)
                assert page.status_code == 404 and why in page.text, path
                assert "mcp-authz user passkey NAME" in page.text
                assert (await alice.post(f"{path}/question", {})).status_code in {404, 409}


async def test_paths_of_the_other_endpoints_stay_theirs(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, visit(w) as stranger:
        assert (await stranger.get("/token")).status_code == 405
        assert (await stranger.get("/healthz")).json() == {"status": "ok"}
        assert "content-security-policy" not in (await stranger.get("/healthz")).headers
        assert (await stranger.get("/nowhere")).status_code == 404


@pytest.mark.parametrize("id_", ["%00", "%ff", "..%2f..", "h_1%0d%0aX: y", "%F0%9F%92%A5", "a" * 5000, "x/y", " "])
async def test_a_strange_id_is_a_hold_that_is_not_there(tmp_path: Path, id_: str) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            assert (await alice.get(f"/holds/{id_}")).status_code == 404
            assert (await alice.post(f"/holds/{id_}/deny", {})).status_code in {404, 405}


async def test_over_https_the_cookie_goes_to_no_other_host_or_port(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        cookies, answer = Cookies(Accounts(w.store, w.clock), w.store, "https://authz.example.com"), Response()
        cookies.give(answer, "token")
        words = answer.headers["set-cookie"].lower().split("; ")
        assert words[0] == "__host-mcp-authz=token" and {"secure", "httponly", "path=/", "samesite=strict"} <= set(
            words
        )
        assert not any(word.startswith("domain") for word in words)
