"""An agent at the gateway for any httpx2 client: it signs in, proves each request and signs each call by itself.

Requests to another URL than the gateway's are left as they are. Each of the others has a proof that the agent's own
key made it (RFC 9449); a call, and whatever else reaches a tool server, also a proof of what exactly is called.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field, replace
from ssl import SSLContext
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import anyio
import httpx2
from anyio.lowlevel import RunVar

from mcp_authz.client.asking import Applicant, Clock, own_session, redeemed
from mcp_authz.client.challenge import explained, read_challenge
from mcp_authz.client.discovery import endpoint, looking_up
from mcp_authz.client.door import Door
from mcp_authz.client.granted import Granted
from mcp_authz.client.possession import USE_NONCE, Possession
from mcp_authz.client.signing import Signer
from mcp_authz.client.talk import Talk, blocking_line, carry, carry_blocking, line
from mcp_authz.errors import AuthzError, DelegationError
from mcp_authz.rules.signed_link import parse_chain, read_unverified

if TYPE_CHECKING:
    from mcp_authz.client.agent_identity import AgentIdentity

# An anyio lock belongs to one event loop; an instance may be used in several, one after the other or at once.
_LOCKS: RunVar[WeakKeyDictionary[GatewayAuth, anyio.Lock]] = RunVar("sign-ins under way")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a sign-in is for. `subject` is `user:NAME` or `agent:NAME`, `scope` None for all that its link gives."""

    subject: str | None = None
    session: str | None = None
    chain: str | None = field(default=None, repr=False)
    scope: frozenset[str] | None = None


@dataclass(slots=True, kw_only=True)
class _Visit:
    """One request on its way, and what was done for it already: each remedy is tried once."""

    request: httpx2.Request
    body: bytes
    tried: set[str] = field(default_factory=set)


class GatewayAuth(httpx2.Auth):
    """Makes requests to the gateway the agent's own: bound tokens, proofs, signed calls, renewal, wider scope.

    One instance serves any number of clients, tasks and threads; they share its token, and sign in once. A first
    sign-in that fails raises `SignInRefused` or `NoAnswer`; later ones are told by the 401 that made them necessary.
    """

    def __init__(
        self,
        identity: AgentIdentity,
        url: str,
        wanted: Wanted,
        *,
        sign_calls: bool,
        clock: Clock,
        verify: SSLContext | None,
    ) -> None:
        """`AgentIdentity.auth` makes one.

        Raises:
            InputError: the URL is none, or one by which a token would travel in the open.
            DelegationError, SignatureRefused: the chain was given to another key, or cannot be read.
        """
        _require_holder(identity, wanted.chain)
        self.identity = identity
        self.url = endpoint(url)
        self._place = _place(httpx2.URL(self.url))
        self._wanted = wanted
        self._sign_calls, self._clock, self._verify = sign_calls, clock, verify
        self._door: Door | None = None
        self._token: Granted | None = None
        self._scope_held: frozenset[str] | None = None  # what the token was asked with
        self._possession = Possession()
        self._link: str | None = None
        self._subject = wanted.subject
        self._failure: tuple[int, AuthzError | None] = (0, None)
        self._threads = threading.Lock()

    @property
    def link(self) -> str | None:
        """The link that the agent is signed in for; None before the first request, and in the agent's own name."""
        return None if self._token is None else self._token.link

    @property
    def session(self) -> str | None:
        """The session that the agent is signed in for; None as above."""
        return None if self._token is None else self._token.session

    @property
    def subject(self) -> str | None:
        """Whom the agent acts for, as `user:NAME`, or itself, as `agent:NAME`; None before the first request."""
        return None if self._token is None else self._token.subject

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """The request as the agent's own; again with what a refusal asks for."""
        if not self._is_ours(request):
            yield request
            return
        visit = _Visit(request=request, body=await request.aread())
        token = await self._current()
        while True:
            response = yield self._dressed(visit, token)
            remedy = self._remedy(visit, token, response)
            if remedy is None:
                return
            if remedy != "nonce":
                try:
                    token = await self._current(token)
                except AuthzError as error:
                    explained(response, str(error), visit.body)
                    return

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """As `async_auth_flow`, for a thread."""
        if not self._is_ours(request):
            yield request
            return
        visit = _Visit(request=request, body=request.read())
        token = self._current_blocking()
        while True:
            response = yield self._dressed(visit, token)
            remedy = self._remedy(visit, token, response)
            if remedy is None:
                return
            if remedy != "nonce":
                try:
                    token = self._current_blocking(token)
                except AuthzError as error:
                    explained(response, str(error), visit.body)
                    return

    async def _current(self, refused: Granted | None = None) -> Granted:
        """A token that is good for a while, another one than was refused; one task signs in, the others wait for it."""
        failures = self._failure[0]
        if (token := self._good(refused)) is not None:
            return token
        async with self._lock():
            if (token := self._good(refused)) is not None:
                return token
            try:
                self._require_news(failures)
                async with line(self.url, self._verify) as http:
                    return await carry(http, self._signing_in())
            except AuthzError as error:
                return self._after(error, refused)

    def _current_blocking(self, refused: Granted | None = None) -> Granted:
        """As `_current`, for a thread."""
        failures = self._failure[0]
        if (token := self._good(refused)) is not None:
            return token
        with self._threads:
            if (token := self._good(refused)) is not None:
                return token
            try:
                self._require_news(failures)
                with blocking_line(self.url, self._verify) as http:
                    return carry_blocking(http, self._signing_in())
            except AuthzError as error:
                return self._after(error, refused)

    def _good(self, refused: Granted | None) -> Granted | None:
        token = self._token
        if token is None or token is refused or self._scope_held != self._wanted.scope:
            return None
        return token if self._clock() < token.began_at + token.lasts else None

    def _require_news(self, failures: int) -> None:
        """Return only if nobody was refused while this one waited: the answer would be the same."""
        if self._failure[0] != failures and self._failure[1] is not None:
            raise self._failure[1]

    def _after(self, error: AuthzError, refused: Granted | None) -> Granted:
        """The token there is, when it was not refused: the gateway's own answer to it says more than no answer."""
        if error is not self._failure[1]:
            self._failure = (self._failure[0] + 1, error)
        if refused is not None or self._token is None:
            raise error
        return self._token

    def _signing_in(self) -> Talk[Granted]:
        """The talk after which the agent has a token for what is wanted."""
        wanted = self._wanted
        if self._door is None:
            self._door = yield from looking_up(self.url)
        who = Applicant(
            name=self.identity.name,
            key=self.identity.key,
            door=self._door,
            resource=self.url,
            clock=self._clock,
            possession=self._possession,
        )
        scope = None if wanted.scope is None else " ".join(sorted(wanted.scope))
        if wanted.chain is not None:
            token = yield from redeemed(who, wanted.chain, scope)
        else:
            token = yield from own_session(who, self._claims(), scope)
            if token.link is None and self._link is not None:  # what it was signed in for is over
                self._link = None
                token = yield from own_session(who, self._claims(), scope)
            self._link = token.link
            if token.session is not None:
                self._subject = token.subject
        self._token, self._scope_held = token, wanted.scope
        return token

    def _claims(self) -> dict[str, str]:
        """Which session is meant: at first what was wanted, then the same link, then one for the same subject."""
        if self._link is not None:
            return {"delegation": self._link}
        if self._wanted.session is not None:
            return {"session": self._wanted.session}
        return {} if self._subject is None else {"subject": self._subject}

    def _dressed(self, visit: _Visit, token: Granted) -> httpx2.Request:
        """The request with token and proofs that are good for once."""
        asked, body = visit.request, visit.body
        headers = asked.headers.copy()
        headers.update(token.credentials(self._possession, asked.method, self.url, at=self._clock()))
        if self._sign_calls and token.link is not None and asked.method == "POST" and "content-encoding" not in headers:
            signer = Signer(key=self.identity.key, link=token.link, resource=self.url)
            body = signer.signed(body, at=self._clock())
        for name in ("content-length", "transfer-encoding"):  # of the body that is sent now
            headers.pop(name, None)
        return httpx2.Request(
            asked.method, asked.url, headers=headers, content=body or None, extensions=asked.extensions
        )

    def _remedy(self, visit: _Visit, token: Granted, response: httpx2.Response) -> str | None:
        """What makes the request pass when it is sent again; None when nothing does, or it has passed."""
        heard = self._possession.heard(self.url, response.headers)
        if response.status_code not in {401, 403}:
            return None
        said = read_challenge(response)
        remedy: str | None = None
        match said.status, said.error:
            case 401, error if error == USE_NONCE and heard:
                remedy = "nonce"
            case 401, None | "invalid_token":
                remedy = "token"
            case 403, "insufficient_scope" if not said.scope <= token.scope:
                remedy = "scope"
        if remedy is None or remedy in visit.tried:
            return None
        visit.tried.add(remedy)
        if remedy == "scope":
            self._wanted = replace(self._wanted, scope=(self._wanted.scope or token.scope) | said.scope)
        return remedy

    def _is_ours(self, request: httpx2.Request) -> bool:
        return _place(request.url) == self._place

    def _lock(self) -> anyio.Lock:
        locks = _LOCKS.get(None)
        if locks is None:
            _LOCKS.set(locks := WeakKeyDictionary())
        return locks.setdefault(self, anyio.Lock())


def _place(url: httpx2.URL) -> tuple[str, str, int | None, str]:
    return url.scheme, url.host, url.port, url.path.rstrip("/")


def _require_holder(identity: AgentIdentity, chain: str | None) -> None:
    if chain is not None and read_unverified(parse_chain(chain))[-1].holder != identity.public_key:
        raise DelegationError(f"the chain's last link was given to another key than agent `{identity.name}`'s")
