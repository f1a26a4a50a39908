"""Requests to an MCP server carry a token that is got, renewed and widened as MCP's authorization specifies.

MCP authorization of 2026-07-28: from a 401 to a token, from a 403 to a wider one, each new one before the old one ends.
Requests to another URL than the MCP server's are left as they are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import TYPE_CHECKING, Final

import anyio
import httpx2

from mcp_authz.client.asking import Clock, now
from mcp_authz.client.authorization_server import Target, target
from mcp_authz.client.challenge import Challenge, explained, read_challenge
from mcp_authz.client.discovery import safe_url
from mcp_authz.client.door import NoAnswer, SignInRefused
from mcp_authz.client.possession import USE_NONCE, Possession
from mcp_authz.client.signed_in import Memory, SignedIn, Storage, key_for
from mcp_authz.client.talk import carry, line
from mcp_authz.client.token_endpoint import Proving, TokenRefused, issued, revoked
from mcp_authz.client.ways_in import OFFLINE, Order, Way
from mcp_authz.errors import AuthzError, InputError

if TYPE_CHECKING:
    from mcp_authz.rules.jose import SigningKey

_OVER: Final = frozenset({"invalid_grant", "invalid_client", "unauthorized_client"})  # what no repetition changes
_STEPS: Final = 2  # how often one request may ask for more scopes


@dataclass(slots=True, kw_only=True)
class _Visit:
    """One request on its way, and what was done for it already."""

    request: httpx2.Request
    body: bytes
    tried: set[str] = field(default_factory=set)


class McpAuth(httpx2.Auth):
    """Makes requests to one MCP server those of a client that is signed in there.

    One instance serves any number of httpx2.AsyncClients and tasks of one event loop. A sign-in that fails when there
    was no token before raises `SignInRefused` or `NoAnswer`; a later one is told by the refusal that made it necessary.
    """

    def __init__(
        self,
        url: str,
        way: Way,
        *,
        storage: Storage | None = None,
        scope: str | None = None,
        clock: Clock = now,
        verify: SSLContext | None = None,
        beside: str | None = None,
    ) -> None:
        """`scope` is asked for in addition to what the server suggests first.

        `beside` is a path of the same server, below which the token counts too.

        Raises:
            InputError: the URL is none, or one by which a token would travel in the open.
        """
        safe_url(url)
        self.url = url
        self._place, self._beside = _place(httpx2.URL(url)), beside
        self._way = way
        self._storage = Memory() if storage is None else storage
        self._scope = frozenset((scope or "").split())
        self._clock, self._verify = clock, verify
        self._held: SignedIn | None = None
        self._looked = False  # whether the storage was read
        self._issuer: str | None = None if way.client is None else way.client.issuer
        self._declined = frozenset[str]()  # asked for and not given: not asked for again
        self.possession = Possession()
        self._turn = anyio.Lock()
        self._failures: tuple[int, AuthzError | None] = (0, None)

    @property
    def signed_in(self) -> SignedIn | None:
        """What this program has at the server now."""
        if not self._looked:
            self._hold(self._stored())
        return self._held

    async def sign_in(self) -> SignedIn:
        """Return a new sign-in, which is kept; what was kept before is not used any more.

        With `scope` it is what was there, and that; without, whatever the person chooses.

        Raises:
            SignInRefused, NoAnswer: there is none.
        """
        async with self._turn:
            self._declined = frozenset()
            said = Challenge(status=401, error=None, scope=frozenset())
            return await self._obtained(said, more=bool(self._scope))

    async def current(self, refused: SignedIn | None = None) -> SignedIn:
        """Return a sign-in that is good for a while, another one than was refused; nobody is asked for it.

        What is stored is read again: another program may have signed in meanwhile.

        Raises:
            SignInRefused: there is none; `sign_in` may get one.
            NoAnswer: it cannot be renewed now.
        """
        stored = self._stored()
        if stored is None or self._held is None or stored.access != self._held.access:
            self._hold(stored)
        if refused is not None and self._held is not None and self._held.access == refused.access:
            refused = self._held
        held = await self._ready(refused)
        if held is None:
            raise SignInRefused(f"nobody is signed in at {self.url}")
        return held

    async def sign_out(self) -> bool:
        """Nothing is kept any more, and the server knows that it is over; returns whether it was told."""
        async with self._turn, self._storage.alone():
            held = self._stored()
            self._hold(None)
            self._storage.save(None)
            return held is not None and await self.give_back(held)

    async def give_back(self, held: SignedIn) -> bool:
        """The server knows that this sign-in is over (RFC 7009), if it could be told; returns whether it was."""
        try:
            return await self._revoked(held)
        except AuthzError:
            return False

    async def _revoked(self, held: SignedIn) -> bool:
        async with line(self.url, self._verify) as http:
            found = await carry(http, target(self.url, None, self._choose))
            endpoint = found.server.revocation_endpoint
            if found.server.issuer != held.issuer or endpoint is None:
                return False
            client = (self._way.client or held.client).at(found.server)
            form = {"token": held.refresh or held.access}
            return await carry(http, revoked(endpoint, found.server, client, form, self._clock()))

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """The request with a token; again with what a refusal asks for."""
        if not self._reaches(request.url):
            yield request
            return
        visit = _Visit(request=request, body=await request.aread())
        held = await self._before()
        while True:
            response = yield self._dressed(visit, held)
            said = read_challenge(response)
            remedy = self._remedy(visit, held, response, said)
            if remedy is None:
                return
            try:
                held = await self._remedied(remedy, visit, held, said)
            except AuthzError as error:
                if held is None:
                    raise
                explained(response, str(error), visit.body)
                return

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Nothing is sent.

        Raises:
            InputError: always; a thread that waits for a person waits long.
        """
        raise InputError("signing in needs an httpx2.AsyncClient")

    async def _before(self) -> SignedIn | None:
        """What the request is tried with; where it cannot be renewed now, the refusal of the old one says more."""
        try:
            return await self._ready()
        except (SignInRefused, NoAnswer):
            return self._held

    def _remedy(self, visit: _Visit, held: SignedIn | None, response: httpx2.Response, said: Challenge) -> str | None:
        """What makes the request pass when it is sent again; None when nothing does, or it has passed."""
        heard = self.possession.heard(_published(visit.request.url), response.headers)
        match said.status, said.error:
            case 401, error if error == USE_NONCE and heard and held is not None:
                remedies = ["nonce"]
            case 401, "insufficient_user_authentication":  # RFC 9470 section 4: the person shows again who they are
                remedies = ["new"]
            case 401, _:
                remedies = ["renewed", "new"]
            case 403, "insufficient_scope" if self._can_have(said.scope, held):
                remedies = [f"wider {step}" for step in range(_STEPS)]
            case _:
                remedies = []
        remedy = next((one for one in remedies if one not in visit.tried), None)
        if remedy is not None:
            visit.tried.add(remedy)
        return remedy

    def _can_have(self, scope: frozenset[str], held: SignedIn | None) -> bool:
        """Whether another sign-in might bring these scopes: some are missing, and none was asked for and not given."""
        return not scope <= (frozenset() if held is None else held.scope) and scope.isdisjoint(self._declined)

    async def _remedied(self, remedy: str, visit: _Visit, held: SignedIn | None, said: Challenge) -> SignedIn | None:
        match remedy:
            case "nonce":
                return held
            case "renewed":
                renewed = await self._ready(held, said.metadata)
                if renewed is not None:
                    return renewed
        visit.tried.add("new")
        return await self._anew(said, held)

    async def _ready(self, refused: SignedIn | None = None, metadata: str | None = None) -> SignedIn | None:
        """A sign-in that is good for a while, another one than was refused; renewed by its refresh token if need be."""
        if not self._looked:
            self._hold(self._stored())
        held = self._held
        if held is None or (held is not refused and held.is_good(self._clock())):
            return held
        async with self._turn:
            if self._held is not held:  # somebody renewed it while this one waited
                return self._held
            async with self._storage.alone():
                kept = self._stored()
                if kept is not None and kept.access != held.access and kept.is_good(self._clock()):
                    return self._hold(kept)  # another program did
                if kept is None or kept.refresh is None:
                    return self._hold(None)
                return await self._refreshed(kept, metadata)

    async def _refreshed(self, kept: SignedIn, metadata: str | None) -> SignedIn | None:
        async with line(self.url, self._verify) as http:
            found = await carry(http, target(self.url, metadata, self._choose))
            if found.server.issuer != kept.issuer:  # what is kept is not for that one
                return self._hold(None)
            client = self._way.client or kept.client
            form = {"grant_type": "refresh_token", "refresh_token": kept.refresh or "", "resource": kept.resource}
            asking = issued(found.server, client.at(found.server), form, self._proving(kept.key))
            try:
                with anyio.CancelScope(shield=True):  # it counts once: whoever sent it keeps what comes for it
                    given = await carry(http, asking)
            except TokenRefused as error:
                if error.error not in _OVER:
                    raise
                self._storage.save(None)
                return self._hold(None)
            renewed = kept.renewed(given, self._clock())
            self._storage.save(renewed)
            return self._hold(renewed)

    async def _anew(self, said: Challenge, refused: SignedIn | None) -> SignedIn:
        """A new sign-in; who waited for one that failed does not ask the person again."""
        failures = self._failures[0]
        async with self._turn:
            if self._held is not None and self._held is not refused and said.scope <= self._held.scope:
                return self._held
            if self._failures[0] != failures and self._failures[1] is not None:
                raise self._failures[1]
            try:
                return await self._obtained(said)
            except AuthzError as error:
                self._failures = (self._failures[0] + 1, error)
                raise

    async def _obtained(self, said: Challenge, *, more: bool = True) -> SignedIn:
        kept = self._stored()
        async with line(self.url, self._verify) as http:
            found = await carry(http, target(self.url, said.metadata, self._choose))
            self._require_same(found)
            mine = kept if kept is not None and kept.issuer == found.server.issuer else None
            key = mine.key if mine is not None and mine.key is not None else key_for(found.server.proofs)
            order = Order(
                http=http,
                target=found,
                scope=self._wanted(said, found, mine if more else None),
                proving=self._proving(key),
                kept=None if mine is None else mine.client,
                max_age=said.max_age,
            )
            client, given = await self._way.token(order)
        scope = order.scope if given.scope is None else given.scope
        if self._way.asks_a_person:
            self._declined = (self._declined | order.scope) - scope
        new = SignedIn(
            url=self.url,
            resource=found.resource,
            issuer=found.server.issuer,
            client=client,
            asked=order.scope,
            scope=scope,
            access=given.access,
            is_bound=given.is_bound,
            began_at=self._clock(),
            ends_at=given.ends_at,
            refresh=given.refresh,
            key=key,
            more=given.more,
        )
        async with self._storage.alone():  # a renewal that is under way would take its place, or delete it
            self._storage.save(new)
        self._hold(new)
        return new

    def _wanted(self, said: Challenge, found: Target, mine: SignedIn | None) -> frozenset[str]:
        """The challenge's scopes, else those that the resource suggests; and none is lost that was there before."""
        first = said.scope or (found.scopes or frozenset())
        scope = first | self._scope
        if mine is not None:
            scope |= mine.asked | mine.scope
        if scope and self._way.asks_a_person and OFFLINE in found.server.scopes:
            return scope | {OFFLINE}
        return scope if OFFLINE in found.server.scopes else scope - {OFFLINE}

    def _require_same(self, found: Target) -> None:
        """Return only if what the program proves itself by belongs to this server; the first one it meets, else."""
        client = self._way.client
        if client is None or not client.proves_itself:
            return
        if self._issuer is not None and self._issuer != found.server.issuer:
            told = f"{self.url} named `{self._issuer}` before and now names `{found.server.issuer}`"
            raise SignInRefused(f"{told}; nothing of client `{client.id}` was sent there")
        self._issuer = found.server.issuer

    def _choose(self, issuers: list[str]) -> str:
        return self._issuer if self._issuer in issuers else issuers[0]

    def _stored(self) -> SignedIn | None:
        self._looked = True
        kept = self._storage.load()
        return kept if kept is not None and kept.url == self.url else None

    def _hold(self, held: SignedIn | None) -> SignedIn | None:
        self._held = held
        if held is not None and self._issuer is None:
            self._issuer = held.issuer
        return held

    def _proving(self, key: SigningKey | None) -> Proving:
        return Proving(clock=self._clock, possession=self.possession, key=key)

    def _reaches(self, url: httpx2.URL) -> bool:
        """Whether the token is for requests to this URL."""
        *here, path = self._place
        *there, asked = _place(url)
        return here == there and (asked == path or (self._beside is not None and asked.startswith(f"{self._beside}/")))

    def _dressed(self, visit: _Visit, held: SignedIn | None) -> httpx2.Request:
        """The request with the token, and a proof that is good for once."""
        asked = visit.request
        headers = asked.headers.copy()
        if held is not None and held.is_bound:
            headers["authorization"] = f"DPoP {held.access}"
            headers.update(self._proving(held.key).header(asked.method, _published(asked.url), held.access))
        elif held is not None:
            headers["authorization"] = f"Bearer {held.access}"
        return httpx2.Request(
            asked.method, asked.url, headers=headers, content=visit.body or None, extensions=asked.extensions
        )


def _published(url: httpx2.URL) -> str:
    """The URL without its query, as proofs have it (RFC 9449 section 4.2)."""
    return str(url.copy_with(query=None))


def _place(url: httpx2.URL) -> tuple[str, str, int | None, str]:
    return url.scheme, url.host, url.port, url.path.rstrip("/")
