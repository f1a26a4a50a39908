"""Spans on their way to an OpenTelemetry collector, by OTLP over HTTP; the only door to opentelemetry, an extra.

The library sends from a thread of its own, with a bounded queue: spans that find no room are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from mcp_authz.errors import ConfigError
from mcp_authz.spans import Span

_PATH: Final = "/v1/traces"
_SECONDS: Final = 5  # that one attempt to send may take


class Tracing:
    """Sends spans, until it is closed."""

    def __init__(self, endpoint: str, version: str) -> None:
        """Spans go to `endpoint`.

        Raises:
            ConfigError: the extra is not installed.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise ConfigError("`otel.endpoint` needs an extra; run: pip install 'mcp-authz[otel]'") from None
        url = endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + _PATH
        provider = TracerProvider(
            resource=Resource.create({"service.name": "mcp-authz", "service.version": version}), shutdown_on_exit=False
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=_SECONDS)))
        self._tracer = provider.get_tracer("mcp-authz", version)
        self._trace = trace
        self.close: Callable[[], None] = provider.shutdown  # what waits is sent, once
        self.flush: Callable[[], bool] = provider.force_flush

    def send(self, span: Span) -> None:
        """The span is on its way, if there is room for it."""
        api = self._trace
        parent = None
        if span.trace is not None and span.parent is not None:
            of = api.SpanContext(
                int(span.trace, 16), int(span.parent, 16), is_remote=True, trace_flags=api.TraceFlags(1)
            )
            parent = api.set_span_in_context(api.NonRecordingSpan(of))
        made = self._tracer.start_span(
            span.name,
            context=parent,
            kind=api.SpanKind.SERVER,
            attributes=dict(span.attributes),
            start_time=_nanoseconds(span.began_at),
        )
        if span.error is not None:
            made.set_status(api.Status(api.StatusCode.ERROR, span.error))
        made.end(_nanoseconds(span.ended_at))


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000
