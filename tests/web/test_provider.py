"""People sign in with their company's OpenID provider: a real one, which nobody here wrote."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.agents import People
from mcp_authz.authorization import Identity
from mcp_authz.errors import ConfigError
from mcp_authz.people_elsewhere import link
from mcp_authz.principals import PersonName
from mcp_authz.revocation import Revocation
from tests.web.authenticator import visit, visiting
from tests.web.elsewhere import (
    CLIENT,
    at_the_company,
    come_back,
    employee,
    house,
    leave,
    sign_in,
)
from tests.world import OPERATOR, world

ALICE = PersonName("alice")


async def test_whoever_the_company_knows_is_registered_and_signed_in_with_the_groups_it_gives(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, theirs), visit(w) as alice:
        arrived = await sign_in(alice)
        assert arrived.status_code == 200 and "<h1>Signed in as alice</h1>" in arrived.text, arrived.text
        assert 'data-next="/holds"' in arrived.text

        assert 'Signed in as </span><a href="/person/alice"><b>alice</b>' in (await alice.get("/holds")).text
        person = await w.store.person(ALICE)
        assert person.groups == {"approvers"}, "a group that is not in the table counts for nothing"
        identity = await w.store.identity(theirs.issuer, "1001")
        assert identity is not None and identity.person == "alice"
        (event,) = [record.event.fields for record in await w.records("sign-in")]
        assert event["person"] == "user:alice" and event["issuer"] == theirs.issuer
        (kept,) = await w.store.sign_ins_of(ALICE)
        assert kept.credential is None and kept.authentication.issuer == theirs.issuer
        assert abs(kept.authentication.at - w.clock()) < timedelta(minutes=1)


async def test_what_is_asked_of_the_provider_is_bound_to_this_browser(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, theirs), visit(w) as alice:
        url = await leave(alice)
        for part in (
            f"{theirs.issuer}/auth?", "response_type=code", "code_challenge_method=S256", "nonce=", "state=",
            "scope=openid+profile", "max_age=43200",
        ):  # fmt: skip
            assert part in url.replace("%20", "+"), url
        assert "prompt" not in url
        again = await leave(alice, fresh=True)
        assert "prompt=login" in again and "max_age=900" in again


async def test_groups_follow_the_provider_where_the_table_names_them_and_stay_the_operators_elsewhere(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, servers={}) as (w, theirs), visit(w) as alice:
        await People(w.store, w.clock).add("alice", groups=frozenset({"on-call", "approvers"}), by=OPERATOR)
        known = Identity(issuer=theirs.issuer, subject="1001", person=ALICE, linked_at=w.clock())
        await link(w.store, w.clock, known, by=OPERATOR)
        theirs.accounts["1001"]["groups"] = ["everybody"]
        await theirs.tell(accounts=theirs.accounts)

        assert (await sign_in(alice)).status_code == 200
        assert (await w.store.person(ALICE)).groups == {"on-call"}
        changes = [
            r for r in await w.records("administration") if "as their provider says" in r.event.fields["summary"]
        ]
        await sign_in(alice)
        again = [r for r in await w.records("administration") if "as their provider says" in r.event.fields["summary"]]
        assert len(changes) == len(again) == 1, "what stays the same is not recorded again"


async def test_a_provider_makes_nobody_somebody_who_is_here_already(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, theirs), visit(w) as mallory:
        await People(w.store, w.clock).add("alice", groups=frozenset({"admins"}), by=OPERATOR)
        refused = await sign_in(mallory)
        assert refused.status_code == 403
        command = f"mcp-authz user link alice --issuer {theirs.issuer} --subject 1001"
        assert command in refused.text, refused.text
        assert (await mallory.get("/holds")).status_code == 401
        assert await w.store.identities_of(ALICE) == ()

        known = Identity(issuer=theirs.issuer, subject="1001", person=ALICE, linked_at=w.clock())
        await link(w.store, w.clock, known, by=OPERATOR)
        assert (await sign_in(mallory)).status_code == 200


async def test_whoever_was_revoked_here_does_not_come_in_by_the_provider(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, _), visit(w) as alice:
        await sign_in(alice)
        await Revocation(w.store, w.clock).revoke("person", "alice", reason="left", by=OPERATOR)
        assert (await alice.get("/holds")).status_code == 401
        refused = await sign_in(alice)
        assert refused.status_code == 403 and "was revoked here" in refused.text


async def test_a_wrong_client_secret_is_for_the_operator_to_mend(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, theirs), visit(w) as alice:
        callback = f"{w.config.public_url}/sign-in/callback"
        await theirs.tell(client={"client_id": CLIENT, "client_secret": "another", "redirect_uris": [callback]})
        refused = await sign_in(alice)
        assert refused.status_code == 502 and "does not know this gateway (invalid_client)" in refused.text


@pytest.mark.parametrize(
    ("provider", "claims", "says"),
    [
        ({"provision": False}, {}, "Nobody is registered here for you"),
        ({"allowed_groups": ["admins"]}, {}, "in no group that may sign in here"),
        ({}, {"preferred_username": "Älice"}, "makes no name here"),
        ({}, {"preferred_username": "alice@example.com"}, "makes no name here"),
        ({}, {"preferred_username": None}, "does not say `preferred_username` of you"),
        ({}, {"groups": {"eng-approvers": True}}, "that is no list of texts"),
    ],
)  # fmt: skip
async def test_whoever_may_not_come_in_is_told_why(
    tmp_path: Path, provider: dict[str, object], claims: dict[str, object], says: str
) -> None:
    async with house(tmp_path, servers={}, provider=provider) as (w, theirs), visit(w) as alice:
        theirs.accounts["1001"].update(claims)
        await theirs.tell(accounts=theirs.accounts)
        refused = await sign_in(alice)
        assert refused.status_code in {403, 502} and says in refused.text, refused.text
        assert await w.store.people() == ()


async def test_the_part_before_the_at_is_a_name_only_for_the_domain_that_the_operator_named(tmp_path: Path) -> None:
    provider = {"person_claim": "email", "email_domain": "example.com"}
    async with house(tmp_path, servers={}, provider=provider) as (w, theirs), visit(w) as them:
        for email, verified, status in (
            ("eve@example.com.evil.example", True, 403),
            ("eve@evil.example", True, 403),
            ("eve@example.com", False, 403),
            ("Alice@Example.com", True, 200),
        ):
            theirs.accounts["1001"].update(email=email, email_verified=verified)
            await theirs.tell(accounts=theirs.accounts)
            assert (await sign_in(them)).status_code == status, email
        assert [person.name for person in await w.store.people()] == ["alice"]


async def test_signing_in_anew_asks_the_person_anew_and_gives_another_sign_in(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, theirs), employee(w) as (alice, _):
        (first,) = await w.store.sign_ins_of(ALICE)
        w.clock.advance(timedelta(minutes=20))
        await theirs.ahead(timedelta(minutes=20))

        # Who is still signed in there comes back at once, with the time of then.
        url = await leave(alice)
        answer = await alice.http.get(url)
        assert answer.is_redirect and answer.headers["location"].startswith(alice.origin)
        await come_back(alice, answer.headers["location"])
        newest = (await w.store.sign_ins_of(ALICE))[0]
        assert newest.authentication.at == first.authentication.at

        assert (await sign_in(alice, fresh=True)).status_code == 200
        newest = (await w.store.sign_ins_of(ALICE))[0]
        assert newest.authentication.at - first.authentication.at >= timedelta(minutes=19)
        assert newest.authentication.amr == ("pwd", "otp")


async def test_signing_out_everywhere_ends_every_browser_of_the_person_and_no_other(tmp_path: Path) -> None:
    async with (
        house(tmp_path, servers={}) as (w, _),
        employee(w) as (alice, _),
        employee(w) as (there, _),
        employee(w, "1002") as (bob, _),
    ):
        page = (await alice.get("/passkeys")).text
        assert page.count("Another browser") == 1 and page.count("This browser") == 1
        assert (await alice.post("/sign-out/everywhere", {})).json() == {"next": "/holds"}
        assert (await alice.get("/holds")).status_code == (await there.get("/holds")).status_code == 401
        assert (await bob.get("/holds")).status_code == 200
        assert [r.event.fields["summary"] for r in await w.records("sign-in")][-1] == "alice was signed out everywhere"


async def test_a_provider_that_cannot_be_asked_is_said_in_a_sentence_and_passkeys_go_on(tmp_path: Path) -> None:
    provider = {"issuer": "http://localhost:9", "client_id": "gateway", "name": "Example Company"}
    async with world(tmp_path, servers={}, sign_in={"provider": provider}) as w:
        await w.person("alice")
        async with visiting(w, "alice") as alice:
            answer = await alice.post("/sign-in/provider", {})
            assert answer.status_code == 502
            assert answer.json()["error"].startswith(
                "Sign-in with Example Company does not work now: `localhost` cannot"
            )
            assert (await alice.sign_in()).status_code == 200


async def test_whoever_turns_away_at_the_provider_is_told_what_to_do(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, _), visit(w) as alice:
        answer = await come_back(alice, await at_the_company(alice, await leave(alice), ""))
        assert answer.status_code == 502
        assert "Example Company did not sign you in (access_denied); try again." in answer.text


async def test_a_sign_in_that_was_begun_too_long_ago_is_over(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, _), visit(w) as alice:
        url = await at_the_company(alice, await leave(alice), "1001")
        w.clock.advance(limits.PROVIDER_SIGN_IN)
        answer = await come_back(alice, url)
        assert answer.status_code == 409 and "too long ago" in answer.text


async def test_where_passkeys_are_off_nobody_signs_in_with_one(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}, sign_in={"passkeys": False}) as (w, _), visit(w) as alice:
        await w.person("alice")
        page = (await alice.get("/holds")).text
        assert "Sign in with Example Company" in page and "passkey" not in page.split("<main")[1].split("<noscript")[0]
        assert (await alice.register(await alice.invite("alice"))).status_code == 200
        assert (await alice.get("/holds")).status_code == 401
        assert (await alice.post("/sign-in/question", {})).status_code == 409
        assert (await alice.post("/sign-in", {"nonce": "AAAA", "answer": {}})).status_code == 409


async def test_the_clients_secret_is_for_its_owner_alone_to_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    provider = {"issuer": "https://login.example.com", "client_id": "x", "client_secret_file": str(secret)}
    with pytest.raises(ConfigError, match="can be read by others"):
        async with world(tmp_path, servers={}, sign_in={"provider": provider}):
            pass


async def test_the_page_to_come_back_to_is_kept_for_the_way(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, _), visit(w) as alice:
        arrived = await sign_in(alice, next_="/authorize?client_id=x&scope=a%20b")
        assert 'data-next="/authorize?client_id=x&amp;scope=a%20b"' in arrived.text
