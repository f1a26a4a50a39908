"""The ASGI application: the MCP endpoint, the authorization server beside it, and health."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from importlib.metadata import version

import anyio
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from mcp_authz import limits
from mcp_authz.errors import StoreError, StoreUpgraded
from mcp_authz.gateway import Gateway
from mcp_authz.identity import Identifier
from mcp_authz.ids import new_id
from mcp_authz.principals import Once
from mcp_authz.protocol.answers import Places
from mcp_authz.protocol.endpoint import Endpoint
from mcp_authz.protocol.server import FrontServer
from mcp_authz.protocol.throttle import Refusals, summed_up
from mcp_authz.rules.peer import Network, peer
from mcp_authz.seldom import trouble
from mcp_authz.store.ports import Clock, Event, Store

FLUSH_SECONDS = 60.0
_NOT_READY = "the store cannot be read and written"
READY_SECONDS = 2.0  # for which an answer stands: whoever asks more often does not keep the disk busy
READY_PATIENCE = 5.0  # seconds that a ready store may take


class Entrance:
    """Where requests come in; those for the endpoint, which are nearly all, are spared the routing.

    Whoever one of `proxies` names is who sends a request: to records, and to what counts refusals of strangers.
    """

    def __init__(self, endpoint: Endpoint, others: Starlette, proxies: tuple[Network, ...] = ()) -> None:
        self._endpoint = endpoint
        self._others = others
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._proxies and scope["type"] == "http" and scope.get("client"):
            forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
            if (sender := peer(scope["client"][0], forwarded, self._proxies)) is not None:
                scope = {**scope, "client": (sender, 0)}
        if scope["type"] == "http" and scope["path"] == "/mcp":
            await self._endpoint(scope, receive, send)
        else:
            await self._others(scope, receive, send)


logging.getLogger("sse_starlette.sse").setLevel(logging.INFO)  # below that it writes down what it sends: results


class App:
    """Everything that listens on the public URL, and the tasks it needs while it does."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        identifier: Identifier,
        store: Store,
        clock: Clock,
        public_url: str,
        routes: Sequence[BaseRoute],
        refusals: Refusals,
        proxies: tuple[Network, ...] = (),
    ) -> None:
        places = Places(
            resource=f"{public_url}/mcp",
            resource_metadata=f"{public_url}/.well-known/oauth-protected-resource/mcp",
            holds=f"{public_url}/holds",
        )
        self.front = FrontServer(gateway, version=version("mcp-authz"), places=places, clock=clock)
        self._store, self._clock, self._refusals = store, clock, refusals
        self._looked_at, self._looking = -READY_SECONDS, anyio.Lock()
        self._why_not: str | None = _NOT_READY
        self._manager = StreamableHTTPSessionManager(
            self.front,
            # Host and Origin are checked at the endpoint, for every request alike.
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            max_request_body_size=limits.BODY_BYTES,
        )
        endpoint = Endpoint(
            gateway=gateway,
            identifier=identifier,
            manager=self._manager,
            public_url=public_url,
            places=places,
            server_info=self.front.server_info_stamp,
            refusals=refusals,
            remember=store.remember,
            proxies=proxies,
        )
        others = Starlette(
            routes=[
                Route("/mcp", endpoint),
                Route("/healthz", self._health),
                Route("/readyz", self._readiness),
                *routes,
            ],
            lifespan=self._lifespan,
        )
        self.asgi = Entrance(endpoint, others, proxies)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self._manager.run(), anyio.create_task_group() as group:
            group.start_soon(self._flush_refusals)
            yield
            group.cancel_scope.cancel()
        await self._write_refusals()

    async def _flush_refusals(self) -> None:
        while True:
            await anyio.sleep(FLUSH_SECONDS)
            await self._write_refusals()

    async def _write_refusals(self) -> None:
        """What was refused before its sender was known is on record, for each reason and source; or counted still."""
        taken = self._refusals.take()
        events = [
            Event(kind="refusals", at=self._clock(), fields={"reason": reason, "source": source, "count": count})
            for reason, source, count in summed_up(taken)
        ]
        is_recorded = False
        try:
            with anyio.CancelScope(shield=True):  # or nobody could say whether they were
                is_recorded = not events or await self._store.append_spare(events)
        except StoreError as error:
            trouble.error(error, "counted refusals are not recorded yet: %s", error)
        finally:
            if not is_recorded:
                self._refusals.put_back(taken)

    async def _health(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def _readiness(self, _: Request) -> JSONResponse:
        """Whether a call could be recorded now; the policy was loaded before anything listened, and stays loaded."""
        async with self._looking:
            if time.monotonic() >= self._looked_at + READY_SECONDS:
                self._why_not = await _why_not_writable(self._store, self._clock())
                self._looked_at = time.monotonic()
        if self._why_not is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "why": self._why_not}, status_code=503)


async def _why_not_writable(store: Store, at: datetime) -> str | None:
    """None if the store can be written and read; what is written is forgotten soon."""
    with anyio.move_on_after(READY_PATIENCE):
        try:
            once = Once(kind="ready", id=new_id("o"), expires_at=at + timedelta(seconds=READY_SECONDS))
            if await store.remember(once) and (await store.head())[0] >= 0:
                return None
        except StoreUpgraded as error:
            return str(error)
        except StoreError:
            pass
    return _NOT_READY
