"""Threat 65: whoever brings an answer says that it is a strong one; how sure it is follows from how it came."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.errors import AuthzError, Conflict, SignatureRefused
from mcp_authz.hearing import PageAnswer
from mcp_authz.model import Assurance, HeldCall
from mcp_authz.passkey import SignIn
from mcp_authz.principals import Authentication, PersonName
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey, b64url
from mcp_authz.rules.verdict import TYP, SignInProof, make_statement
from mcp_authz.standing_approvals import Wish
from mcp_authz.web.facts import way_to_approve
from tests.web.authenticator import visiting
from tests.world import World, incident_server, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
PASSKEY = {"destructive": {"by": ["subject"], "assurance": "passkey"}}
PROOF = {"credential": "AA", "authenticator_data": "AA", "client_data": "AA", "signature": "AA", "nonce": "AA"}


async def held_call(w: World) -> HeldCall:
    coder = await w.ready("coder", "deploy")
    held: HeldCall | None = await w.store.hold((await w.call(coder, "acme__deploy", **DEPLOY)).hold)
    assert held is not None
    return held


def statement(w: World, held: HeldCall, key: PrivateKey, **claims: Any) -> str:
    """alice's verdict as she would sign it, with claims that she makes up."""
    own = make_statement(
        held,
        person=PersonName("alice"),
        approve=True,
        assurance=Assurance.PASSKEY,
        reason="",
        at=w.clock(),
        key=key,
        proof=PROOF,
    )
    body: Mapping[str, Any] = jose.read(own).claims
    return jose.sign({**body, **claims}, typ=TYP, key=key, kid=key.public.thumbprint)


@pytest.mark.parametrize("asked", ["signed-in", "passkey"])
async def test_a_statement_that_calls_itself_a_passkeys_is_no_verdict_and_on_no_record(
    tmp_path: Path, asked: str
) -> None:
    async with world(tmp_path, approval={"destructive": {"by": ["subject"], "assurance": asked}}) as w:
        held, key = await held_call(w), w.approvers["alice"]
        for claims in ({"assurance": "passkey"}, {"assurance": "signed-in"}, {"assurance": None, "proof": None}):
            with pytest.raises(SignatureRefused, match="says more of itself"):
                await w.running.approvals.hear_signed(held.id, PersonName("alice"), statement(w, held, key, **claims))
        assert (await w.store.hold(held.id)).verdicts == () and not await w.records("approval")


async def test_a_statement_of_a_key_that_no_person_has_is_no_verdict(tmp_path: Path) -> None:
    async with world(tmp_path, approval=PASSKEY) as w:
        held = await held_call(w)
        with pytest.raises(AuthzError):
            await w.running.approvals.hear_signed(
                held.id, PersonName("alice"), statement(w, held, PrivateKey.generate())
            )
        with pytest.raises(AuthzError):
            await w.running.approvals.hear_signed(
                held.id, PersonName("nobody"), statement(w, held, w.approvers["alice"], sub="user:nobody")
            )
        assert (await w.store.hold(held.id)).verdicts == ()


async def test_the_word_of_a_client_is_never_more_than_that(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        hold = (await w.call(coder, "acme__deploy", **DEPLOY)).hold
        heard = await w.running.approvals.hear_client(hold, approve=True)
        (verdict,) = heard.verdicts
        said = jose.read(verdict.statement).claims
        assert verdict.assurance is Assurance.CLIENT and said["assurance"] == "client"
        assert said["act_s256"] == b64url(heard.digest)


async def test_an_approval_that_is_too_little_for_one_of_a_persons_rules_does_not_take_their_one_word(
    tmp_path: Path,
) -> None:
    server = incident_server(tmp_path)
    server["tools"]["deploy"]["approval"] = "release"
    rules = {
        "destructive": {"by": ["subject"], "assurance": "signed-in"},
        "release": {"by": ["subject", "group:leads"], "assurance": "passkey"},
    }
    async with world(tmp_path, approval=rules, servers={"acme": server}) as w:
        held, alice = await held_call(w), PersonName("alice")
        too_little = "stronger proof than `signed-in`"
        with pytest.raises(Conflict, match=too_little):
            await w.answer(held.id, by="alice")
        proof = SignInProof(issuer="https://login.example.com", amr=(), at=w.clock())
        with pytest.raises(Conflict, match=too_little):
            await w.running.approvals.hear_page(
                held.id, PageAnswer(person=alice, approve=True, reason="", terms={}, proof=proof)
            )
        standing = w.running.standing_approvals
        with pytest.raises(Conflict, match=too_little):
            await standing.give_page(await standing.draft(held.id, alice, Wish(calls=1), reason=""), proof)
        assert (await w.store.hold(held.id)).verdicts == ()

        # The page says so before, and a passkey is enough for all of them.
        who = await w.store.person(alice)
        now = w.clock()
        known = SignIn(
            digest=bytes(32),
            person=alice,
            credential=None,
            authentication=Authentication(at=now, amr=(), issuer=proof.issuer),
            began_at=now,
            last_used_at=now,
            expires_at=now + timedelta(hours=1),
        )
        assert way_to_approve(held, who, known, passkeys=()) == "none"
        async with visiting(w, "alice") as browser:
            assert (await browser.approve(held.id)).json()["state"] == "approved"
