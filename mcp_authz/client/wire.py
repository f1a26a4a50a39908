"""The wire to the gateway: each message goes out signed in, in its session, and again when it was surely not heard."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio
import httpx2

from mcp_authz.client import exchange
from mcp_authz.client.asking import now
from mcp_authz.client.door import NoAnswer, SignInRefused
from mcp_authz.client.exchange import NonceWanted, NotSent, Response, Sending, SessionGone, Unauthorized
from mcp_authz.client.granted import Granted
from mcp_authz.client.handshake import INITIALIZED, Handshake, McpSession
from mcp_authz.client.known import ANSWERED
from mcp_authz.client.messages import Message, dump, modern_headers
from mcp_authz.client.parameters import Parameters
from mcp_authz.client.passing import as_passed
from mcp_authz.client.place import Place, Reached
from mcp_authz.client.signing import Signer
from mcp_authz.client.tokens import Purse
from mcp_authz.client.trouble import ENVELOPE, UNAUTHENTICATED, Trouble
from mcp_authz.rules.keys import PrivateKey

Deliver = Callable[[bytes, Mapping[str, Any], McpSession | None], Awaitable[None]]
"""What is done with a message of the gateway: its bytes, the same as it was read, the session it came in."""

REPEATABLE: Final = ANSWERED | {"ping"}  # nothing happens when they are heard twice
_SIGN_IN: Final = 10.0  # seconds
_NOTICE: Final = 10.0  # seconds for a message that has no answer; it delays those behind it
_OVER: Final = frozenset({"no_session", "session_over"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What one attempt to send a message goes by."""

    reached: Reached
    token: Granted
    session: McpSession | None


class Wire:
    """One client's way to one gateway, by the tokens in its purse.

    `on_session` hears of a session that was made anew, `on_change` of another identity or a gateway that is back.
    """

    def __init__(self, place: Place, purse: Purse) -> None:
        self._place = place
        self._tokens = purse
        self._possession = purse.possession
        self._opening = anyio.Lock()
        self._identity: tuple[str | None, str | None] | None = None
        self._lost = False
        self.handshake = Handshake()
        self.parameters = Parameters()
        self.on_session: Callable[[McpSession], None] = lambda _: None
        self.on_gone: Callable[[list[bytes]], Awaitable[None]] = _nothing
        self.on_change: Callable[[], None] = lambda: None

    @property
    def patience(self) -> float:
        """Seconds in which the gateway answers, if it can be had at all."""
        return self._place.patience

    async def prepare(self) -> None:
        """The gateway is there and the agent signed in, if both can be had: what is asked first is answered sooner."""
        with suppress(Trouble):
            await self._place.reach()
            await self._token()

    async def request(
        self, message: Message, deliver: Deliver, *, sending: Sending | None = None, start: bool = True
    ) -> None:
        """The request was answered: `deliver` had everything that came, the answer last.

        Raises:
            Trouble: it was not.
        """
        failed = set[type[Exception]]()
        while True:
            reached = await self._place.reach(start=start)
            way = Way(reached=reached, token=await self._token(), session=await self._session_of(message))
            sending = sending or Sending()
            sending.is_out = False
            try:
                await self._once(way, message, deliver, sending)
                self._is_there(way.token)
                return
            except (NotSent, Unauthorized, NonceWanted, SessionGone) as error:
                if type(error) in failed:
                    raise self._trouble(error) from None
                failed.add(type(error))
                await self._made_good(error, way)
            except Trouble as trouble:
                if trouble.reason != "broken":
                    raise self._tokens.refused(trouble) from None
                self._was_lost()
                if message.method not in REPEATABLE or NotSent in failed:
                    raise
                failed.add(NotSent)

    async def notify(self, raw: bytes, headers: Mapping[str, str]) -> None:
        """The message, which has no answer, was taken.

        Raises:
            Trouble: it was not; nobody waits for it.
        """
        failed = set[type[Exception]]()
        while True:
            reached = await self._place.reach(start=False)
            token = await self._token()
            lines = {**headers, **self._credentials(token, "POST", reached)}
            try:
                with anyio.fail_after(_NOTICE):
                    async with exchange.post(reached.http, reached.url, raw, lines, Sending()):
                        return
            except TimeoutError:
                raise Trouble("the gateway takes too long") from None
            except (Unauthorized, NonceWanted) as error:
                if type(error) in failed:
                    raise self._trouble(error) from None
                failed.add(type(error))
                await self._made_good(error, Way(reached=reached, token=token, session=None))
            except (NotSent, SessionGone) as error:
                raise self._trouble(error) from None

    @asynccontextmanager
    async def stream(self, session: McpSession) -> AsyncIterator[AsyncIterator[bytes]]:
        """The gateway's own messages of this session, while the body runs.

        Raises:
            SessionGone: it is over.
            Trouble: there is no such stream now.
        """
        reached = await self._place.reach(start=False)
        token = await self._token()
        headers = {**session.headers, **self._credentials(token, "GET", reached)}
        try:
            async with exchange.listen(reached.http, reached.url, headers) as messages:
                yield messages
        except (Unauthorized, NonceWanted) as error:
            await self._made_good(error, Way(reached=reached, token=token, session=session))
            raise self._trouble(error) from None
        except NotSent as error:
            self._was_lost()
            raise self._trouble(error) from None

    async def gone(self, session: McpSession) -> None:
        """The gateway does not know this session any more."""
        await self.on_gone(self.handshake.forget(session))

    async def aclose(self) -> None:
        """The gateway knows that the session is over, if it can be told at once; all connections are closed."""
        session = self.handshake.session
        with anyio.move_on_after(1.0, shield=True):
            if session is not None and not self._lost:
                try:
                    reached, token = await self._place.reach(start=False), await self._token()
                    headers = {**session.headers, **self._credentials(token, "DELETE", reached)}
                    await reached.http.delete(reached.url, headers=headers)
                except (Trouble, httpx2.HTTPError):
                    pass
            await self._place.aclose()

    async def _once(self, way: Way, message: Message, deliver: Deliver, sending: Sending) -> None:
        headers = {**self._credentials(way.token, "POST", way.reached), **modern_headers(message)}
        headers |= way.session.headers if way.session is not None else self.parameters.headers(message)
        answered = False
        try:
            raw = as_passed(message, _signer(way), at=now())
            async with exchange.post(way.reached.http, way.reached.url, raw, headers, sending) as response:
                self._possession.heard(way.reached.resource, response.headers)
                async for raw in response.messages:
                    body, whole = _body(raw), raw
                    if "method" not in body and not answered:
                        answered = True
                        whole = raw if body.get("id") == message.id else dump({**body, "id": message.id})
                        await self._heard(message, body, way.token, response)
                    await deliver(whole, body, way.session)
        except Trouble:
            if not answered:
                raise
        if not answered:
            raise Trouble("the connection to the gateway broke before it answered", reason="broken", may_have_run=True)

    def _credentials(self, token: Granted, method: str, reached: Reached) -> dict[str, str]:
        """What shows, in this one request, that the token is ours."""
        return token.credentials(self._possession, method, reached.resource, at=now())

    async def _heard(self, message: Message, body: Mapping[str, Any], token: Granted, response: Response) -> None:
        """What the answer means for later messages is known."""
        result = body.get("result")
        if not isinstance(result, dict):
            return
        if message.method == "initialize" and exchange.SESSION in response.headers:
            version = result.get("protocolVersion")
            self.handshake.opened(response.headers[exchange.SESSION], version if isinstance(version, str) else "")
        if message.method == "tools/list":
            await self.parameters.learn(result.get("tools"))
        if message.method == "tools/call":
            meta = result.get("_meta")
            said = meta.get(ENVELOPE) if isinstance(meta, dict) else None
            self._outcome(message, result, said if isinstance(said, dict) else {}, token)

    def _outcome(self, message: Message, result: Mapping[str, Any], said: Mapping[str, Any], token: Granted) -> None:
        if said.get("reason") in _OVER:
            self._tokens.drop(token)
        elif message.params.get("name") == "authz__request_session" and not result.get("isError"):
            session = said.get("session")
            self._tokens.drop(token, session=session if isinstance(session, str) else None)

    async def _session_of(self, message: Message) -> McpSession | None:
        """The session that the message belongs to, made anew if the gateway has forgotten it."""
        shake = self.handshake
        if message.is_modern or message.method == "initialize" or shake.asked is None:
            return None
        if shake.session is not None:
            return shake.session
        async with self._opening:
            if shake.session is None:
                await self._open()
        return shake.session

    async def _open(self) -> None:
        shake = self.handshake
        refusals = list[Mapping[str, Any]]()

        async def heard(_: bytes, body: Mapping[str, Any], __: McpSession | None) -> None:
            if isinstance(body.get("error"), dict):
                refusals.append(body["error"])

        await self.request(shake.introduction(), heard)
        if refusals or (session := shake.session) is None:
            raise Trouble("the gateway opens no session", passed=refusals[0] if refusals else None)
        await self.notify(INITIALIZED, session.headers)
        session.announced = True
        if shake.level is not None:  # its answer is the client's of long ago
            await self.notify(shake.level.raw, session.headers)
        self.on_session(session)

    async def _token(self) -> Granted:
        try:
            return await self._tokens.current()
        except SignInRefused as error:
            raise Trouble(str(error), reason="sign_in", rpc_code=UNAUTHENTICATED) from None
        except NoAnswer as error:
            self._was_lost()
            raise Trouble(f"{error}; call again when it is back, nothing has to be restarted") from None

    async def _made_good(self, error: Exception, way: Way) -> None:
        """What stood in the way is out of the way, as far as that is in our power."""
        match error:
            case Unauthorized():
                self._tokens.drop(way.token)
            case NonceWanted():
                self._possession.heard(way.reached.resource, error.args[0])
            case SessionGone():
                if way.session is None:
                    raise self._trouble(error)
                await self.gone(way.session)
            case _:
                self._was_lost()

    def _trouble(self, error: Exception) -> Trouble:
        match error:
            case NonceWanted():
                return Trouble("the gateway takes no proof of the agent's key, each time for want of another nonce")
            case Unauthorized():
                return self._tokens.kept_out(str(error))
            case SessionGone():
                return Trouble("the gateway forgets each session at once; its log may say why")
        return Trouble("no gateway answers; call again when it is back, nothing has to be restarted")

    def _was_lost(self) -> None:
        self._lost = True
        self._place.lost()

    def _is_there(self, token: Granted) -> None:
        identity, before = (token.session, token.subject), self._identity
        lost, self._lost, self._identity = self._lost, False, identity
        if lost or before not in (None, identity):
            self.on_change()


def _body(raw: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Trouble("the gateway answered with something that is no message", reason="broken", may_have_run=True)
    return body


def _signer(way: Way) -> Signer | None:
    link, key = way.token.link, way.token.key
    if link is None or not isinstance(key, PrivateKey):
        return None
    return Signer(key=key, link=link, resource=way.reached.resource)


async def _nothing(_: list[bytes]) -> None:
    return
