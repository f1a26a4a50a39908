"""A program signs in at an MCP server: what it keeps belongs to one authorization server, and who lies gets nothing."""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import httpx2
import pytest

from mcp_authz.client import Client, FileTokens, Loopback, PersonAuth, ProgramAuth, SignInRefused
from mcp_authz.client.authorization_server import Server, Target, target
from mcp_authz.client.code_flow import asking, code_of
from mcp_authz.client.door import NoAnswer
from mcp_authz.client.login_tokens import LoginTokens
from mcp_authz.client.trouble import Trouble
from mcp_authz.errors import ConfigError, InputError
from tests.client_library.elsewhere import elsewhere
from tests.client_library.strange import Issuing, Obliging, Said, Tools, issuing, serving, tools
from tests.world import Clock

ISSUER = "https://as.example.com"
SERVER = Server(
    issuer=ISSUER, token_endpoint=f"{ISSUER}/token", authorization_endpoint=f"{ISSUER}/authorize", has_pkce=True
)
TARGET = Target(resource="https://mcp.example.com/mcp", scopes=None, server=SERVER)


async def called(auth: httpx2.Auth, url: str) -> httpx2.Response:
    """One request, signed in."""
    async with httpx2.AsyncClient(auth=auth, timeout=10) as http:
        return await http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})


def sent(one: Issuing | Tools) -> str:
    """Everything that a server ever heard."""
    return json.dumps(one.server.heard)


async def test_a_person_agrees_once_and_the_token_is_renewed_without_them(tmp_path: Path) -> None:
    clock, person = Clock(), Obliging()
    with issuing() as here, tools(here.server.origin) as mcp:
        auth = PersonAuth(mcp.url, redirect=person, storage=FileTokens(tmp_path / "t.json"), clock=clock)
        assert (await called(auth, mcp.url)).status_code == 200
        clock.advance(timedelta(minutes=11))
        assert (await called(auth, mcp.url)).status_code == 200
        again = PersonAuth(mcp.url, redirect=person, storage=FileTokens(tmp_path / "t.json"), clock=clock)
        assert (await called(again, mcp.url)).status_code == 200  # another process finds it
        assert len(person.asked) == 1 and here.issued == 2
        assert person.asked[0]["resource"] == mcp.url and person.asked[0]["scope"] == "first"
        assert all(form["resource"] == mcp.url for form in here.server.forms("/token"))


async def test_programs_that_share_a_file_use_each_refresh_token_once(tmp_path: Path) -> None:
    clock, person = Clock(), Obliging()
    with issuing() as here, tools(here.server.origin) as mcp:
        files = [FileTokens(tmp_path / "t.json") for _ in range(4)]
        first, *others = [PersonAuth(mcp.url, redirect=person, storage=file, clock=clock) for file in files]
        await first.sign_in()
        assert all(one.signed_in is not None for one in others)
        clock.advance(timedelta(minutes=11))
        async with anyio.create_task_group() as group:
            for one in (first, *others):
                group.start_soon(called, one, mcp.url)
        assert here.issued == 2 and len(person.asked) == 1


async def test_a_renewal_that_is_under_way_takes_nothing_from_a_new_sign_in(tmp_path: Path) -> None:
    clock, person = Clock(), Obliging()
    with issuing() as here, tools(here.server.origin) as mcp:
        old, new = [
            PersonAuth(mcp.url, redirect=person, storage=FileTokens(tmp_path / "t.json"), clock=clock) for _ in range(2)
        ]
        await old.sign_in()
        clock.advance(timedelta(minutes=11))
        waits, agreed, goes_on = threading.Event(), threading.Event(), threading.Event()

        def slowly(path: str, headers: dict[str, str], form: dict[str, str]) -> Said:
            if form.get("grant_type") != "refresh_token":
                if path == "/token":
                    agreed.set()
                return here(path, headers, form)
            waits.set()
            goes_on.wait(10)
            return 400, {}, {"error": "invalid_grant"}  # what it was given before ended with the new sign-in

        async def renewed(auth: PersonAuth) -> None:
            with suppress(SignInRefused):
                await auth.current()

        here.server.answer = slowly
        async with anyio.create_task_group() as group:
            group.start_soon(renewed, old)
            await anyio.to_thread.run_sync(waits.wait, 10)
            group.start_soon(new.sign_in)
            await anyio.to_thread.run_sync(agreed.wait, 10)
            await anyio.sleep(0.1)  # in which it could be kept
            goes_on.set()
        kept = FileTokens(tmp_path / "t.json").load()
        assert kept is not None and new.signed_in is not None and kept.access == new.signed_in.access


async def test_what_comes_for_a_refresh_token_is_kept_by_a_program_that_is_told_to_stop(tmp_path: Path) -> None:
    clock, person, storage = Clock(), Obliging(), FileTokens(tmp_path / "t.json")
    with issuing() as here, tools(here.server.origin) as mcp:
        auth = PersonAuth(mcp.url, redirect=person, storage=storage, clock=clock)
        await auth.sign_in()
        clock.advance(timedelta(minutes=11))
        came, goes_on = threading.Event(), threading.Event()

        def slowly(path: str, headers: dict[str, str], form: dict[str, str]) -> Said:
            said = here(path, headers, form)
            if form.get("grant_type") == "refresh_token":
                came.set()
                goes_on.wait(10)
            return said

        here.server.answer = slowly
        async with anyio.create_task_group() as group:
            group.start_soon(auth.current)
            await anyio.to_thread.run_sync(came.wait, 10)
            group.cancel_scope.cancel()
            goes_on.set()
        kept = storage.load()
        assert kept is not None and kept.refresh == here.refresh


async def test_a_server_that_cannot_renew_just_now_ends_nothing(tmp_path: Path) -> None:
    clock, person = Clock(), Obliging()
    with issuing() as here, tools(here.server.origin) as mcp:
        auth = PersonAuth(mcp.url, redirect=person, storage=FileTokens(tmp_path / "t.json"), clock=clock)
        kept = await auth.sign_in()
        clock.advance(timedelta(minutes=11))
        mcp.takes = lambda token: token != kept.access
        for status in (400, 503):
            here.error = (status, {}, {"error": "temporarily_unavailable"})
            answer = await called(auth, mcp.url)
            assert answer.status_code == 401 and "Nothing was run" in answer.json()["error"]["message"]
        here.error = None
        assert (await called(auth, mcp.url)).status_code == 200 and len(person.asked) == 1
        here.refresh, mcp.takes = "another program's", lambda token: token.startswith("access-3")
        clock.advance(timedelta(minutes=11))
        assert (await called(auth, mcp.url)).status_code == 200 and len(person.asked) == 2  # that was over


async def test_a_login_that_is_refused_just_now_says_why_and_only_one_that_is_over_needs_the_person() -> None:
    clock = Clock()
    with issuing() as here, tools(here.server.origin) as mcp:
        auth = PersonAuth(mcp.url, redirect=Obliging(), clock=clock)
        await auth.sign_in()
        tokens = LoginTokens(auth, "mcp-authz", "login", mcp.url)
        clock.advance(timedelta(minutes=11))
        here.error = (400, {}, {"error": "invalid_dpop_proof", "error_description": "compare the clocks"})
        with pytest.raises(Trouble, match=r"of no use now: .*compare the clocks"):
            await tokens.current()
        here.error = (400, {}, {"error": "invalid_grant"})
        with pytest.raises(Trouble, match="nobody is signed in"):
            await tokens.current()


async def test_what_is_kept_does_not_follow_metadata_that_names_another_authorization_server(tmp_path: Path) -> None:
    clock, person = Clock(), Obliging()
    with issuing() as here, issuing() as other, tools(here.server.origin) as mcp:
        auth = PersonAuth(mcp.url, redirect=person, storage=FileTokens(tmp_path / "t.json"), clock=clock)
        await auth.sign_in()
        mcp.issuer = other.server.origin
        clock.advance(timedelta(minutes=11))
        assert (await called(auth, mcp.url)).status_code == 200  # the person agreed there, too
        assert len(person.asked) == 2 and other.issued == 1
        assert f"of-{here.server.origin}" not in sent(other)


@pytest.mark.parametrize("known", [True, False])
async def test_a_secret_is_shown_to_the_server_that_it_is_of_and_to_no_other(known: bool) -> None:
    clock = Clock()
    with issuing() as here, issuing() as other, tools(here.server.origin) as mcp:
        client = Client(id="job", secret="a-secret-of-ours", issuer=here.server.origin if known else None)
        auth = ProgramAuth(mcp.url, client, clock=clock)
        assert (await called(auth, mcp.url)).status_code == 200
        mcp.issuer = other.server.origin
        answer = await called(auth, mcp.url)
        assert answer.status_code == 401 and "now names" in answer.json()["error"]["message"]
        assert "/token" not in [path for path, _, _ in other.server.heard]


async def test_a_client_that_another_server_knows_is_nobody_here() -> None:
    with issuing() as here, tools(here.server.origin) as mcp:
        client = Client(id="desk", issuer="https://as.example.com")
        with pytest.raises(SignInRefused, match=r"is known to `https://as\.example\.com`"):
            await called(PersonAuth(mcp.url, redirect=Obliging(), client=client), mcp.url)
        assert not here.server.forms("/token")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"iss": "https://evil.example.com"}, "another authorization server"),
        ({"iss": f"{ISSUER}/"}, "another authorization server"),
        ({"iss": "https://AS.example.com"}, "another authorization server"),
        ({"iss": ""}, "does not say that it is from"),
        ({"state": "guessed"}, "another request than ours"),
        ({"state": ""}, "another request than ours"),
        ({"code": ""}, "has no code"),
    ],
)
def test_an_answer_that_is_not_the_asked_servers_brings_no_code(said: dict[str, str], why: str) -> None:
    strict = Target(resource=TARGET.resource, scopes=None, server=replace(SERVER, names_itself=True))
    asked = asking(strict, "c", "http://127.0.0.1:9/callback", frozenset(), key=None, max_age=None)
    whole = {"code": "x", "state": asked.state, "iss": ISSUER, **said}
    url = f"{asked.redirect}?{'&'.join(f'{name}={value}' for name, value in whole.items() if value)}"
    with pytest.raises(SignInRefused, match=why):
        code_of(asked, url)
    assert code_of(asked, f"{asked.redirect}?code=x&state={asked.state}&iss={ISSUER}") == "x"
    with pytest.raises(SignInRefused, match="another request"):  # said twice is not said
        code_of(asked, f"{asked.redirect}?code=x&state={asked.state}&iss={ISSUER}&state=y")


def test_an_error_is_shown_only_when_it_comes_from_the_server_that_was_asked() -> None:
    asked = asking(TARGET, "c", "http://127.0.0.1:9/callback", frozenset(), key=None, max_age=None)
    told = f"{asked.redirect}?error=call_this_number&state={asked.state}&iss="
    with pytest.raises(SignInRefused) as wrong:
        code_of(asked, f"{told}https://evil.example.com")
    assert "call_this_number" not in str(wrong.value)
    with pytest.raises(SignInRefused, match="call_this_number"):
        code_of(asked, f"{told}{ISSUER}")


async def test_a_mixed_up_answer_sends_no_code_to_any_token_endpoint() -> None:
    with issuing() as here, issuing() as other, tools(here.server.origin) as mcp:
        auth = PersonAuth(mcp.url, redirect=Obliging({"iss": other.server.origin}))
        with pytest.raises(SignInRefused, match="another authorization server"):
            await called(auth, mcp.url)
        assert not here.server.forms("/token") and not other.server.heard


async def test_the_receiver_takes_the_answer_with_its_own_state_and_nothing_else() -> None:
    shown, pages = list[str](), list[tuple[int, str]]()
    wrong = ("?code=stolen&state=guessed", "?code=stolen", "/x?code=1&state=right")
    async with Loopback(show=shown.append, seconds=10).waiting() as waiting, httpx2.AsyncClient() as http:

        async def visit() -> None:
            for path in (*wrong, "?code=good&state=right"):
                answer = await http.get(f"{waiting.uri}{path}")
                pages.append((answer.status_code, answer.text))

        async with anyio.create_task_group() as group:
            group.start_soon(visit)
            url = await waiting.answer("https://as.example.com/authorize", "right")
        assert url == f"{waiting.uri}?code=good&state=right"
    assert shown == ["https://as.example.com/authorize"]
    assert [status for status, _ in pages] == [404, 404, 404, 200]
    assert not any("stolen" in text or "good" in text for _, text in pages)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", waiting.uri)


async def test_nobody_is_waited_for_without_end() -> None:
    async with Loopback(show=lambda _: None, seconds=0.05).waiting() as waiting:
        with pytest.raises(SignInRefused, match="nobody came back"):
            await waiting.answer("https://as.example.com/authorize", "s")


async def test_metadata_is_not_read_from_where_a_redirect_leads() -> None:
    with elsewhere() as other, serving() as mcp:
        mcp.answer = lambda path, *_: (401, {}, {}) if path == "/mcp" else (307, {"location": f"{other.url}{path}"}, {})
        with pytest.raises(NoAnswer, match="does not say who signs people in"):
            await called(PersonAuth(f"{mcp.origin}/mcp", redirect=Obliging()), f"{mcp.origin}/mcp")
        assert not other.heard


async def test_a_challenge_that_refers_to_another_origin_is_refused() -> None:
    with elsewhere() as other, serving() as mcp:
        where = f'Bearer resource_metadata="{other.url}/x"'
        mcp.answer = lambda *_: (401, {"www-authenticate": where}, {})
        with pytest.raises(SignInRefused, match="somewhere else"):
            await called(PersonAuth(f"{mcp.origin}/mcp", redirect=Obliging()), f"{mcp.origin}/mcp")
        assert not other.heard


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
        ({"code_challenge_methods_supported": None}, "PKCE"),
        ({"issuer": "https://evil.example.com"}, "says that it is another"),
        ({"token_endpoint": "http://as.example.com/token"}, "cannot be trusted"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "cannot be trusted"),
        ({"authorization_endpoint": "https://as.example.com/\x1b]0;a terminal obeys\x07"}, "cannot be trusted"),
        ({"authorization_endpoint": "https://as.example.com/authorize?\x1b[2J"}, "cannot be trusted"),
        ({"authorization_endpoint": "https://as.example.com/authorize?\u202egpj"}, "cannot be trusted"),
        ({"registration_endpoint": None}, "has to know this program"),
    ],
)
async def test_a_server_that_cannot_be_trusted_gets_nobody(metadata: dict[str, object], why: str) -> None:
    person = Obliging()
    with issuing() as here, tools(here.server.origin) as mcp:
        here.metadata = metadata
        with pytest.raises(SignInRefused, match=why):
            await called(PersonAuth(mcp.url, redirect=person), mcp.url)
        assert not person.asked and not here.server.forms("/token")


@pytest.mark.parametrize(("said", "minutes"), [(10**30, 24 * 60), (-5, 0), ("soon", 5)])
async def test_how_long_a_token_lasts_is_believed_within_bounds(said: object, minutes: int) -> None:
    clock = Clock()
    with issuing() as here, tools(here.server.origin) as mcp:
        here.error = (200, {}, {"access_token": "x", "token_type": "Bearer", "expires_in": said})
        got = await PersonAuth(mcp.url, redirect=Obliging(), clock=clock).sign_in()
        assert abs(got.ends_at - got.began_at - timedelta(minutes=minutes)) < timedelta(seconds=5)


def test_a_server_elsewhere_does_not_send_us_to_this_machine() -> None:
    talk = target("https://mcp.example.com/mcp", None, lambda issuers: issuers[0])
    next(talk)
    said = {"resource": "https://mcp.example.com/mcp", "authorization_servers": ["http://127.0.0.1:8080"]}
    with pytest.raises(SignInRefused, match="no authorization server that can be trusted"):
        talk.send(httpx2.Response(200, json=said))


async def test_a_token_goes_to_the_mcp_server_and_nowhere_else() -> None:
    with issuing() as here, tools(here.server.origin) as mcp, elsewhere() as other:
        auth = PersonAuth(mcp.url, redirect=Obliging())
        await auth.sign_in()
        await called(auth, f"{other.url}/mcp")
        await called(auth, f"{mcp.server.origin}/other")
        assert "authorization" not in other.heard[0]
        assert [
            headers for path, headers, _ in mcp.server.heard if path == "/other" and "authorization" in headers
        ] == []


async def test_nothing_secret_is_in_an_error_or_in_what_is_printed(tmp_path: Path) -> None:
    clock = Clock()
    with issuing() as here, tools(here.server.origin) as mcp:
        client = Client(id="job", secret="a-secret-of-ours")
        auth = PersonAuth(mcp.url, redirect=Obliging(), client=client, clock=clock)
        kept = await auth.sign_in()
        printed = repr([kept, kept.client, auth, client])
        assert not any(one in printed for one in (kept.access, kept.refresh or "", "a-secret-of-ours"))
        here.error = (400, {}, {"error": "invalid_grant", "error_description": "no: the-code or the-code"})
        with pytest.raises(SignInRefused) as wrong:
            await auth.sign_in()
        assert str(wrong.value).startswith(f"`{here.server.origin}` gave no token: invalid_grant")
        here.error = (
            400,
            {},
            {"error": "invalid_client", "error_description": "bad redirect http://127.0.0.1:9/callback"},
        )
        with pytest.raises(SignInRefused) as echoed:
            await auth.sign_in()
        assert "callback" not in str(echoed.value)


async def test_more_is_asked_for_together_with_what_there_was_and_not_again_when_it_was_declined() -> None:
    person = Obliging()
    with issuing() as here, tools(here.server.origin) as mcp:
        auth = PersonAuth(mcp.url, redirect=person)
        assert (await called(auth, mcp.url)).status_code == 200
        mcp.needs, here.scope = "second", "first"  # the person says no to the second
        assert (await called(auth, mcp.url)).status_code == 403
        assert (await called(auth, mcp.url)).status_code == 403
        assert [one["scope"] for one in person.asked] == ["first", "first second"]


async def test_whoever_waited_for_a_sign_in_that_failed_asks_the_person_no_second_time() -> None:
    person = Obliging({"code": "", "error": "access_denied"})
    with issuing() as here, tools(here.server.origin) as mcp:
        auth, failed = PersonAuth(mcp.url, redirect=person), list[SignInRefused]()

        async def refused() -> None:
            try:
                await called(auth, mcp.url)
            except SignInRefused as error:
                failed.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(refused)
        assert len(failed) == 3 and len(person.asked) == 1


async def test_a_file_that_others_can_read_or_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "t.json"
    with issuing() as here, tools(here.server.origin) as mcp:
        await PersonAuth(mcp.url, redirect=Obliging(), storage=FileTokens(path)).sign_in()
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert FileTokens(path).load() is not None
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others"):
        FileTokens(path).load()
    path.write_text("[]")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no sign-in"):
        FileTokens(path).load()


def test_urls_by_which_a_token_would_travel_in_the_open_are_refused() -> None:
    with pytest.raises(InputError, match="plain http"):
        PersonAuth("http://mcp.example.com/mcp")
    with pytest.raises(InputError, match="https URL"):
        PersonAuth("https://mcp.example.com/mcp", metadata_url="http://localhost/client.json")
    with pytest.raises(InputError, match="secret= or a key="):
        ProgramAuth("https://mcp.example.com/mcp", Client(id="job"))
