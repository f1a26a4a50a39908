"""The page where a client leads a person: what it asks for, and their answer, which goes back to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.accounts import PASSKEY_AMR, Accounts
from mcp_authz.consent import Asking, Consents, Question, SentBack
from mcp_authz.consent import SignInAgain as StaleSignIn
from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.passkey import SignIn
from mcp_authz.principals import Authentication
from mcp_authz.rules.agreement import Agreement, consent_challenge
from mcp_authz.rules.authorization_request import answer_url, read_target
from mcp_authz.rules.display import visible
from mcp_authz.rules.keys import b64url, unb64url
from mcp_authz.rules.scope import Scope
from mcp_authz.store.ports import Clock, Store
from mcp_authz.web import consent_facts as facts
from mcp_authz.web.challenges import Challenges
from mcp_authz.web.door import object_of, read_body, text_of
from mcp_authz.web.pages import page
from mcp_authz.web.passkeys import RelyingParty, credential_of
from mcp_authz.web.visitor import Cookies, NotSignedIn, SignInAgain, Visitor

_NONCE: Final = 64  # characters of base64url; 32 bytes take 43
_SILENT: Final = "none"  # the value of `prompt` that wants an answer without a page


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreeing:
    """What a person is about to agree to, in which browser; a passkey signs over all of it."""

    sign_in: bytes
    query: str
    agreement: Agreement


class Consenting:
    """Shows what a client asks for, and hands the person's answer to `Consents`, which decides."""

    def __init__(
        self,
        *,
        consents: Consents,
        store: Store,
        accounts: Accounts,
        cookies: Cookies,
        party: RelyingParty,
        public_url: str,
        clock: Clock,
    ) -> None:
        self._consents = consents
        self._store = store
        self._accounts = accounts
        self._cookies = cookies
        self._party = party
        self._issuer = public_url
        self._clock = clock
        self._agreeing: Challenges[Agreeing] = Challenges(clock)

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/authorize", self.authorize),
            Route("/authorize/question", self.question, methods=["POST"]),
            Route("/authorize/agree", self.agree, methods=["POST"]),
            Route("/authorize/refuse", self.refuse, methods=["POST"]),
        ]

    async def authorize(self, request: Request) -> Response:
        """What a client asks for, as a page; or the way back to it, where there is nothing to ask."""
        query = _query(request)
        visitor = await self._visitor(request, query)
        try:
            read = await self._consents.read(query)
        except (InputError, NotFound) as error:
            return self._unreadable(error, visitor)
        if isinstance(read, SentBack):
            return self._sent_back(read, visitor)
        if visitor is None:
            return self._stranger(request, read)
        if _is_looked_at(request) and (url := await self._consents.remembered(read, visitor.sign_in)) is not None:
            return RedirectResponse(url, 303)
        try:
            question = await self._asked(read, visitor)
        except SignInAgain:
            if _SILENT in read.request.prompt and read.client.kind == "registered":
                return self._error(read, "login_required")
            raise
        if _SILENT in read.request.prompt and facts.may_be_sent_back(question):
            return self._error(read, "interaction_required")
        return await self._page(question, visitor)

    async def question(self, request: Request) -> Response:
        """What to show a passkey with in order to agree to exactly this; no options for a person who has none."""
        visitor, body = await self._cookies.visitor(request), await read_body(request)
        query = text_of(body, "query", most=limits.AUTHORIZATION_QUERY)
        asking = await self._asking(query)
        question = await self._asked(asking, visitor)
        chosen, days = _chosen(body), _days(body)
        _require_offered(question, chosen, days)
        agreement = self._agreement(asking, question, visitor, chosen, days)
        nonce = self._agreeing.put(Agreeing(sign_in=visitor.sign_in.digest, query=query, agreement=agreement))
        known = await self._accounts.passkeys_of(visitor.person.name)
        options = self._party.assertion(known, consent_challenge(agreement, nonce)) if known else None
        return JSONResponse({"nonce": b64url(nonce), "options": options})

    async def agree(self, request: Request) -> Response:
        """The person has agreed to exactly what their passkey signed."""
        visitor, body = await self._cookies.visitor(request), await read_body(request)
        nonce = unb64url(text_of(body, "nonce", most=_NONCE))
        asked = self._agreeing.take(nonce)
        if asked.sign_in != visitor.sign_in.digest:
            raise Conflict("the passkey was asked for another sign-in; open the page again")
        asking, before = await self._asking(asked.query), asked.agreement
        question = await self._asked(asking, visitor)
        if self._agreement(asking, question, visitor, before.chosen, before.days) != before:
            raise Conflict("what is asked has changed meanwhile; open the page again")
        who = await self._proved(visitor, body, consent_challenge(before, nonce))
        try:
            return _next(await self._consents.agree(asking, who, chosen=before.chosen, days=before.days))
        except StaleSignIn as error:
            raise SignInAgain(str(error)) from None

    async def refuse(self, request: Request) -> Response:
        """The person does not agree; that they are signed in is enough to say no."""
        visitor, body = await self._cookies.visitor(request), await read_body(request)
        asking = await self._asking(text_of(body, "query", most=limits.AUTHORIZATION_QUERY))
        return _next(await self._consents.refuse(asking, visitor.sign_in))

    async def _visitor(self, request: Request, query: str) -> Visitor | None:
        """Who is signed in, if anybody is.

        Raises:
            NotSignedIn: nobody is, and who asks would have to be fetched: that is not done for strangers.
        """
        try:
            return await self._cookies.visitor(request)
        except NotSignedIn:
            if read_target(query).client.startswith("https:"):
                raise
            return None

    def _stranger(self, request: Request, asking: Asking) -> Response:
        """Nobody is signed in, as far as this request says: the cookie stays behind when another site leads here."""
        silent = _SILENT in asking.request.prompt and asking.client.kind == "registered"
        if not silent:
            raise NotSignedIn("sign in first")
        if request.headers.get("sec-fetch-site") != "cross-site":
            return self._error(asking, "login_required")
        return page("silent", now=self._clock(), who=None, url=self._error_url(asking, "login_required"))

    def _sent_back(self, sent: SentBack, visitor: Visitor | None) -> Response:
        """The way back with an error: at once for a client that an operator vouches for, else by the person's click."""
        if sent.client.kind == "registered":
            return RedirectResponse(sent.url, 303)
        who = None if visitor is None else visitor.actor
        return page("sent_back", 400, now=self._clock(), who=who, **facts.sent_back(sent))

    def _unreadable(self, error: InputError | NotFound, visitor: Visitor | None) -> Response:
        """What is wrong, for the person alone: nobody knows where else that could be said."""
        status = 404 if isinstance(error, NotFound) else 400
        who = None if visitor is None else visitor.actor
        return page("unreadable", status, now=self._clock(), who=who, says=visible(str(error)))

    def _error(self, asking: Asking, error: str) -> Response:
        return RedirectResponse(self._error_url(asking, error), 303)

    def _error_url(self, asking: Asking, error: str) -> str:
        asked = asking.request
        return answer_url(asked.redirect_uri, issuer=self._issuer, state=asked.state, error=error)

    async def _page(self, question: Question, visitor: Visitor) -> Response:
        name = visitor.person.name
        agent = await self._store.agent(question.agent) if question.stands_in else None
        return page(
            "consent",
            now=self._clock(),
            who=visitor.actor,
            replaced_at=await self._accounts.replaced_lately(name),
            has_passkey=bool(await self._accounts.passkeys_of(name)),
            ask=facts.shown(question, owner=None if agent is None else agent.owner),
        )

    async def _asking(self, query: str) -> Asking:
        read = await self._consents.read(query)
        if isinstance(read, SentBack):
            raise InputError(f"{read.why}; go back to the program that sent you here")
        return read

    async def _asked(self, asking: Asking, visitor: Visitor) -> Question:
        """What this person is asked.

        Raises:
            SignInAgain: also when they have no passkey to agree with, and signed in some time ago.
        """
        try:
            question = await self._consents.question(asking, visitor.sign_in)
        except StaleSignIn as error:
            raise SignInAgain(str(error)) from None
        if not await self._accounts.passkeys_of(visitor.person.name):
            self._cookies.require_fresh(visitor, limits.CONSENT_TIME)
        return question

    async def _proved(self, visitor: Visitor, body: Mapping[str, Any], challenge: bytes) -> SignIn:
        """The person's sign-in, with the proof that they gave just now; without a passkey it is the sign-in's own.

        Cookies of localhost go to every port: nobody agrees to anything with the cookie alone.
        """
        if not await self._accounts.passkeys_of(visitor.person.name):
            await self._cookies.require_half(visitor, text_of(body, "half", most=_NONCE))
            return visitor.sign_in
        answer = object_of(body, "answer")
        passkey = await self._accounts.passkey(credential_of(answer))
        if passkey is None or passkey.person != visitor.person.name:
            raise Conflict("this passkey is not one of yours")
        handle = await self._accounts.user_handle(passkey.person)
        await self._accounts.use(self._party.shown(answer, passkey, challenge, handle))
        now = self._clock()
        return replace(
            visitor.sign_in, credential=passkey.credential, authentication=Authentication(at=now, amr=PASSKEY_AMR)
        )

    def _agreement(
        self, asking: Asking, question: Question, visitor: Visitor, chosen: frozenset[Scope], days: int
    ) -> Agreement:
        return Agreement(
            issuer=self._issuer,
            person=visitor.person.name,
            client_name=facts.shown_name(question.client.name),
            agent=question.agent,
            request=asking.request,
            chosen=chosen,
            days=days,
        )


def _query(request: Request) -> str:
    query: bytes = request.scope["query_string"]
    return query.decode("latin-1")  # what is not ASCII is refused by whoever reads it


def _is_looked_at(request: Request) -> bool:
    """Whether a browser shows the answer as a page: what another page loads in passing makes nothing."""
    return request.method == "GET" and request.headers.get("sec-fetch-dest", "document") == "document"


def _next(url: str) -> JSONResponse:
    return JSONResponse({"next": url})


def _chosen(body: Mapping[str, Any]) -> frozenset[Scope]:
    value = body.get("scopes")
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError("`scopes` must be a list of texts")
    return frozenset(map(Scope, value))  # each counts only if it is one that was offered


def _days(body: Mapping[str, Any]) -> int:
    value = body.get("days")
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError("`days` must be a number")
    return value


def _require_offered(question: Question, chosen: frozenset[Scope], days: int) -> None:
    """Nobody shows a passkey in vain: what would be refused afterwards is refused before.

    Raises:
        InputError: something was chosen that was not offered, nothing was, or for longer than it can be.
    """
    if not chosen <= question.choices:
        raise InputError("more was chosen than was offered; open the page again")
    if (question.offered or question.already) and not chosen:
        raise InputError("choose at least one thing, or say “not now”")
    if not 1 <= days <= question.days:
        raise InputError(f"choose between 1 and {question.days} days")
