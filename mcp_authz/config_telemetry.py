"""What the gateway says of itself to those who run it: metrics for Prometheus, spans for OpenTelemetry."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, field_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MetricsConfig(_Strict):
    """Who may read `/metrics`."""

    enabled: bool = True
    token_file: str | None = None


class OtelConfig(_Strict):
    """Where spans are sent to by OTLP over HTTP; nowhere without an endpoint."""

    endpoint: str | None = None

    @field_validator("endpoint")
    @classmethod
    def _a_url(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(
                "write http://HOST:4318 or https://HOST/PATH; `/v1/traces` is added where there is no path"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError("no credentials in the URL; $OTEL_EXPORTER_OTLP_HEADERS has them")
        return endpoint
