"""The page where a client asks a person: what they see, what their answer makes, and where it goes."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest

from mcp_authz.accounts import Accounts
from mcp_authz.errors import FetchRefused
from mcp_authz.fetching import Fetcher
from mcp_authz.model import ToolName
from mcp_authz.principals import AgentName, Authentication, PersonName, SessionId
from mcp_authz.rules.scope import Scope
from mcp_authz.step_ups import StepUp
from mcp_authz.web.consent_facts import ShownScope, ShownTool
from tests.web.asking import LOOPBACK, agree, answer, asks, client, grants, question
from tests.web.authenticator import Visit, visit, visiting
from tests.world import World, world

READ, MERGE = "pr:read:*:*", "pr:merge:*:*"
WEB = "https://cursor.example/callback"


def ticked(page: str) -> dict[str, bool]:
    """Every scope that the page has a box for, and whether it is ticked."""
    boxes = re.findall(r'<input type="checkbox" name="scopes"[^>]*>', page)
    return {found[1]: " checked" in one for one in boxes if (found := re.search(r'value="([^"]*)"', one))}


def words(page: str) -> str:
    """What a person reads."""
    inside = page.split("<main")[1].split("</main>", maxsplit=1)[0]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", inside)))


async def signed_in_elsewhere(w: World, them: Visit, name: str) -> str:
    """An OpenID provider vouched for the person a moment ago; the half of their sign-in that is no cookie."""
    accounts = Accounts(w.store, w.clock)
    said = Authentication(at=w.clock(), amr=("pwd",), issuer="https://login.example.com")
    token = await accounts.sign_in_elsewhere(PersonName(name), said)
    them.http.cookies.set(f"mcp-authz-{w.config.listen_port}", token, domain="localhost.local")
    return await accounts.other_half(token)


async def test_the_page_says_who_asks_where_the_answer_goes_and_who_will_act(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        known = {
            "Let Cursor act for you? cursor.example a program on this computer cursor@alice Any program on this": (
                await client(w)
            ),
            "Let Claude act for you? claude.example claude.example:8443 claude@alice": await client(
                w, "Claude", to="https://claude.example:8443/callback"
            ),
            "Let Zed act for you? it registered itself the application that opens “zed:” links zed@alice": await client(
                w, "Zed", kind="dynamic", to="zed://callback"
            ),
            "Let Portal act for you? whoever runs this gateway registered it portal.example": await client(
                w, "Portal", kind="registered", to="https://portal.example/callback"
            ),
        }
        async with visiting(w, "alice") as alice:
            for parts, by in known.items():
                page = await alice.get(f"/authorize?{asks(by)}")
                assert page.status_code == 200, page.text
                assert re.search(re.sub(r" (?=\S)", ".*", re.escape(parts).replace(r"\ ", " ")), words(page.text)), (
                    parts,
                    words(page.text),
                )
                assert ("Go on only if you started this yourself" in words(page.text)) == (
                    by.kind == "dynamic" or by.redirect_uris[0].startswith("http://")
                )


async def test_a_client_that_leaves_the_choice_is_offered_everything_and_what_only_reads_is_ticked(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, scopes={"pr:read": "Read pull requests"}) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            page = (await alice.get(f"/authorize?{asks(by, scope='mcp:connect')}")).text
            boxes = ticked(page)
            assert {scope for scope, is_ticked in boxes.items() if is_ticked} >= {READ, "secret:read"}
            assert not any(boxes[scope] for scope in ("pr:write:*:*", "deploy:*", MERGE))
            assert "acme:completion" not in boxes  # its server has none
            assert list(boxes)[:2] == [READ, "secret:read"]  # resources and prompts come after what tools need
            assert "Read pull requests" in words(page)

            page = (await alice.get(f"/authorize?{asks(by, scope='pr:read pr:merge')}")).text
            assert ticked(page) == {READ: True, MERGE: True}
            assert "merge_pull_request" in words(page) and "asked again each time" in words(page)


async def test_agreeing_makes_a_grant_of_what_was_ticked_and_a_code_for_the_client(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            went = await agree(alice, asks(by), [READ], 7)
            assert went.status_code == 200, went.text
            assert went.json()["next"].startswith(f"{LOOPBACK}?")
            assert went.headers["cache-control"] == "no-store" and went.headers["referrer-policy"] == "no-referrer"
            told = answer(went)
            assert set(told) == {"code", "state", "iss"} and (told["state"], told["iss"]) == ("s-1", alice.origin)
        (grant,) = await grants(w)
        assert (grant.agent, grant.subject, set(grant.scope)) == ("cursor@alice", "alice", {READ})
        assert timedelta(days=6, hours=23) < grant.expires_at - w.clock() <= timedelta(days=7)
        assert grant.authentication is not None and grant.authentication.amr == ("swk", "user")
        log = "".join(str(record) for record in await w.records())
        assert told["code"] not in log and "days" not in told


async def test_saying_no_tells_the_client_so_and_makes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            went = await alice.post("/authorize/refuse", {"query": asks(by)})
            assert answer(went).items() >= {"error": "access_denied", "state": "s-1", "iss": alice.origin}.items()
        assert await grants(w) == []
        assert [one.event.fields["decision"] for one in await w.records("grant")] == ["deny"]


async def test_what_was_agreed_to_before_is_folded_and_only_the_difference_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            await agree(alice, asks(by), [READ])
            w.clock.advance(timedelta(seconds=2))
            w.running.step_ups.note(
                StepUp(
                    agent=AgentName("cursor@alice"),
                    session=SessionId("s_1"),
                    tool=ToolName("acme__merge_pull_request"),
                    scopes=(Scope("pr:merge:acme:api"),),
                    at=w.clock(),
                )
            )
            query = asks(by, scope="pr:read:acme:api pr:merge:acme:api")
            page = (await alice.get(f"/authorize?{query}")).text
            assert "Cursor tried to use acme__merge_pull_request, which needs more" in words(page)
            assert "What it may do as well" in words(page) and "What it may do already (1)" in words(page)
            assert ticked(page) == {"pr:merge:acme:api": True, "pr:read:acme:api": True}
            assert (await agree(alice, query, ["pr:merge:acme:api"])).status_code == 200
            assert "tried to use" not in (await alice.get(f"/authorize?{query}")).text
        assert [set(grant.scope) for grant in await grants(w)] == [{READ}, {"pr:merge:acme:api"}]


async def test_whoever_is_not_signed_in_signs_in_at_the_same_address(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        for by in (await client(w), await client(w, "Portal", kind="registered", to=WEB)):
            async with visit(w) as stranger:
                page = await stranger.get(f"/authorize?{asks(by)}", sec_fetch_site="cross-site")
                assert page.status_code == 401 and "data-sign-in" in page.text and "location" not in page.headers
                assert (await stranger.post("/authorize/refuse", {"query": asks(by)})).status_code == 401


async def test_a_client_is_not_fetched_for_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    async def fetch(_: Fetcher, url: str) -> bytes:
        fetched.append(url)
        raise FetchRefused("there is nothing there")

    monkeypatch.setattr(Fetcher, "__call__", fetch)
    async with world(tmp_path, servers={}) as w:
        await w.person("alice")
        path = "/authorize?client_id=https%3A%2F%2Finside.example%2Fclient.json"
        async with visit(w) as stranger:
            assert (await stranger.get(path)).status_code == 401 and fetched == []
        async with visiting(w, "alice") as alice:
            page = await alice.get(path)
            assert page.status_code == 404 and fetched == ["https://inside.example/client.json"]


async def test_a_request_that_nobody_can_be_told_of_is_a_page_and_leads_nowhere(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w, "Portal", kind="registered", to=WEB)
        wrong = {
            "": 400,
            "client_id=nobody&redirect_uri=https%3A%2F%2Fevil.example%2F": 404,
            asks(by, client_id="client_other"): 404,
            asks(by, redirect_uri="https://evil.example/callback"): 400,
            asks(by, redirect_uri=f"{WEB}/"): 400,
            f"{asks(by)}&client_id={by.id}": 400,
            f"{asks(by)}&redirect_uri=https%3A%2F%2Fevil.example": 400,
            f"{asks(by)}&x=%ff": 400,
            f"{asks(by)}&x=%": 400,
            asks(by, state="s" * 5000): 400,
            f"{asks(by)}&x={'y' * 20000}": 400,
        }
        async with visiting(w, "alice") as alice:
            for query, status in wrong.items():
                page = await alice.get(f"/authorize?{query}")
                assert page.status_code == status, (query, page.text)
                assert "location" not in page.headers and "data-leave" not in page.text
                assert "evil.example" not in page.text


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"response_type": "token"}, "unsupported_response_type"), ({"response_type": None}, "invalid_request"),
     ({"code_challenge": None}, "invalid_request"), ({"code_challenge_method": "plain"}, "invalid_request"),
     ({"code_challenge_method": None}, "invalid_request"), ({"resource": "https://other.example"}, "invalid_target"),
     ({"scope": 'a"b'}, "invalid_scope"), ({"request_uri": "https://x.example"}, "request_uri_not_supported")],
)  # fmt: skip
async def test_a_wrong_request_goes_back_by_itself_only_to_a_client_that_an_operator_vouches_for(
    tmp_path: Path, changes: dict[str, str | None], error: str
) -> None:
    async with world(tmp_path, servers={}) as w:
        await w.person("alice")
        registered = await client(w, "Portal", kind="registered", to=WEB)
        others = (await client(w), await client(w, "Dyn", kind="dynamic", to="https://dyn.example/cb"))
        async with visiting(w, "alice") as alice:
            went = await alice.get(f"/authorize?{asks(registered, **changes)}")
            assert went.status_code == 303 and went.headers["location"].startswith(f"{WEB}?")
            assert answer(went).items() >= {"error": error, "state": "s-1", "iss": alice.origin}.items()
            for by in others:
                page = await alice.get(f"/authorize?{asks(by, **changes)}")
                assert page.status_code == 400 and "location" not in page.headers
                assert f"Return to {by.name} (" in words(page.text) and f"error={error}" in page.text
                refused = await alice.post(
                    "/authorize/question", {"query": asks(by, **changes), "scopes": [], "days": 1}
                )
                assert refused.status_code == 400


async def test_a_client_that_wants_no_page_gets_an_answer_only_where_it_is_known(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        registered = await client(w, "Portal", kind="registered", to=WEB)
        proved = await client(w, "Proved", to="https://proved.example/cb", method="private_key_jwt", jwks={"keys": []})
        others = (await client(w), await client(w, "Dyn", kind="dynamic", to="https://dyn.example/cb"))
        async with visit(w) as stranger:
            went = await stranger.get(f"/authorize?{asks(registered, prompt='none')}")
            assert went.status_code == 303 and answer(went)["error"] == "login_required"
            page = await stranger.get(f"/authorize?{asks(registered, prompt='none')}", sec_fetch_site="cross-site")
            assert page.status_code == 200 and "data-silent" in page.text, "the cookie may have stayed behind"
            for by in (proved, *others):
                assert (await stranger.get(f"/authorize?{asks(by, prompt='none')}")).status_code == 401
        async with visiting(w, "alice") as alice:
            went = await alice.get(f"/authorize?{asks(registered, prompt='none')}")
            assert went.status_code == 303 and answer(went)["error"] == "interaction_required"
            for by in (proved, *others):
                assert (await alice.get(f"/authorize?{asks(by, prompt='none')}")).status_code == 200
            await agree(alice, asks(proved, scope=READ), [READ])
            went = await alice.get(f"/authorize?{asks(proved, scope=f'{READ} {MERGE}', prompt='none')}")
            assert went.status_code == 303 and answer(went)["error"] == "interaction_required"


async def test_whom_a_provider_vouches_for_agrees_with_a_sign_in_of_just_now_and_both_halves_of_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        await w.person("bob")
        by = await client(w)
        async with visit(w) as bob:
            half = await signed_in_elsewhere(w, bob, "bob")
            page = (await bob.get(f"/authorize?{asks(by)}")).text
            assert '<button type="button" class="primary" data-agree>Agree</button>' in page
            nonce, options = await question(bob, asks(by), [READ])
            assert options is None
            for wrong in ({}, {"half": ""}, {"half": "x"}):
                refused = await bob.post("/authorize/agree", {"nonce": nonce, **wrong})
                assert refused.status_code == 409
                nonce, _ = await question(bob, asks(by), [READ])
            went = await bob.post("/authorize/agree", {"nonce": nonce, "half": half})
            assert went.status_code == 200 and "code" in answer(went)
            (grant,) = await grants(w)
            assert grant.authentication is not None
            assert grant.authentication.issuer == "https://login.example.com"

            nonce, _ = await question(bob, asks(by), [READ])
            w.clock.advance(timedelta(minutes=4))
            assert (await bob.post("/authorize/agree", {"nonce": nonce, "half": half})).status_code == 200
            w.clock.advance(timedelta(minutes=12))
            late = await bob.get(f"/authorize?{asks(by)}")
            assert late.status_code == 401 and "Sign in again" in late.text and "data-again" in late.text
            body = {"query": asks(by), "scopes": [READ], "days": 1}
            again = await bob.post("/authorize/question", body)
            assert again.status_code == 401 and again.json()["again"] is True
            assert (await bob.post("/authorize/refuse", {"query": asks(by)})).status_code == 200


async def test_hidden_and_borrowed_letters_in_a_name_are_shown(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await w.person("alice")
        by = await client(w, "Curs\u03bfr\u3164 \u202e<b>x</b>" + "y" * 100)
        async with visiting(w, "alice") as alice:
            page = (await alice.get(f"/authorize?{asks(by)}")).text
            for hidden in ("\u3164", "\u202e", "<b>x</b>", "y" * 64):
                assert hidden not in page
            assert "\\u{3164}" in page and "\\u{202e}" in page and "&lt;b&gt;x&lt;/b&gt;" in page
            assert "not the ones that they look like" in words(page)


async def test_an_agent_that_is_to_act_in_the_clients_place_is_named_with_its_owner(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("bob")
        await w.person("alice")
        await w.agent("coder", ceiling="pr:read", owner="bob")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            page = (await alice.get(f"/authorize?{asks(by, requested_actor='agent:coder')}")).text
            assert "the agent coder of bob" in words(page) and ticked(page) == {"pr:read": True}
            nobody = await alice.get(f"/authorize?{asks(by, requested_actor='agent:nobody')}")
            assert nobody.status_code == 409 and "no agent `nobody`" in nobody.text


async def test_many_tools_of_one_scope_are_folded(tmp_path: Path) -> None:
    tools = tuple(ShownTool(name=f"t{n}", server="", held=n == 1) for n in range(9))
    row = ShownScope(scope="a", words="A", hazard="read", hazard_says="", tools=tools, chosen=True)
    assert row.is_folded and row.held == "some" and row.names == "t0, t1, t2, t3, t4, t5, 3 more"
