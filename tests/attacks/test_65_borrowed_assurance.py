"""Threat 65: whoever brings an answer says that it is a strong one; how sure it is follows from how it came."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.errors import AuthzError
from mcp_authz.model import Assurance, HeldCall, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey, b64url
from mcp_authz.rules.verdict import TYP, make_statement
from tests.world import World, world

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


async def test_a_statement_that_calls_itself_a_passkeys_is_worth_what_its_key_is(tmp_path: Path) -> None:
    async with world(tmp_path, approval=PASSKEY) as w:
        held = await held_call(w)
        with pytest.raises(AuthzError, match="stronger proof than `signed-in`"):
            await w.running.approvals.hear_signed(
                held.id, PersonName("alice"), statement(w, held, w.approvers["alice"], assurance="passkey")
            )
        assert (await w.store.hold(held.id)).state is HoldState.PENDING


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
