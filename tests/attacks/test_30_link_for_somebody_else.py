"""Row 30: the link to alice's held call is opened by bob. Who is signed in counts, never who has the link."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_authz.model import HoldState
from mcp_authz.revocation import Revocation
from tests.web.asking import agree, asks, client, grants, question
from tests.web.authenticator import visit, visiting
from tests.web.elsewhere import employee, house
from tests.world import OPERATOR, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}


def inner(page: str) -> str:
    """What stands in a page's body; the body itself says when it was written."""
    return page.split("<body")[1].split(">", 1)[1]


async def test_bob_learns_nothing_of_a_call_that_waits_for_alice(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("bob")
        call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
        async with visiting(w, "bob") as bob:
            theirs, none = await bob.get(f"/holds/{call.hold}"), await bob.get("/holds/h_nothing")
            assert theirs.status_code == none.status_code == 404
            assert inner(theirs.text.replace(call.hold, "h_nothing")) == inner(none.text), "as if there were none"
            for told in ("coder", "acme", "deploy", "1.4.0", "alice"):
                assert told not in theirs.text
            assert call.hold not in (await bob.get("/holds")).text


async def test_a_link_that_alices_client_gave_out_leads_alice_on_and_nobody_else(tmp_path: Path) -> None:
    rule = {"by": ["subject", "user:bob"], "quorum": 2}
    async with world(tmp_path, approval={"destructive": rule}) as w:
        for name in ("bob", "carol"):
            await w.person(name)
        call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
        link = f"/holds/{call.hold}/asked"
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob, visiting(w, "carol") as carol:
            to_alice = await alice.get(link)
            assert (to_alice.status_code, to_alice.headers["location"]) == (303, f"/holds/{call.hold}")
            none = await carol.get("/holds/h_nothing/asked")
            for them in (bob, carol):  # also somebody who may answer, and finds the call in their own list
                answer = await them.get(link)
                assert answer.status_code == 404 and "This link is for the person" in answer.text
                for told in ("coder", "acme", "deploy", "1.4.0", "alice"):
                    assert told not in answer.text
            theirs = (await carol.get(link)).text.replace(call.hold, "h_nothing")
            assert inner(theirs) == inner(none.text), "as if there were none"
            assert call.hold in (await bob.get("/holds")).text
        async with visit(w) as nobody:
            assert (await nobody.get(link)).status_code == 401
            nobody.passkey = alice.passkey
            assert (await nobody.sign_in()).status_code == 200
            assert (await nobody.get(link)).status_code == 303


async def test_the_link_leads_nobody_on_where_the_person_may_not_answer_their_own_call(tmp_path: Path) -> None:
    rule = {"by": ["owner", "user:bob"], "outside_chain": True}
    async with world(tmp_path, approval={"destructive": rule}) as w:
        await w.person("bob")
        call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob:
            for them in (alice, bob):
                assert (await them.get(f"/holds/{call.hold}/asked")).status_code == 404


@pytest.mark.parametrize("verb", ["question", "approve", "deny"])
async def test_bob_answers_nothing_that_waits_for_alice(tmp_path: Path, verb: str) -> None:
    async with world(tmp_path) as w:
        await w.person("bob")
        call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
        async with visiting(w, "bob") as bob:
            answer = await bob.post(f"/holds/{call.hold}/{verb}", {"reason": "", "nonce": "AAAA", "answer": {}})
            assert answer.status_code == 404
        assert (await w.store.hold(call.hold)).state is HoldState.PENDING


async def test_bob_cannot_finish_what_alice_began_in_her_browser(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"destructive": {"by": ["subject", "user:bob"]}}) as w:
        await w.person("bob")
        call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob:
            nonce, options = await alice.question(f"/holds/{call.hold}")
            body = {"nonce": nonce, "answer": bob.passkey.show(options, bob.origin)}
            assert (await bob.post(f"/holds/{call.hold}/approve", body)).status_code == 409

            nonce, options = await alice.question(f"/holds/{call.hold}")
            body = {"nonce": nonce, "answer": bob.passkey.show(options, bob.origin)}
            assert (await alice.post(f"/holds/{call.hold}/approve", body)).status_code == 409
        assert (await w.store.hold(call.hold)).state is HoldState.PENDING


async def test_the_person_who_acts_for_themselves_is_kept_out_where_the_rule_wants_somebody_else(
    tmp_path: Path,
) -> None:
    rule = {"by": ["owner", "user:bob"], "outside_chain": True}
    async with world(tmp_path, approval={"destructive": rule}) as w:
        await w.person("bob")
        call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob:
            assert (await alice.get(f"/holds/{call.hold}")).status_code == 404
            assert (await bob.approve(call.hold)).json()["state"] == "approved"


async def test_a_person_who_was_revoked_answers_nothing_with_the_browser_they_left_open(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"destructive": {"by": ["user:bob"]}}) as w:
        await w.person("bob")
        call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
        async with visiting(w, "bob") as bob:
            nonce, options = await bob.question(f"/holds/{call.hold}")
            shown = bob.passkey.show(options, bob.origin)
            await Revocation(w.store, w.clock).revoke("person", "bob", reason="left", by=OPERATOR)
            answer = await bob.post(f"/holds/{call.hold}/approve", {"nonce": nonce, "answer": shown})
            assert answer.status_code == 401
            assert (await bob.sign_in()).status_code == 404
        assert (await w.store.hold(call.hold)).state is HoldState.PENDING


async def test_a_link_of_alices_client_that_bob_opens_asks_bob_and_makes_bobs_agent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        await w.person("bob")
        by = await client(w)
        query = asks(by, scope="pr:read")
        async with visiting(w, "bob") as bob:
            page = (await bob.get(f"/authorize?{query}")).text
            assert "cursor@bob" in page and "alice" not in page
            assert (await agree(bob, query, ["pr:read:*:*"])).status_code == 200
        (grant,) = await grants(w)
        assert (grant.subject, grant.agent) == ("bob", "cursor@bob")
        assert await w.store.client_agent(by.id, "alice") is None


async def test_bob_cannot_finish_the_consent_that_alice_began(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        await w.person("bob")
        by = await client(w)
        query = asks(by, scope="pr:read")
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob:
            for them, sender, status in ((bob, bob, 409), (alice, bob, 409), (bob, alice, 409)):
                nonce, options = await question(alice, query, ["pr:read:*:*"])
                body = {"nonce": nonce, "answer": them.passkey.show(options, bob.origin)}
                assert (await sender.post("/authorize/agree", body)).status_code == status
        assert await grants(w) == []


async def test_whoever_signs_in_as_somebody_else_with_the_provider_answers_nothing_of_the_persons(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as (w, _), employee(w) as (_, hers), employee(w, "1002") as (bob, his):
        call = await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)
        assert (await bob.get(f"/holds/{call.hold}")).status_code == 404
        for half in (his, hers):
            answer = await bob.post(f"/holds/{call.hold}/approve-signed-in", {"reason": "", "half": half})
            assert answer.status_code == 404
        assert (await w.store.hold(call.hold)).state is HoldState.PENDING


async def test_a_consent_is_finished_in_the_browser_that_it_was_begun_in(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        query = asks(await client(w), scope="pr:read")
        async with visiting(w, "alice") as alice, visit(w) as stolen:
            stolen.passkey = alice.passkey
            assert (await stolen.sign_in()).status_code == 200
            nonce, options = await question(stolen, query, ["pr:read:*:*"])
            body = {"nonce": nonce, "answer": alice.passkey.show(options, alice.origin)}
            assert (await alice.post("/authorize/agree", body)).status_code == 409
        assert await grants(w) == []
