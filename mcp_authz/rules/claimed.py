"""What a caller says of itself and of its call, beside the arguments: recorded as claimed, believed by nobody.

The intent is the text of `dev.mcp-authz/intent`, which the gateway does not hand on; where that is missing, the
`invocationReason` of `io.modelcontextprotocol/aiInvocation`, which is a draft (SEP-2817).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.rules.display import visible
from mcp_authz.rules.message import OWN_META
from mcp_authz.rules.trace_context import MEMBER, read_traceparent

INTENT: Final = f"{OWN_META}intent"
_DRAFT: Final = "io.modelcontextprotocol/aiInvocation"
_CLIENT: Final = "io.modelcontextprotocol/clientInfo"


def claimed(meta: Mapping[str, Any]) -> dict[str, str]:
    """The members of a record that say what a request's `_meta` claims: its trace, its client, why it is made."""
    if not meta:
        return {}
    fields: dict[str, str] = {}
    if (trace := read_traceparent(meta.get(MEMBER))) is not None:
        fields |= {"trace": trace.trace, "span": trace.span}
    if client := _client(meta.get(_CLIENT)):
        fields["claimed_client"] = client
    if intent := _text(_intent(meta), limits.INTENT_RECORDED):
        fields["claimed_intent"] = intent
    return fields


def _intent(meta: Mapping[str, Any]) -> Any:
    if INTENT in meta:
        return meta[INTENT]
    draft = meta.get(_DRAFT)
    return draft.get("invocationReason") if isinstance(draft, dict) else None


def _client(info: Any) -> str:
    if not isinstance(info, dict):
        return ""
    return " ".join(filter(None, (_text(info.get(member), limits.CLIENT_NAME) for member in ("name", "version"))))


def _text(value: Any, most: int) -> str:
    """The text in at most so many characters, all of them visible; empty where it is none."""
    if not isinstance(value, str):
        return ""
    shown = visible(value[:most].strip())
    return shown if len(value) <= most and len(shown) <= most else f"{shown[: most - 1]}…"
