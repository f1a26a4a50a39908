"""`/metrics` for whoever runs the gateway: denied to everybody who is neither on this machine nor has the token."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mcp_authz.errors import StoreError
from mcp_authz.metrics import TYPE, Metrics
from mcp_authz.model import HoldState
from mcp_authz.protocol.endpoint import allowed_hosts
from mcp_authz.store.ports import Store
from mcp_authz.telemetry import Telemetry


class MetricsRoute(Route):
    """The counters, as Prometheus asks for them.

    With a token whoever has it may ask. Without one only this machine may, and only a gateway that is there for this
    machine alone: where a proxy brings requests from the network, all of them come from this machine.
    """

    def __init__(
        self, *, store: Store, metrics: Metrics, telemetry: Telemetry, public_url: str, token: str | None
    ) -> None:
        self._store, self._metrics, self._telemetry = store, metrics, telemetry
        self._token = token
        self._hosts = allowed_hosts(public_url)
        self._is_local = urlsplit(public_url).hostname in {"localhost", "127.0.0.1", "::1"}
        super().__init__("/metrics", self._answer, methods=["GET"])

    async def _answer(self, request: Request) -> Response:
        if request.headers.get("host") not in self._hosts or not self._may(request):
            return PlainTextResponse("not found\n", status_code=404)
        try:
            await self._telemetry.catch_up()
            text = self._metrics.text(await self._gauges())
        except StoreError:
            return PlainTextResponse("the store cannot be read\n", status_code=503)
        return Response(text, media_type=TYPE, headers={"cache-control": "no-store"})

    def _may(self, request: Request) -> bool:
        if self._token is not None:
            given = request.headers.get("authorization", "")
            return hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())
        # A browser sends Origin with what a page of another site asks for; Prometheus has none.
        return self._is_local and "origin" not in request.headers and _is_here(request)

    async def _gauges(self) -> Mapping[str, tuple[str, float]]:
        sequence, _ = await self._store.head()
        waiting = len(await self._store.holds(states=[HoldState.PENDING]))
        return {
            "mcp_authz_holds_waiting": ("Held calls that wait for a person.", waiting),
            "mcp_authz_log_sequence": ("The number of the last record of the log.", sequence),
            "mcp_authz_store_queue": ("Writes that wait for the disk.", getattr(self._store, "queued", 0)),
        }


def _is_here(request: Request) -> bool:
    if request.client is None or not request.client.host:  # the Unix socket
        return True
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False
