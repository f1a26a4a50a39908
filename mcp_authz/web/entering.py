"""Welcome, sign-in, sign-out and further passkeys: the requests by which a browser comes to be somebody's."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz.accounts import Accounts
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.passkey import Invitation, Passkey
from mcp_authz.principals import PersonName
from mcp_authz.rules.keys import b64url, unb64url
from mcp_authz.store.ports import Clock
from mcp_authz.web.challenges import Challenges
from mcp_authz.web.door import object_of, read_body, text_of
from mcp_authz.web.pace import Pace
from mcp_authz.web.pages import page
from mcp_authz.web.passkeys import RelyingParty, credential_of
from mcp_authz.web.strangers import Strangers
from mcp_authz.web.visitor import Cookies
from mcp_authz.web.ways_in import PASSKEYS_ALONE, WaysIn

_NONCE = 64  # characters of base64url; 32 bytes take 43


class Entering:
    """Each ceremony is two requests: `.../question` hands out a challenge, the other brings the passkey's answer."""

    def __init__(
        self,
        accounts: Accounts,
        cookies: Cookies,
        party: RelyingParty,
        clock: Clock,
        ways_in: WaysIn = PASSKEYS_ALONE,
    ) -> None:
        self._accounts = accounts
        self._cookies = cookies
        self._party = party
        self._clock = clock
        self._ways_in = ways_in
        self._pace = Pace()
        self._strangers = Strangers(clock)
        self._invited: Challenges[str] = Challenges(clock)
        self._proving: Challenges[bytes] = Challenges(clock)
        self._further: Challenges[bytes] = Challenges(clock)

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/welcome/{token}", self.welcome),
            Route("/welcome/{token}/question", self.welcome_question, methods=["POST"]),
            Route("/welcome/{token}/passkey", self.register_invited, methods=["POST"]),
            Route("/sign-in", self.is_signed_in),
            Route("/sign-in/question", self.sign_in_question, methods=["POST"]),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
            Route("/sign-out/everywhere", self.sign_out_everywhere, methods=["POST"]),
            Route("/passkeys", self.passkeys),
            Route("/passkeys/proof", self.proof_question, methods=["POST"]),
            Route("/passkeys/question", self.further_question, methods=["POST"]),
            Route("/passkeys", self.register_further, methods=["POST"]),
        ]

    async def welcome(self, request: Request) -> Response:
        """The page of a one-time link, or what to do when it is over."""
        now = self._clock()
        try:
            invitation = await self._invited_by(request)
        except (NotFound, Conflict) as error:
            return page("welcome", 404, now=now, who=None, invited=None, trouble=str(error))
        return page("welcome", now=now, who=None, invited=invitation.person, trouble="")

    async def welcome_question(self, request: Request) -> Response:
        """What to make the first passkey with."""
        invitation = await self._invited_by(request)
        return await self._ask_to_register(invitation.person, self._invited.put(request.path_params["token"]))

    async def register_invited(self, request: Request) -> Response:
        """The invited person has a passkey and is signed in."""
        token, body = request.path_params["token"], await read_body(request)
        nonce = _nonce(body)
        if self._invited.take(nonce) != token:
            raise Conflict("the passkey was made for another link; try again")
        new = self._party.registered(object_of(body, "answer"), nonce)
        passkey = await self._accounts.register_invited(token, new, _browser(request))
        response = JSONResponse({"next": "/holds"})
        if self._ways_in.passkeys:
            self._cookies.give(response, await self._accounts.sign_in_registered(passkey))
        return response

    async def is_signed_in(self, request: Request) -> Response:
        """Whether the browser is signed in: a page that a link of another site opened came without its cookie."""
        await self._cookies.visitor(request)
        return Response(status_code=204)

    async def sign_in_question(self, _: Request) -> Response:
        """What to show a passkey with: any that was made here."""
        self._require_passkeys()
        nonce = self._strangers.put()
        return JSONResponse({"nonce": b64url(nonce), "options": self._party.assertion((), nonce)})

    async def sign_in(self, request: Request) -> Response:
        """The passkey's person is signed in, anew if they were before."""
        self._require_passkeys()
        body = await read_body(request)
        nonce, answer = _nonce(body), object_of(body, "answer")
        self._strangers.require(nonce)
        passkey = await self._known(credential_of(answer))
        shown = self._party.shown(answer, passkey, nonce, await self._accounts.user_handle(passkey.person))
        self._strangers.answer(nonce)
        response = JSONResponse({})
        self._cookies.give(response, await self._accounts.sign_in(shown))
        return response

    async def sign_out(self, request: Request) -> Response:
        """The browser is nobody's any more."""
        visitor = await self._cookies.visitor(request)
        await self._accounts.sign_out(visitor.sign_in)
        response = JSONResponse({"next": "/holds"})
        self._cookies.take(response)
        return response

    async def sign_out_everywhere(self, request: Request) -> Response:
        """No browser is this person's any more; each has to be signed in again."""
        visitor = await self._cookies.visitor(request)
        name = visitor.person.name
        await self._accounts.sign_out_everywhere(name, by=f"user:{name}")
        response = JSONResponse({"next": "/holds"})
        self._cookies.take(response)
        return response

    async def passkeys(self, request: Request) -> Response:
        """The page of the person's passkeys."""
        visitor = await self._cookies.visitor(request)
        name = visitor.person.name
        return page(
            "passkeys",
            now=self._clock(),
            who=visitor.actor,
            passkeys=await self._accounts.passkeys_of(name),
            this=visitor.sign_in.credential,
            sign_ins=await self._accounts.sign_ins_of(name),
            here=visitor.sign_in.digest,
            replaced_at=await self._accounts.replaced_lately(name),
        )

    async def proof_question(self, request: Request) -> Response:
        """What to show a passkey with before a further one is made: a cookie alone must not become a passkey."""
        visitor = await self._cookies.visitor(request)
        nonce, known = self._proving.put(visitor.sign_in.digest), await self._accounts.passkeys_of(visitor.person.name)
        return JSONResponse({"nonce": b64url(nonce), "options": self._party.assertion(known, nonce)})

    async def further_question(self, request: Request) -> Response:
        """What to make a further passkey with, for a person who has just shown one of theirs."""
        visitor, body = await self._cookies.visitor(request), await read_body(request)
        nonce, answer = _nonce(body), object_of(body, "answer")
        if self._proving.take(nonce) != visitor.sign_in.digest:
            raise Conflict("the passkey was shown for another sign-in; try again")
        passkey = await self._known(credential_of(answer))
        if passkey.person != visitor.person.name:
            raise Conflict("this passkey is not one of yours")
        handle = await self._accounts.user_handle(passkey.person)
        await self._accounts.use(self._party.shown(answer, passkey, nonce, handle))
        return await self._ask_to_register(visitor.person.name, self._further.put(visitor.sign_in.digest))

    async def register_further(self, request: Request) -> Response:
        """The person has one more passkey."""
        visitor, body = await self._cookies.visitor(request), await read_body(request)
        nonce = _nonce(body)
        if self._further.take(nonce) != visitor.sign_in.digest:
            raise Conflict("the passkey was made for another sign-in; try again")
        new = self._party.registered(object_of(body, "answer"), nonce)
        await self._accounts.register_further(visitor.sign_in, new, _browser(request))
        return JSONResponse({"next": "/passkeys"})

    async def _ask_to_register(self, person: PersonName, nonce: bytes) -> Response:
        handle, known = await self._accounts.user_handle(person), await self._accounts.passkeys_of(person)
        return JSONResponse({"nonce": b64url(nonce), "options": self._party.registration(person, handle, known, nonce)})

    async def _invited_by(self, request: Request) -> Invitation:
        """The invitation of a one-time link; a source that tries many wrong ones is told to wait."""
        try:
            return await self._accounts.invited(request.path_params["token"])
        except NotFound:
            self._pace.charge(request)
            raise

    def _require_passkeys(self) -> None:
        if not self._ways_in.passkeys:
            raise Conflict("nobody signs in with a passkey here; use the other button")

    async def _known(self, credential: bytes) -> Passkey:
        passkey = await self._accounts.passkey(credential)
        if passkey is None:
            raise NotFound("this passkey is not known here any more; ask for a new one-time link")
        return passkey


def _nonce(body: dict[str, object]) -> bytes:
    return unb64url(text_of(body, "nonce", most=_NONCE))


def _browser(request: Request) -> str:
    """What the person will know the passkey by: the browser that it was made with, as far as it tells."""
    told = request.headers.get("user-agent", "")
    names = {"Edg/": "Edge", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
    systems = {
        "Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Mac OS X": "macOS", "Windows": "Windows",
        "Linux": "Linux",
    }  # fmt: skip
    name = next((shown for part, shown in names.items() if part in told), "a browser")
    system = next((shown for part, shown in systems.items() if part in told), "")
    return f"{name} on {system}" if system else name
