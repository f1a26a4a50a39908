"""The trace that a request says it belongs to (W3C Trace Context); nothing is decided on it, and it proves nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

MEMBER: Final = "traceparent"
"""The header's name, and that of the `_meta` member of MCP 2026-07-28."""
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[!-~]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceParent:
    """The caller's trace, and the span in it that the call was made in."""

    trace: str  # 32 hex digits
    span: str  # 16 hex digits


def read_traceparent(value: object) -> TraceParent | None:
    """What the value says; None where it is no `traceparent` (section 3.2 of the standard: then it is ignored)."""
    if not isinstance(value, str) or len(value) > 128 or (found := _FORM.fullmatch(value)) is None:
        return None
    version, trace, span, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace.strip("0") or not span.strip("0"):
        return None
    return TraceParent(trace=trace, span=span)


def with_traceparent(body: dict[str, Any], header: str | None) -> dict[str, Any]:
    """The message with the header's trace in its `_meta`, where that has none of its own: one place for both."""
    params = body.get("params")
    if header is None or not isinstance(params, dict) or read_traceparent(header) is None:
        return body
    meta = params.get("_meta", {})
    if not isinstance(meta, dict) or MEMBER in meta:
        return body
    return {**body, "params": {**params, "_meta": {**meta, MEMBER: header}}}
