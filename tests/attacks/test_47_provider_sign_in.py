"""Row 47: sign-in with a provider under attack: another browser's, another provider's, a forged or old answer."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.web.next_page import next_page
from tests.web.authenticator import Visit, visit
from tests.web.elsewhere import at_the_company, changed, come_back, house, leave
from tests.web.lying_provider import SECRET, Liar, lying_provider
from tests.world import World, world

NOW = int(time.time())  # when the tests were collected: a long run comes to this one many minutes later


@asynccontextmanager
async def lied_to(directory: Path, **more: Any) -> AsyncIterator[tuple[World, Liar]]:
    """A gateway whose provider says whatever a test wants."""
    secret = directory / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with lying_provider() as liar:
        provider = {"issuer": liar.issuer, "client_id": "gateway", "client_secret_file": str(secret), **more}
        provider = {name: value for name, value in provider.items() if value is not None}
        async with world(directory, servers={}, sign_in={"provider": provider}) as w:
            yield w, liar


async def assert_nobody(them: Visit) -> None:
    assert (await them.get("/holds")).status_code == 401


async def test_an_answer_that_was_got_in_another_browser_signs_nobody_in(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, _), visit(w) as mallory, visit(w) as alice:
        # Mallory signs in there and has alice's browser open the end of it: she would work in Mallory's name.
        prepared = await at_the_company(mallory, await leave(mallory), "1002")
        assert (await come_back(alice, prepared)).status_code == 409
        await assert_nobody(alice)
        await leave(alice)
        refused = await come_back(alice, prepared)
        assert refused.status_code == 409 and "belongs to another sign-in" in refused.text
        await assert_nobody(alice)

        own = await at_the_company(alice, await leave(alice), "1001")
        assert (await come_back(alice, changed(own, state="guessed"))).status_code == 409
        assert (await come_back(alice, changed(own, state=None))).status_code == 409
        assert (await come_back(alice, own)).status_code == 200, "wrong answers do not end the right one"


async def test_an_answer_counts_once_also_with_the_cookie_that_was_kept(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, _), visit(w) as alice, visit(w) as thief:
        url = await at_the_company(alice, await leave(alice), "1001")
        way = f"mcp-authz-{w.config.listen_port}-way"
        kept = alice.http.cookies[way]
        assert (await come_back(alice, url)).status_code == 200
        assert way not in alice.http.cookies
        path = url.removeprefix(w.config.public_url)
        for _ in range(2):
            again = await thief.get(path, cookie=f"{way}={kept}")
            assert again.status_code == 409 and "over already" in again.text
        await assert_nobody(thief)


async def test_a_cookie_of_the_way_is_made_by_us_alone(tmp_path: Path) -> None:
    async with lied_to(tmp_path) as (w, liar), visit(w) as alice:
        path, way = liar.comes_back(await leave(alice)), f"mcp-authz-{w.config.listen_port}-way"
        sealed = alice.http.cookies[way]
        assert liar.nonce not in sealed
        for forged in ("", "x", sealed[:-2] + ("AA" if sealed[-2:] != "AA" else "BB"), sealed[:40], '{"state": "x"}'):
            assert (await alice.get(path, cookie=f"{way}={forged}")).status_code == 409, forged


async def test_another_providers_answer_is_not_taken_for_ours(tmp_path: Path) -> None:
    async with lied_to(tmp_path) as (w, liar), visit(w) as alice:
        for iss in ("https://evil.example", f"{liar.issuer}/", "", None):
            refused = await alice.get(liar.comes_back(await leave(alice), iss=iss))
            assert refused.status_code == 502 and "another provider" in refused.text, iss
        path = liar.comes_back(await leave(alice), iss="https://evil.example", error="access_denied")
        refused = await alice.get(path)
        assert "another provider" in refused.text
        refused = await alice.get(f"{liar.comes_back(await leave(alice))}&iss={liar.issuer}")
        assert "says something twice" in refused.text
        assert liar.asked == [], "the code goes nowhere"
        assert (await alice.get(liar.comes_back(await leave(alice)))).status_code == 200


UNSIGNED = json.dumps({"sub": "1001", "iat": NOW, "auth_time": NOW, "preferred_username": "alice"}).encode()
LIES: list[dict[str, Any]] = [
    {"claims": {"iss": "https://evil.example"}},
    {"claims": {"aud": "another-client"}},
    {"claims": {"aud": "another-client", "azp": "gateway"}},
    {"claims": {"aud": []}},
    {"claims": {"aud": ["gateway", "another-client"]}},
    {"claims": {"aud": ["gateway", "another-client"], "azp": "another-client"}},
    {"claims": {"azp": "another-client"}},
    {"claims": {"nonce": "of another sign-in"}},
    {"claims": {"nonce": None}},
    {"claims": {"exp": NOW - 120}},
    {"claims": {"exp": None}},
    {"claims": {"iat": NOW + 86_400}},
    {"claims": {"auth_time": NOW + 86_400}},
    {"claims": {"auth_time": "just now"}},
    {"claims": {"auth_time": -(10**18)}},
    {"claims": {"auth_time": None, "iat": -(10**18)}},
    {"claims": {"amr": {"pwd": True}}},
    {"claims": {"sub": None}},
    {"claims": {"sub": ""}},
    {"claims": {"sub": 1001}},
    {"claims": {"sub": "x" * 256}},
    {"header": {"alg": "none"}},
    {"header": {"alg": "HS256"}},
    {"signs_with": ECKey.generate_key("P-256", {"kid": "1"})},
    {"id_token": "left out"},
    {"id_token": "nonsense"},
    {"claims": {"preferred_username": None}, "userinfo": {"sub": "1002", "preferred_username": "alice"}},
    {"answer": b'{"access_token": "x", "token_type": "Bearer", "userinfo": %s}' % UNSIGNED},
    {"answer": b"[]"},
    {"answer": b"nonsense"},
    {"answer": b'{"error": "invalid_grant"}'},
    {"answer": b"{" + b" " * limits.PROVIDER_BYTES + b"}"},
]


async def test_a_token_that_is_not_for_us_now_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINKS_BURST", len(LIES) + 1)
    async with lied_to(tmp_path) as (w, liar), visit(w) as mallory:
        for lie in LIES:
            honest = {name: getattr(liar, name) for name in lie}
            for name, value in lie.items():
                setattr(liar, name, value)
            refused = await mallory.get(liar.comes_back(await leave(mallory)))
            assert refused.status_code == 502, (lie, refused.text)
            await assert_nobody(mallory)
            for name, value in honest.items():
                setattr(liar, name, value)
        assert await w.store.people() == ()
        assert (await mallory.get(liar.comes_back(await leave(mallory)))).status_code == 200, "the truth is enough"
        (_, form) = liar.asked[-1]
        assert len(form["code_verifier"][0]) >= 43


async def test_a_provider_may_change_its_keys_and_a_client_may_be_without_a_secret(tmp_path: Path) -> None:
    async with lied_to(tmp_path, client_secret_file=None) as (w, liar), visit(w) as alice:
        assert (await alice.get(liar.comes_back(await leave(alice)))).status_code == 200
        liar.key, liar.header = ECKey.generate_key("P-256", {"kid": "2"}), {"alg": "ES256", "kid": "2"}
        assert (await alice.get(liar.comes_back(await leave(alice)))).status_code == 200
        (_, form) = liar.asked[-1]
        assert form["client_id"] == ["gateway"] and "client_secret" not in form


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"id_token_signing_alg_values_supported": ["HS256", "none"]},
    ],
)
async def test_a_provider_that_is_another_or_cannot_be_trusted_gets_nobody(
    tmp_path: Path, metadata: dict[str, Any]
) -> None:
    async with lied_to(tmp_path) as (w, liar), visit(w) as alice:
        liar.metadata = metadata
        answer = await alice.post("/sign-in/provider", {})
        assert answer.status_code == 502 and "does not work now" in answer.json()["error"]


async def test_what_a_provider_says_of_itself_sets_nothing_else(tmp_path: Path) -> None:
    async with lied_to(tmp_path) as (w, liar), visit(w) as alice:
        liar.metadata = {"verify": False, "proxy": "http://evil.example", "headers": {"x": "y"}, "scope": "everything"}
        sent_to = await leave(alice)
        assert "scope=openid+profile" in sent_to and "everything" not in sent_to
        assert (await alice.get(liar.comes_back(sent_to))).status_code == 200


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example", "/holds\\..", "/holds/../..",
        "javascript:alert(1)", "/holds\n//evil.example", " /holds", "/holds#x", "/holds?a#b",
        '/holds?"><b>', "/nowhere",
        "/token", "holds", "/holds//x", "/static/page.js", "/sign-in/callback?code=x", "/%2f%2fevil.example",
        "/holds" + "x" * 4096, "/holds?" + "x" * 4096,
    ],
)  # fmt: skip
def test_nobody_is_sent_elsewhere_after_signing_in(elsewhere: str) -> None:
    with pytest.raises(InputError):
        next_page(elsewhere)


def test_every_page_of_ours_can_be_come_back_to_with_whatever_a_client_put_into_its_query() -> None:
    for ours in (
        "/holds",
        "/holds/h_4kq",
        "/passkeys",
        "/access",
        "/authorize?state={a|b}&redirect_uri=http://[::1]:7/x",
    ):
        assert next_page(ours) == ours
    assert next_page("") == next_page("/") == "/holds"


async def test_a_next_page_that_is_none_of_ours_begins_no_sign_in(tmp_path: Path) -> None:
    async with lied_to(tmp_path) as (w, _), visit(w) as alice:
        for elsewhere in ("https://evil.example/", "//evil.example", "/\\evil.example"):
            answer = await alice.post("/sign-in/provider", {"next": elsewhere})
            assert answer.status_code == 400 and "set-cookie" not in answer.headers


async def test_another_site_begins_no_sign_in(tmp_path: Path) -> None:
    async with lied_to(tmp_path) as (w, _), visit(w) as alice:
        for origin in ("https://evil.example", "null", f"http://localhost:{w.config.listen_port + 1}"):
            assert (await alice.post("/sign-in/provider", {}, origin=origin)).status_code == 403
        assert (await alice.get("/sign-in/provider")).status_code == 405


async def test_a_sign_in_never_takes_a_cookie_that_was_there_before(tmp_path: Path) -> None:
    async with lied_to(tmp_path) as (w, liar), visit(w) as alice, visit(w) as mallory:
        name = f"mcp-authz-{w.config.listen_port}"
        planted = "A" * 43
        path = liar.comes_back(await leave(alice))
        way = f"{name}-way={alice.http.cookies[f'{name}-way']}"
        answer = await alice.get(path, cookie=f"{name}={planted}; {way}")
        assert answer.status_code == 200 and alice.http.cookies[name] != planted
        assert (await mallory.get("/holds", cookie=f"{name}={planted}")).status_code == 401


async def test_guessed_one_time_links_have_to_wait(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, visit(w) as mallory:
        await w.person("alice")
        told = [(await mallory.get(f"/welcome/{number:043d}")).status_code for number in range(limits.LINKS_BURST + 2)]
        assert told == [404] * limits.LINKS_BURST + [429] * 2
        assert (await mallory.post("/welcome/AAAA/question", {})).status_code == 429
        assert (await mallory.post("/sign-in/question", {})).status_code == 200, "other ways in stay open"


async def test_whoever_gets_links_wrong_keeps_nobody_behind_the_same_address_from_a_right_one(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, visit(w) as mallory, visit(w) as alice:
        await w.person("alice")
        for number in range(limits.LINKS_BURST + 2):
            told = await mallory.get(f"/welcome/{number:043d}")
        assert told.status_code == 429
        path = await alice.invite("alice")
        assert (await alice.get(path)).status_code == 200
        assert (await alice.register(path)).status_code == 200


async def test_whoever_brings_false_answers_keeps_nobody_behind_the_same_address_from_signing_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINKS_BURST", 2)
    async with lied_to(tmp_path) as (w, liar), visit(w) as mallory, visit(w) as alice:
        liar.id_token = "nonsense"
        told = [(await mallory.get(liar.comes_back(await leave(mallory)))).status_code for _ in range(4)]
        assert told == [502, 502, 429, 429]
        liar.id_token = None
        assert (await alice.get(liar.comes_back(await leave(alice)))).status_code == 200
