"""Approvals without a passkey: by a sign-in of just now that a provider vouches for, where rules ask for no more."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.config import parse_config
from mcp_authz.errors import Conflict
from mcp_authz.hearing import PageAnswer
from mcp_authz.model import Assurance, HoldId, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose
from mcp_authz.rules.verdict import SignInProof
from mcp_authz.settings import approval_floor
from tests.web.authenticator import Visit, visit
from tests.web.elsewhere import employee, half_of, house, sign_in
from tests.world import World

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}


async def held(w: World) -> HoldId:
    """A call of alice's agent that waits."""
    return (await w.call(await w.ready("coder", "deploy:production"), "acme__deploy", **DEPLOY)).hold


async def approve(them: Visit, hold: HoldId, half: str, **more: Any) -> Any:
    return await them.post(f"/holds/{hold}/approve-signed-in", {"reason": "", "half": half, **more})


async def test_a_sign_in_of_just_now_approves_and_the_record_says_who_vouches_for_it(tmp_path: Path) -> None:
    async with house(tmp_path) as (w, theirs), employee(w) as (alice, half):
        hold = await held(w)
        page = (await alice.get(f"/holds/{hold}")).text
        assert ">Approve</button>" in page and "passkey" not in page.split("<main")[1].split("<noscript")[0]

        answer = await approve(alice, hold, half)
        assert answer.json()["state"] == "approved", answer.text
        (verdict,) = (await w.store.hold(hold)).verdicts
        assert verdict.assurance is Assurance.SIGNED_IN
        told = jose.read(verdict.statement).verify(w.running.approvals._gateway_key.public, typ="approval+jwt")
        proof = told["proof"]
        assert (proof["type"], proof["issuer"], proof["amr"]) == ("sign-in", theirs.issuer, ["pwd", "otp"])
        assert abs(proof["auth_time"] - w.clock().timestamp()) < 60


async def test_an_older_sign_in_has_to_be_renewed_first(tmp_path: Path) -> None:
    patient = {"by": ["owner"], "assurance": "signed-in", "expires_minutes": 60}
    async with house(tmp_path, approval={"destructive": patient}) as (w, theirs), employee(w) as (alice, half):
        hold = await held(w)
        w.clock.advance(limits.APPROVAL_SIGN_IN + timedelta(seconds=1))
        await theirs.ahead(limits.APPROVAL_SIGN_IN + timedelta(seconds=1))
        assert "Sign in again to approve" in (await alice.get(f"/holds/{hold}")).text
        refused = await approve(alice, hold, half)
        assert refused.status_code == 401 and refused.json()["again"] is True
        assert (await w.store.hold(hold)).state is HoldState.PENDING

        arrived = await sign_in(alice, next_=f"/holds/{hold}", fresh=True)
        assert f'data-next="/holds/{hold}"' in arrived.text
        assert (await approve(alice, hold, half)).status_code == 409, "the half of the sign-in before"
        assert (await approve(alice, hold, half_of(arrived))).json()["state"] == "approved"


async def test_the_cookie_alone_approves_nothing(tmp_path: Path) -> None:
    # Another port of localhost is sent the cookie; what the page keeps for its own origin it is not.
    async with (
        house(tmp_path) as (w, _),
        employee(w) as (alice, _),
        employee(w, "1002") as (_, bobs),
        visit(w) as thief,
    ):
        hold, name = await held(w), f"mcp-authz-{w.config.listen_port}"
        stolen = f"{name}={alice.http.cookies[name]}"
        for half in ("", "A" * 43, bobs, "é" * 10):
            body = {"reason": "", "half": half}
            refused = await thief.post(f"/holds/{hold}/approve-signed-in", body, cookie=stolen)
            assert refused.status_code == 409, refused.text
            assert "sign out, and sign in again" in refused.json()["error"]
        assert (await w.store.hold(hold)).state is HoldState.PENDING


async def test_a_rule_that_asks_for_a_passkey_gets_one_and_says_how_to_come_to_it(tmp_path: Path) -> None:
    rule = {"by": ["subject"], "assurance": "passkey"}
    async with house(tmp_path, approval={"destructive": rule}) as (w, _), employee(w) as (alice, half):
        hold = await held(w)
        page = (await alice.get(f"/holds/{hold}")).text
        assert "mcp-authz user passkey alice" in page and "data-approve" not in page
        assert (await approve(alice, hold, half)).status_code == 409
        assert (await w.store.hold(hold)).state is HoldState.PENDING


async def test_whoever_has_a_passkey_approves_with_it_however_they_signed_in(tmp_path: Path) -> None:
    async with house(tmp_path) as (w, _), employee(w) as (alice, _):
        assert (await alice.register(await alice.invite("alice"))).status_code == 200
        half = half_of(await sign_in(alice))
        hold = await held(w)
        assert "Approve with passkey" in (await alice.get(f"/holds/{hold}")).text
        assert (await approve(alice, hold, half)).status_code == 409
        assert (await alice.approve(hold)).json()["state"] == "approved"


async def test_a_reason_that_a_rule_asks_for_is_asked_of_everybody(tmp_path: Path) -> None:
    rule = {"by": ["subject"], "assurance": "signed-in", "reason": True}
    async with house(tmp_path, approval={"destructive": rule}) as (w, _), employee(w) as (alice, half):
        hold = await held(w)
        assert (await approve(alice, hold, half)).status_code == 409
        assert (await approve(alice, hold, half, reason="release day")).json()["state"] == "approved"


async def test_an_old_proof_is_refused_wherever_it_comes_from(tmp_path: Path) -> None:
    async with house(tmp_path) as (w, theirs), employee(w):
        hold = await held(w)
        old = w.clock() - limits.APPROVAL_SIGN_IN - timedelta(seconds=1)
        proof = SignInProof(issuer=theirs.issuer, amr=(), at=old)
        answer = PageAnswer(person=PersonName("alice"), approve=True, reason="", terms={}, proof=proof)
        with pytest.raises(Conflict, match="sign in again first"):
            await w.running.approvals.hear_page(hold, answer)


def test_with_a_provider_the_owner_answers_signed_in_unless_the_operator_says_otherwise() -> None:
    provider = {"provider": {"issuer": "https://login.example.com", "client_id": "gateway"}}
    for config, by, assurance in (
        ({}, ("subject",), Assurance.CLIENT),
        ({"sign_in": provider}, ("owner",), Assurance.SIGNED_IN),
        ({"sign_in": provider, "approval": {"destructive": {}}}, ("subject",), Assurance.CLIENT),
    ):
        rule = approval_floor(parse_config(config)).rules["destructive"]
        assert (tuple(rule.by), rule.assurance, rule.outside_chain) == (by, assurance, False)
