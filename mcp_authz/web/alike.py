"""On the page, the approval of a call and of the next few like it: what it permits in a sentence, then the passkey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.accounts import Accounts
from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.model import HeldCall, HoldId, StandingId
from mcp_authz.rules.hold import wants_reason
from mcp_authz.rules.keys import b64url, unb64url
from mcp_authz.rules.standing_approval import StandingTerms, read_freed, sentence, standing_challenge
from mcp_authz.rules.verdict import SignInProof
from mcp_authz.standing_approvals import StandingApprovals, Wish
from mcp_authz.web import facts
from mcp_authz.web.challenges import Challenges
from mcp_authz.web.desk import Desk
from mcp_authz.web.door import object_of, read_body, text_of
from mcp_authz.web.passkeys import RelyingParty, credential_of, proof_of
from mcp_authz.web.visitor import Visitor

_NONCE = 64  # characters of base64url; 32 bytes take 43
_SAYS = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Giving:
    """What a person is about to give; the passkey signs over all of it."""

    sign_in: bytes
    terms: StandingTerms


class Alike:
    """Drafts standing approvals from what people choose, and hands them to `StandingApprovals`, which decides."""

    def __init__(self, desk: Desk, *, accounts: Accounts, standing: StandingApprovals, party: RelyingParty) -> None:
        self._desk = desk
        self._accounts = accounts
        self._standing = standing
        self._party = party
        self._giving: Challenges[Giving] = Challenges(desk.clock)

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/holds/{hold}/alike/says", self.says, methods=["POST"]),
            Route("/holds/{hold}/alike/question", self.question, methods=["POST"]),
            Route("/holds/{hold}/alike/approve", self.approve, methods=["POST"]),
            Route("/holds/{hold}/alike/approve-signed-in", self.approve_signed_in, methods=["POST"]),
            Route("/standing/{standing}/end", self.end, methods=["POST"]),
        ]

    async def says(self, request: Request) -> Response:
        """The sentence that the person would sign, and the end that it names."""
        visitor, body = await self._desk.cookies.visitor(request), await read_body(request)
        terms = await self._draft(await self._theirs(request, visitor), visitor, body)
        return JSONResponse({"says": sentence(terms), "until": terms.expires_at.isoformat()})

    async def question(self, request: Request) -> Response:
        """What to show a passkey with in order to approve this call and exactly what the sentence says."""
        visitor, body = await self._desk.cookies.visitor(request), await read_body(request)
        held = await self._theirs(request, visitor)
        terms = await self._draft_as_read(held, visitor, body)
        nonce = self._giving.put(Giving(sign_in=visitor.sign_in.digest, terms=terms))
        known = await self._accounts.passkeys_of(visitor.person.name)
        options = self._party.assertion(known, standing_challenge(terms, held, nonce=nonce))
        return JSONResponse({"nonce": b64url(nonce), "options": options})

    async def approve(self, request: Request) -> Response:
        """The person has approved exactly what their passkey signed."""
        visitor, body = await self._desk.cookies.visitor(request), await read_body(request)
        held = await self._theirs(request, visitor)
        nonce, answer = unb64url(text_of(body, "nonce", most=_NONCE)), object_of(body, "answer")
        asked = self._giving.take(nonce)
        if (asked.terms.hold, asked.sign_in) != (held.id, visitor.sign_in.digest):
            raise Conflict("the passkey was asked about another call; look at this one and try again")
        passkey = await self._accounts.passkey(credential_of(answer))
        if passkey is None or passkey.person != visitor.person.name:
            raise Conflict("this passkey is not one of yours")
        handle = await self._accounts.user_handle(passkey.person)
        challenge = standing_challenge(asked.terms, held, nonce=nonce)
        await self._accounts.use(self._party.shown(answer, passkey, challenge, handle))
        return _heard(await self._standing.give_page(asked.terms, proof_of(answer, nonce)))

    async def approve_signed_in(self, request: Request) -> Response:
        """The person has approved, with a sign-in of just now: they have no passkey, and their rules ask for none."""
        visitor, body = await self._desk.cookies.visitor(request), await read_body(request)
        held = await self._theirs(request, visitor)
        terms = await self._draft_as_read(held, visitor, body)
        known = await self._accounts.passkeys_of(visitor.person.name)
        said = visitor.sign_in.authentication
        way = facts.way_to_approve(held, visitor.person, visitor.sign_in, passkeys=known)
        if way != "sign-in" or said.issuer is None:
            raise Conflict("this call takes a passkey of yours")
        self._desk.cookies.require_fresh(visitor, limits.APPROVAL_SIGN_IN)
        await self._desk.cookies.require_half(visitor, text_of(body, "half", most=_NONCE))
        proof = SignInProof(issuer=said.issuer, amr=said.amr, at=said.at)
        return _heard(await self._standing.give_page(terms, proof))

    async def end(self, request: Request) -> Response:
        """The standing approval has ended; by who gave it, that they are signed in is enough."""
        visitor = await self._desk.cookies.visitor(request)
        id_ = StandingId(request.path_params["standing"])
        standing = await self._desk.store.standing_approval(id_)
        if standing is None or standing.terms.person != visitor.person.name:
            raise NotFound(f"there is no standing approval of {visitor.person.name} here")
        await self._desk.administration.revoke(visitor.actor, "approval", id_, reason="ended on the page")
        return JSONResponse({"next": "/holds"})

    async def _draft(self, held: HeldCall, visitor: Visitor, body: Mapping[str, Any]) -> StandingTerms:
        reason = text_of(body, "reason", most=limits.REASON)
        return await self._standing.draft(held.id, visitor.person.name, self._wish(body), reason=reason)

    async def _draft_as_read(self, held: HeldCall, visitor: Visitor, body: Mapping[str, Any]) -> StandingTerms:
        """The terms, whose sentence is the one that the person had before them, and which would count."""
        terms = await self._draft(held, visitor, body)
        if wants_reason(visitor.person, held) and not terms.reason.strip():
            raise Conflict("a rule of this call wants to know why: write a reason")
        if sentence(terms) != text_of(body, "says", most=_SAYS):
            raise Conflict("what you approve has changed; read it again")
        return terms

    def _wish(self, body: Mapping[str, Any]) -> Wish:
        calls, minutes = _whole(body, "calls"), _whole(body, "minutes")
        until = self._desk.clock() + timedelta(minutes=minutes)
        if "until" in body:
            until = _time(text_of(body, "until", most=40))
        freed = {name: read_freed(one) for name, one in object_of(body, "freed").items()}
        return Wish(calls=calls, freed=freed, until=until)

    async def _theirs(self, request: Request, visitor: Visitor) -> HeldCall:
        """The hold, if a rule of it names the person; to anybody else it is as if there were none."""
        held = await self._desk.store.hold(HoldId(request.path_params["hold"]))
        if held is None or not facts.may_answer(held, visitor.person):
            raise NotFound(f"there is no call here that {visitor.person.name} could answer")
        return held


def _heard(after: HeldCall) -> Response:
    return JSONResponse({"state": after.state.value, "says": facts.state_of(after)[1]})


def _whole(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 1_000_000:
        raise InputError(f"`{name}` is not a whole number above 0")
    return value


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError("`until` is no time") from None
    if at.tzinfo is None:
        raise InputError("`until` has no time zone")
    return at
