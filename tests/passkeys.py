"""People who have a passkey and approve with it: what the page makes of their answer once it has verified it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from mcp_authz.hearing import PageAnswer
from mcp_authz.model import HeldCall, HoldId, StandingId
from mcp_authz.passkey import Invitation, Passkey
from mcp_authz.principals import PersonName
from mcp_authz.rules.keys import b64url, random_bytes
from mcp_authz.rules.standing_approval import read_freed, standing_challenge
from mcp_authz.rules.verdict import PasskeyProof, approval_challenge
from mcp_authz.standing_approvals import Wish
from mcp_authz.store.ports import Event
from tests.standing import ANY
from tests.world import World


async def add_passkey(w: World, person: str, credential: bytes) -> str:
    """The person has this passkey, their first; its name."""
    now, link = w.clock(), random_bytes(32)
    event = Event(kind="enrolment", at=now, fields={})
    name = PersonName(person)
    invitation = Invitation(digest=link, person=name, made_at=now, expires_at=now + timedelta(hours=1))
    await w.store.add_invitation(invitation, event)
    passkey = Passkey(credential=credential, person=name, public_key=b"p", sign_count=0, label="Laptop", added_at=now)
    await w.store.add_invited(passkey, link, event)
    return b64url(credential)


async def approve(w: World, hold: HoldId, *, by: str, credential: bytes) -> None:
    """The held call is approved on the page, with the passkey."""
    held: HeldCall = await w.store.hold(hold)
    nonce = random_bytes(32)
    challenge = approval_challenge(held, person=PersonName(by), reason="", terms={}, nonce=nonce)
    proof = _proof(credential, challenge, nonce)
    answer: dict[str, Any] = {"person": PersonName(by), "approve": True, "reason": "", "terms": {}, "proof": proof}
    await w.running.approvals.hear_page(hold, PageAnswer(**answer))


async def give_standing(w: World, hold: HoldId, *, by: str, credential: bytes, **freed: Any) -> StandingId:
    """The held call is approved on the page, and the next few like it, with the passkey."""
    standing, held, nonce = w.running.standing_approvals, await w.store.hold(hold), random_bytes(32)
    wish = Wish(calls=5, freed={name: read_freed(ANY) for name in freed})
    terms = await standing.draft(hold, PersonName(by), wish, reason="")
    await standing.give_page(terms, _proof(credential, standing_challenge(terms, held, nonce=nonce), nonce))
    return terms.id


def _proof(credential: bytes, challenge: bytes, nonce: bytes) -> PasskeyProof:
    client_data = json.dumps({"challenge": b64url(challenge)}).encode()
    return PasskeyProof(
        credential=credential, authenticator_data=b"a", client_data=client_data, signature=b"s", nonce=nonce
    )
