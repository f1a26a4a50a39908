"""What waits for the person who is signed in, one call in full, and their verdict on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.accounts import Accounts
from mcp_authz.approvals import Approvals, terms_of
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.hearing import PageAnswer
from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.principals import Person, PersonName
from mcp_authz.rules.display import shown_arguments
from mcp_authz.rules.hold import wants_reason
from mcp_authz.rules.keys import b64url, unb64url
from mcp_authz.rules.verdict import SignInProof, approval_challenge
from mcp_authz.standing_approvals import StandingApprovals
from mcp_authz.store.ports import Clock, Store
from mcp_authz.web import facts
from mcp_authz.web.challenges import Challenges
from mcp_authz.web.door import object_of, read_body, text_of
from mcp_authz.web.pages import page
from mcp_authz.web.passkeys import RelyingParty, credential_of, proof_of
from mcp_authz.web.visitor import Cookies, Visitor

_NONCE = 64  # characters of base64url; 32 bytes take 43


@dataclass(frozen=True, slots=True, kw_only=True)
class Approving:
    """What a person is about to approve; the passkey signs over all of it."""

    person: PersonName
    sign_in: bytes
    hold: HoldId
    reason: str
    terms: Mapping[str, Any] = field(default_factory=dict)


class Answering:
    """Shows held calls to whom their rules name, and hands their answers to `Approvals`, which decides."""

    def __init__(
        self,
        *,
        store: Store,
        accounts: Accounts,
        approvals: Approvals,
        standing: StandingApprovals,
        cookies: Cookies,
        party: RelyingParty,
        clock: Clock,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._approvals = approvals
        self._standing = standing
        self._cookies = cookies
        self._party = party
        self._clock = clock
        self._approving: Challenges[Approving] = Challenges(clock)

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/", self.home),
            Route("/holds", self.waiting),
            Route("/holds/{hold}", self.hold),
            Route("/holds/{hold}/asked", self.asked),
            Route("/holds/{hold}/question", self.question, methods=["POST"]),
            Route("/holds/{hold}/approve", self.approve, methods=["POST"]),
            Route("/holds/{hold}/approve-signed-in", self.approve_signed_in, methods=["POST"]),
            Route("/holds/{hold}/deny", self.deny, methods=["POST"]),
            Route("/holds/{hold}/send-back", self.send_back, methods=["POST"]),
        ]

    async def home(self, _: Request) -> Response:
        """What waits is what people come for."""
        return RedirectResponse("/holds", 303)

    async def waiting(self, request: Request) -> Response:
        """The calls that wait for this person, newest first, and what was decided lately."""
        visitor = await self._cookies.visitor(request)
        who = visitor.person
        waits, lately = await self.waiting_for(who), await self._store.latest_holds(limits.LATEST_LOOKED_AT)
        decided = [held for held in lately if held.state is not HoldState.PENDING and facts.may_answer(held, who)]
        return page(
            "holds",
            now=self._clock(),
            who=visitor.actor,
            waiting=[facts.summary(held) for held in waits],
            decided=[facts.summary(held) for held in decided[: limits.DECIDED_SHOWN]],
            ahead=[facts.ahead(standing) for standing in await self._standing.given_by(who.name)],
            replaced_at=await self._accounts.replaced_lately(who.name),
        )

    async def waiting_for(self, who: Person) -> list[HeldCall]:
        """The calls that this person may answer and has not, newest first."""
        pending = await self._store.holds(states=(HoldState.PENDING,))
        answered = {held.id for held in pending if any(verdict.person == who.name for verdict in held.verdicts)}
        return [held for held in reversed(pending) if facts.may_answer(held, who) and held.id not in answered]

    async def hold(self, request: Request) -> Response:
        """Everything about one call."""
        visitor = await self._cookies.visitor(request)
        held = await self._theirs(request, visitor)
        people = {str(v.person): p for v in held.verdicts if (p := await self._store.person(v.person)) is not None}
        return page(
            "hold",
            now=self._clock(),
            who=visitor.actor,
            waiting_count=len(await self.waiting_for(visitor.person)),
            hold=facts.full(held, await self._approvals.context(held), visitor.person, people),
            way=await self._way(held, visitor),
            is_fresh=self._cookies.fresh_enough(visitor, limits.APPROVAL_SIGN_IN),
            replaced_at=await self._accounts.replaced_lately(visitor.person.name),
        )

    async def asked(self, request: Request) -> Response:
        """The person whom the call is for goes on to it: their own client sent them here (URL elicitation).

        Whoever else may answer finds it in their own list: a link that an agent hands around leads them nowhere.
        """
        visitor = await self._cookies.visitor(request)
        held = await self._store.hold(HoldId(request.path_params["hold"]))
        if held is None or held.subject != visitor.person.name or not await self._approvals.asks_subject(held):
            raise NotFound(
                "this link is for the person whose client gave it out; what waits for you is in your own list"
            )
        return RedirectResponse(f"/holds/{held.id}", 303)

    async def question(self, request: Request) -> Response:
        """What to show a passkey with in order to approve exactly this, for exactly this reason."""
        visitor, body = await self._cookies.visitor(request), await read_body(request)
        held = await self._theirs(request, visitor)
        approving = _approving(held, visitor, body)
        _require_answerable(held, approving, visitor.person)
        nonce = self._approving.put(approving)
        known = await self._accounts.passkeys_of(visitor.person.name)
        options = self._party.assertion(known, _challenge(held, approving, nonce))
        return JSONResponse({"nonce": b64url(nonce), "options": options})

    async def approve(self, request: Request) -> Response:
        """The person has approved exactly what their passkey signed."""
        visitor, body = await self._cookies.visitor(request), await read_body(request)
        held = await self._theirs(request, visitor)
        nonce, answer = unb64url(text_of(body, "nonce", most=_NONCE)), object_of(body, "answer")
        asked = self._approving.take(nonce)
        if (asked.hold, asked.sign_in) != (held.id, visitor.sign_in.digest):
            raise Conflict("the passkey was asked about another call; look at this one and try again")
        passkey = await self._accounts.passkey(credential_of(answer))
        if passkey is None or passkey.person != visitor.person.name:
            raise Conflict("this passkey is not one of yours")
        handle = await self._accounts.user_handle(passkey.person)
        shown = self._party.shown(answer, passkey, _challenge(held, asked, nonce), handle)
        await self._accounts.use(shown)
        return await self._hear(
            held,
            PageAnswer(
                person=asked.person,
                approve=True,
                reason=asked.reason,
                terms=asked.terms,
                proof=proof_of(answer, nonce),
            ),
        )

    async def approve_signed_in(self, request: Request) -> Response:
        """The person has approved, with a sign-in of just now: they have no passkey, and their rules ask for none."""
        visitor, body = await self._cookies.visitor(request), await read_body(request)
        held = await self._theirs(request, visitor)
        asked = _approving(held, visitor, body)
        _require_answerable(held, asked, visitor.person)
        said = visitor.sign_in.authentication
        if await self._way(held, visitor) != "sign-in" or said.issuer is None:
            raise Conflict("this call takes a passkey of yours")
        self._cookies.require_fresh(visitor, limits.APPROVAL_SIGN_IN)
        await self._cookies.require_half(visitor, text_of(body, "half", most=_NONCE))
        proof = SignInProof(issuer=said.issuer, amr=said.amr, at=said.at)
        answer = PageAnswer(person=asked.person, approve=True, reason=asked.reason, terms=asked.terms, proof=proof)
        return await self._hear(held, answer)

    async def _way(self, held: HeldCall, visitor: Visitor) -> str:
        known = await self._accounts.passkeys_of(visitor.person.name)
        return facts.way_to_approve(held, visitor.person, visitor.sign_in, passkeys=known)

    async def deny(self, request: Request) -> Response:
        """The person has denied the call; that they are signed in is enough to say no."""
        return await self._say_no(request, sent_back=False)

    async def send_back(self, request: Request) -> Response:
        """The person has denied the call, and says what it should be instead."""
        return await self._say_no(request, sent_back=True)

    async def _say_no(self, request: Request, *, sent_back: bool) -> Response:
        visitor, body = await self._cookies.visitor(request), await read_body(request)
        held = await self._theirs(request, visitor)
        answer = PageAnswer(
            person=visitor.person.name,
            approve=False,
            reason=text_of(body, "reason", most=limits.REASON),
            terms={},
            proof=None,
            sent_back=sent_back,
        )
        return await self._hear(held, answer)

    async def _hear(self, held: HeldCall, answer: PageAnswer) -> Response:
        after = await self._approvals.hear_page(held.id, answer)
        return JSONResponse({"state": after.state.value, "says": facts.state_of(after)[1]})

    async def _theirs(self, request: Request, visitor: Visitor) -> HeldCall:
        """The hold, if a rule of it names the person; to anybody else it is as if there were none."""
        held = await self._store.hold(HoldId(request.path_params["hold"]))
        if held is None or not facts.may_answer(held, visitor.person):
            raise NotFound(f"there is no call here that {visitor.person.name} could answer")
        return held


def _approving(held: HeldCall, visitor: Visitor, body: Mapping[str, Any]) -> Approving:
    return Approving(
        person=visitor.person.name,
        sign_in=visitor.sign_in.digest,
        hold=held.id,
        reason=text_of(body, "reason", most=limits.REASON),
        terms=object_of(body, "terms") if "terms" in body else {},
    )


def _challenge(held: HeldCall, asked: Approving, nonce: bytes) -> bytes:
    return approval_challenge(held, person=asked.person, reason=asked.reason, terms=asked.terms, nonce=nonce)


def _require_answerable(held: HeldCall, asked: Approving, who: Person) -> None:
    """Nobody shows a passkey in vain: what would be refused afterwards is refused before.

    Raises:
        Conflict: the call does not wait any more, cannot be shown whole, or wants a reason.
        InputError: the terms are none.
    """
    if held.state is not HoldState.PENDING:
        raise Conflict(f"this call is {held.state.value}, it cannot be answered any more")
    if shown_arguments(held.arguments) is None:
        raise Conflict("this call is too large to be shown whole, so nobody can approve it")
    if wants_reason(who, held) and not asked.reason.strip():
        raise Conflict("a rule of this call wants to know why: write a reason")
    terms_of(held, asked.terms)
