"""For tool servers behind the gateway: on whose behalf is this call made, and by whom?

    verifier = Verifier("https://authz.example.com", audience="billing")
    context = await verifier.check(ctx.params.get("_meta"), tool="refund", arguments=arguments)
    context.subject, context.actor, context.approval

docs/context-token.md has the format, and what a verifier in another language has to check.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import anyio.to_thread

from mcp_authz import limits
from mcp_authz.errors import AuthzError, SignatureRefused
from mcp_authz.model import Assurance
from mcp_authz.principals import Mode
from mcp_authz.published_keys import PublishedKeys, read_jwks
from mcp_authz.rules import jose
from mcp_authz.rules.context_token import HEADER, META, Approved, CallContext, Expected, read_context
from mcp_authz.rules.keys import PublicKey

__all__ = ["Approved", "Assurance", "CallContext", "Mode", "NotAuthorized", "Verifier"]

_RETRY: Final = frozenset({"_meta", "inputResponses", "requestState"})  # parameters that are no arguments


class NotAuthorized(AuthzError):
    """No context token, or one that is not for exactly this call; its message may be shown to the caller."""

    code: ClassVar[str] = "not_authorized"


class Verifier:
    """Checks the context tokens that one gateway gives one tool server; make one, and keep it as long as the server.

    A token counts once: ids are remembered in this object until they would have expired. `check` is for code that runs
    in an event loop, `check_sync` for all other; threads may share one verifier.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str,
        keys: Mapping[str, Any] | None = None,
        remember: int = limits.CONTEXTS_REMEMBERED,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Believe the gateway whose public URL is `issuer`.

        `audience` is the server's name in the gateway's configuration, or its `context_audience`. `keys` is the JWK Set
        that the gateway publishes, for a server that cannot reach it; without it the set is fetched when needed.
        `remember` is how many calls within 90 seconds can be told from replayed ones; further ones are refused.

        Raises:
            InputError, KeyRefused: `issuer` is no URL to fetch keys from, or `keys` is no JWK Set.
        """
        self._issuer = issuer.rstrip("/")
        self._audience = audience
        self._given = None if keys is None else read_jwks(keys)
        self._published = PublishedKeys(self._issuer) if keys is None else None
        self._clock = clock
        self._seen = _Seen(remember)

    async def check(
        self, carrier: Mapping[str, Any] | str | None, *, tool: str, arguments: Mapping[str, Any] | None
    ) -> CallContext:
        """Return what the gateway says of this call; the token counts for it and cannot be shown again.

        `carrier` is the request's `_meta`, its HTTP headers, or the token itself. `tool` is the name that this server
        gives the tool, `arguments` what came over the wire: as they were sent, before defaults and conversions.

        Raises:
            NotAuthorized: there is no token, or it is not for exactly this call and server, just now and once.
        """
        token = _read(carrier)
        if self._published is not None and self._published.known(token.kid or "") is None:
            await anyio.to_thread.run_sync(self._key, token.kid or "")
        return self._checked(token, tool, arguments or {})

    def check_sync(
        self, carrier: Mapping[str, Any] | str | None, *, tool: str, arguments: Mapping[str, Any] | None
    ) -> CallContext:
        """Return what `check` returns, without an event loop.

        Raises:
            NotAuthorized: as `check`.
        """
        return self._checked(_read(carrier), tool, arguments or {})

    async def check_request(self, ctx: Any) -> CallContext:
        """Return what `check` returns, for the request that a handler of the MCP Python SDK is given as its context.

        Takes the lowlevel `ctx` of handlers and middleware, and the `Context` of `MCPServer` tools.

        Raises:
            NotAuthorized: as `check`.
        """
        request = getattr(ctx, "request_context", ctx)
        params: Mapping[str, Any] = request.params or {}
        if request.method == "tools/call":
            tool, arguments = str(params.get("name")), params.get("arguments")
        else:  # reading a resource, getting a prompt, completing: the method stands for itself
            tool, arguments = request.method, {k: v for k, v in params.items() if k not in _RETRY}
        return await self.check(params.get("_meta"), tool=tool, arguments=arguments)

    def _checked(self, token: jose.UnverifiedJws, tool: str, arguments: Mapping[str, Any]) -> CallContext:
        expected = Expected(issuer=self._issuer, audience=self._audience, tool=tool, arguments=arguments)
        key, now = self._key(token.kid or ""), self._clock()
        try:
            context = read_context(token, key, expected, now=now)
        except SignatureRefused as error:
            raise NotAuthorized(str(error)) from None
        self._seen.require_new(context, now)
        return context

    def _key(self, kid: str) -> PublicKey:
        try:
            if self._published is not None:
                return self._published.known(kid) or self._published.find(kid)
        except SignatureRefused as error:
            raise NotAuthorized(str(error)) from None
        if self._given is None or kid not in self._given:
            raise NotAuthorized("the context token's `kid` is not one of the keys that this server was given")
        return self._given[kid]


class _Seen:
    """The ids of accepted tokens, each until no clock would take it any more; bounded, and full means refused."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._until: dict[str, datetime] = {}  # in the order in which they were seen, which is nearly that of expiry
        self._lock = threading.Lock()

    def require_new(self, context: CallContext, now: datetime) -> None:
        """Return only the first time; whoever has no signed token cannot fill the memory.

        Raises:
            NotAuthorized: it was seen before, or there are too many to tell.
        """
        with self._lock:
            while self._until and self._until[first := next(iter(self._until))] < now:
                del self._until[first]
            if context.id in self._until:
                raise NotAuthorized("the context token was used before; each call has one of its own")
            if len(self._until) >= self._most:
                raise NotAuthorized("too many calls within a minute to tell a replayed one; try again in a minute")
            self._until[context.id] = context.expires_at + limits.CLOCK_SKEW


def _read(carrier: Mapping[str, Any] | str | None) -> jose.UnverifiedJws:
    """The token in `_meta`, in headers of any spelling, or by itself; nothing of it is believed."""
    token: Any = carrier
    if carrier is not None and not isinstance(carrier, str):
        headers = (value for name, value in carrier.items() if name.lower() == HEADER.lower())
        token = carrier[META] if META in carrier else next(headers, None)
    if token is None:
        raise NotAuthorized("the call carries no context token; this tool is to be called through the gateway")
    if not isinstance(token, str):
        raise NotAuthorized("the context token is not text")
    try:
        return jose.read(token)
    except SignatureRefused as error:
        raise NotAuthorized(str(error)) from None
