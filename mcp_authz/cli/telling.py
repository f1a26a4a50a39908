"""What a serving gateway says of itself: its metrics and its spans, both read from the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

import anyio

from mcp_authz.config import Config, read_secret_file
from mcp_authz.metrics import Metrics
from mcp_authz.protocol.operations import MetricsRoute
from mcp_authz.spans import Spans
from mcp_authz.store.ports import Record, Store
from mcp_authz.telemetry import Telemetry
from mcp_authz.tracing import Tracing

_CLOSING = 6.0  # seconds that spans which wait may take at the end


class Telling:
    """Metrics and spans of one gateway."""

    def __init__(self, config: Config, store: Store) -> None:
        """Both are ready as the configuration wants them.

        Raises:
            ConfigError: the token cannot be read, or what spans need is not installed.
        """
        metrics = Metrics(config.servers)
        endpoint = config.otel.endpoint
        self._tracing = None if endpoint is None else Tracing(endpoint, version("mcp-authz"))
        listeners: list[Callable[[Record], None]] = []
        if config.metrics.enabled:
            listeners.append(lambda record: metrics.hear(record.event))
        if self._tracing is not None:
            listeners.append(Spans(self._tracing.send).hear)
        self._telemetry = Telemetry(store, listeners)
        self._listens = bool(listeners)
        self.routes: Sequence[MetricsRoute] = ()
        if config.metrics.enabled:
            named = config.metrics.token_file
            token = None if named is None else read_secret_file(config, named)
            self.routes = (
                MetricsRoute(
                    store=store, metrics=metrics, telemetry=self._telemetry, public_url=config.public_url, token=token
                ),
            )

    async def run(self) -> None:
        """Every record is heard of, without end; what waits to be sent at the end is sent if that is quick."""
        if not self._listens:
            return
        try:
            await self._telemetry.run()
        finally:
            if self._tracing is not None:
                with anyio.move_on_after(_CLOSING, shield=True):
                    await anyio.to_thread.run_sync(self._tracing.close, abandon_on_cancel=True)
