"""The MCP endpoint: every HTTP request is bounded, read and identified here, then led to the road."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Message, Receive, Scope, Send

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.gateway import Gateway
from mcp_authz.identity import Identifier, Unidentified
from mcp_authz.principals import Caller, Once
from mcp_authz.protocol.answers import UNAUTHENTICATED, Places, dpop_challenge, unauthorized_challenge, unavailable
from mcp_authz.protocol.channel import MISSING_CAPABILITY, NO_TASKS, TASKS_NEEDED, declares_tasks, dump
from mcp_authz.protocol.deferred import Deferred, Ending
from mcp_authz.protocol.modern import Exchange, serve_call
from mcp_authz.protocol.reading import INVALID_REQUEST, Read, Request, Unreadable, check_headers, read
from mcp_authz.protocol.server import CALLER, DEFERRED
from mcp_authz.protocol.throttle import Refusals, Throttle, source
from mcp_authz.rules.message import GOVERNED, TASKS
from mcp_authz.rules.peer import Network, peer
from mcp_authz.seldom import trouble

INTERNAL_ERROR: Final = -32603
_CREDENTIALS: Final = frozenset({b"authorization", b"dpop"})
LOCAL: Final = "local"  # who comes over the Unix socket: this user, and nobody else


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One HTTP request on its way in, and the way back."""

    scope: Scope
    receive: Receive
    send: Send
    lines: tuple[tuple[str, str], ...]  # header lines as received, names in lower case
    headers: Mapping[str, str]  # the same, the last of each name
    peer: str  # the network it comes from, `source`

    @property
    def proofs(self) -> tuple[str, ...]:
        """The values of its `DPoP` header lines."""
        return tuple(value for name, value in self.lines if name == "dpop")


class Endpoint:
    """The ASGI application at the resource's path.

    `remember` is `Store.remember`: proofs of possession count once. Those of a governed call are spent on the road,
    with the call itself; those of every other request here.
    """

    def __init__(
        self,
        *,
        gateway: Gateway,
        identifier: Identifier,
        manager: StreamableHTTPSessionManager,
        public_url: str,
        places: Places,
        server_info: Mapping[str, Any],
        refusals: Refusals,
        remember: Callable[[Once], Awaitable[bool]],
        proxies: tuple[Network, ...] = (),
    ) -> None:
        self._gateway = gateway
        self._remember = remember
        self._identifier = identifier
        self._manager = manager
        self._places = places
        self._server_info = server_info
        self._refusals = refusals
        self._throttle = Throttle()
        parts = urlsplit(public_url)
        # Nobody reaches an https URL but through a proxy, which is not whom a record is about.
        self._is_direct, self._proxies = parts.scheme == "http", proxies
        self._hosts = allowed_hosts(public_url)
        self._origins = {f"{parts.scheme}://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever the store cannot do is a 503, and nothing was forwarded."""
        try:
            await self._serve(scope, receive, send)
        except StoreError as error:
            trouble.error(error, "request refused, the store cannot be used: %s", error)
            said = unavailable(error)
            await _write(send, said.status, said.code, said.message)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = _visit(scope, receive, send)
        if (wrong := self._wrong_site(visit.headers)) is not None:
            await self._refuse(visit, wrong, "host-or-origin")
            return
        if not self._throttle.allows(visit.peer, time.monotonic()) and not await self._is_served_still(visit):
            return
        if scope["method"] != "POST":
            await self._serve_stream(visit)
            return
        body = await _body(visit)
        if isinstance(body, Unreadable):
            await self._refuse(visit, body, "body")
            return
        message = read(Request(raw=body, headers=visit.lines, peer=visit.peer))  # 1, 2
        if isinstance(message, Unreadable):
            await self._refuse(visit, message, "unreadable")
            return
        caller = await self._identify(visit, message.message.id)  # 3 - 6
        if caller is not None:
            await self._lead(self._renewing(visit, caller), caller, message)  # 7 - 16

    async def _is_served_still(self, visit: Visit) -> bool:
        """Whether an agent with a valid token sends this, although its address has spent what it may on refusals.

        Agents share their address with whoever else is behind it, and strangers must not lock them out. Nothing of the
        request but its headers is read for that; who comes without a token is told where to get one, as ever.
        """
        if "authorization" not in visit.headers:
            await self._identify(visit, None)
            return False
        if check_headers(visit.lines) is None:
            try:
                await self._who(visit)
                return True
            except Unidentified:
                pass
        text = "too many refused requests from here; slow down"
        await self._refuse(
            visit, Unreadable(status=429, code=INVALID_REQUEST, message=text, closes=True), "rate-limited"
        )
        return False

    async def _serve_stream(self, visit: Visit) -> None:
        """GET and DELETE of handshake sessions: the caller is identified, the rest is the SDK's."""
        if (bad := check_headers(visit.lines)) is not None:
            await self._refuse(visit, bad, "unreadable")
            return
        caller = await self._identify(visit, None)
        if caller is not None and await self._spend(visit, caller, None):
            send, scope = Ending(self._renewing(visit, caller).send), _identified(visit.scope, caller)
            with self._gateway.underway.while_listening(caller):
                await self._manager.handle_request(scope, visit.receive, send)
            await send.end()

    async def _lead(self, visit: Visit, caller: Caller, message: Read) -> None:
        if not _is_governed(message):
            if await self._spend(visit, caller, message.message.id):
                await self._pass_on(visit, caller, message, visit.send)
        elif message.capabilities is not None and not _accepts(message.headers):
            if await self._spend(visit, caller, message.message.id):
                await _write(visit.send, 406, INVALID_REQUEST, "accept application/json", message.message.id)
        elif message.message.method in TASKS and not declares_tasks(message.capabilities):
            if await self._spend(visit, caller, message.message.id):
                await _write(visit.send, 400, MISSING_CAPABILITY, NO_TASKS, message.message.id, data=TASKS_NEEDED)
        elif message.capabilities is not None:
            exchange = Exchange(message, visit.send, server_info=self._server_info)
            await serve_call(self._gateway, caller, exchange, visit.receive, places=self._places)
        else:
            deferred = Deferred(visit.send)
            try:
                await self._pass_on(visit, caller, message, deferred)
            finally:
                deferred.over()
            for once in caller.once:  # the SDK may have answered before the call reached the road
                await self._remember(once)

    async def _pass_on(self, visit: Visit, caller: Caller, message: Read, send: Send) -> None:
        inner = _identified(visit.scope, caller)
        if isinstance(send, Deferred):
            inner[DEFERRED] = send
        await self._manager.handle_request(inner, _replay(message.raw, visit.receive), send)

    async def _identify(self, visit: Visit, message_id: str | int | None) -> Caller | None:
        try:
            return await self._who(visit)
        except Unidentified as refused:
            await self._challenge(visit, refused, message_id)
            return None

    async def _who(self, visit: Visit) -> Caller:
        caller = await self._identifier.identify(
            visit.headers.get("authorization"), method=visit.scope["method"], proofs=visit.proofs
        )
        return replace(caller, peer=self._peer(visit))

    def _peer(self, visit: Visit) -> str | None:
        """The address that records say the caller has; None where only a proxy's is known."""
        connected = visit.scope.get("client")
        if not connected:
            return LOCAL
        if not self._proxies and not self._is_direct:
            return None
        return peer(connected[0], [value for name, value in visit.lines if name == "x-forwarded-for"], self._proxies)

    async def _spend(self, visit: Visit, caller: Caller, message_id: str | int | None) -> bool:
        """Whether this is the first request with its proofs; they count for no other. A replay is answered here."""
        for once in caller.once:
            if not await self._remember(once):
                text = "this DPoP proof was used before; sign one for each request"
                refused = Unidentified("invalid_dpop_proof", text, "proof used before", scheme="DPoP")
                await self._challenge(visit, refused, message_id)
                return False
        return True

    async def _challenge(self, visit: Visit, refused: Unidentified, message_id: str | int | None) -> None:
        where, text = self._places.resource_metadata, refused.description
        if refused.scheme == "DPoP" and refused.error is not None:
            challenge = dpop_challenge(resource_metadata=where, error=refused.error, description=text)
        else:
            challenge = unauthorized_challenge(resource_metadata=where, error=refused.error, description=text)
        send = visit.send if refused.nonce is None else _with_nonce(visit.send, refused.nonce)
        if refused.nonce is None:  # to be told the nonce is part of every sign-in
            self._refusals.count(str(refused), visit.peer)
            if refused.error is not None:  # a client that has no token yet is no attack
                self._throttle.charge(visit.peer, time.monotonic())
        await _write(send, 401, UNAUTHENTICATED, text, message_id, challenge=challenge)

    def _renewing(self, visit: Visit, caller: Caller) -> Visit:
        """The visit whose answer brings the nonce of the next proof, so that no request has to be made twice for it."""
        nonce = self._identifier.nonce if caller.once else None
        return visit if nonce is None else replace(visit, send=_with_nonce(visit.send, nonce))

    async def _refuse(self, visit: Visit, bad: Unreadable, reason: str) -> None:
        self._refusals.count(reason, visit.peer)
        self._throttle.charge(visit.peer, time.monotonic())
        await _write(visit.send, bad.status, bad.code, bad.message, bad.id, data=bad.data, closes=bad.closes)

    def _wrong_site(self, headers: Mapping[str, str]) -> Unreadable | None:
        """DNS rebinding and cross-site requests: the host must be ours, an origin, if there is one, too."""
        if headers.get("host") not in self._hosts:
            return Unreadable(
                status=421, code=INVALID_REQUEST, message="this gateway does not answer for that Host", closes=True
            )
        if "origin" in headers and headers["origin"] not in self._origins:
            return Unreadable(
                status=403, code=INVALID_REQUEST, message="this Origin may not use the gateway", closes=True
            )
        return None


def allowed_hosts(public_url: str) -> frozenset[str]:
    """The Host values that are ours: that of the public URL; for localhost also its addresses, at the same port."""
    parts = urlsplit(public_url)
    port = f":{parts.port}" if parts.port is not None else ""
    names = {"localhost", "127.0.0.1", "[::1]"} if parts.hostname == "localhost" else {parts.netloc.removesuffix(port)}
    return frozenset(f"{name}{port}" for name in names)


def _is_governed(message: Read) -> bool:
    """Whether the road answers it; methods about tasks are of the newer era alone, and no methods in the older."""
    method, is_modern = message.message.method, message.capabilities is not None
    return message.message.is_request and method in GOVERNED and (is_modern or method not in TASKS)


def _accepts(headers: Mapping[str, str]) -> bool:
    accept = headers.get("accept", "*/*")
    return any(kind in accept for kind in ("application/json", "application/*", "*/*"))


def _identified(scope: Scope, caller: Caller) -> dict[str, Any]:
    """The scope as the SDK sees it: a handshake session belongs to this agent for good.

    For whom the agent acts is said by each request's own token, and may change while the handshake session lasts: a
    person's session ends, and the agent asks for another.
    """
    token = AccessToken(
        token="",
        client_id=caller.agent.name,
        scopes=[],
        subject=f"agent:{caller.agent.name}",
        claims={},
    )
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _CREDENTIALS]
    return {**scope, "headers": headers, "user": AuthenticatedUser(token), CALLER: caller}


def _visit(scope: Scope, receive: Receive, send: Send) -> Visit:
    lines = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    peer = source(scope["client"][0]) if scope.get("client") else LOCAL
    return Visit(scope=scope, receive=receive, send=send, lines=lines, headers=dict(lines), peer=peer)


async def _body(visit: Visit) -> bytes | Unreadable:
    large = Unreadable(
        status=413, code=INVALID_REQUEST, message=f"the body is larger than {limits.BODY_BYTES} bytes", closes=True
    )
    declared = visit.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdecimal() or len(declared) > 9 or int(declared) > limits.BODY_BYTES:
        return large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(limits.BODY_TIME.total_seconds()):
            while True:
                message = await visit.receive()
                if message["type"] == "http.disconnect":
                    return b""
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limits.BODY_BYTES:
                    return large
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        return Unreadable(status=408, code=INVALID_REQUEST, message="the body took too long to arrive", closes=True)


def _with_nonce(send: Send, nonce: str) -> Send:
    """`send`, with the nonce among the headers (RFC 9449 section 8.2)."""

    async def sends(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"dpop-nonce", nonce.encode())]}
        await send(message)

    return sends


def _replay(raw: bytes, receive: Receive) -> Receive:
    """The body as it was written again, once; after that whatever the client does (it may go away)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": raw, "more_body": False}

    return replay


async def _write(
    send: Send,
    status: int,
    code: int,
    text: str,
    message_id: str | int | None = None,
    *,
    data: Any = None,
    challenge: str | None = None,
    closes: bool = False,
) -> None:
    error: dict[str, Any] = {"code": code, "message": text}
    if data is not None:
        error["data"] = data
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if challenge is not None:
        headers.append((b"www-authenticate", challenge.encode("latin-1")))
    if closes:
        headers.append((b"connection", b"close"))
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = dump({"jsonrpc": "2.0", "id": message_id, "error": error})
    await send({"type": "http.response.body", "body": body, "more_body": False})
