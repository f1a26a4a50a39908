"""What one JSON-RPC message is: a request, a notification or a response, read from an object that is already strict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_authz.errors import InputError

OWN_META: Final = "dev.mcp-authz/"
"""The `_meta` prefix that is ours; it is stripped from everything that passes, in both directions."""

TASKS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
"""The methods about a call that its caller looks after by polling (SEP-2663); handshake clients do not have them."""

GOVERNED: Final = frozenset({"tools/call", "resources/read", "prompts/get", "completion/complete", *TASKS})
"""The methods that reach a tool server, now or with a later poll; whatever does so takes the whole road."""

CLOSED_TABLE: Final = frozenset(
    {
        "initialize",
        "server/discover",
        "ping",
        "tools/list",
        "subscriptions/listen",
        "logging/setLevel",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
        *GOVERNED,
    }
)
"""Every request method there is; a method that is not in it is refused, whatever a tool server may offer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a client. `id` is None for a notification, `method` is None for a response."""

    id: str | int | None
    method: str | None
    params: Mapping[str, Any]
    body: Mapping[str, Any]
    client: Mapping[str, Any] = field(default_factory=dict)  # what it said of itself at a handshake, as `meta` has it

    @property
    def is_request(self) -> bool:
        """Whether an answer is owed."""
        return self.method is not None and self.id is not None

    @property
    def meta(self) -> Mapping[str, Any]:
        """The request's `_meta`, empty when there is none."""
        meta = self.params.get("_meta")
        return meta if isinstance(meta, dict) else {}

    @property
    def claims(self) -> Mapping[str, Any]:
        """What its sender claims, in `_meta` and at the handshake."""
        return {**self.client, **self.meta} if self.client else self.meta


def read_message(body: Mapping[str, Any]) -> Message:
    """Return the message (JSON-RPC 2.0 sections 4 and 5; MCP: `id` is a string or an integer, never null).

    Raises:
        InputError: it is none of the three kinds, or a member has the wrong type.
    """
    if body.get("jsonrpc") != "2.0":
        raise InputError('`jsonrpc` must be "2.0"')
    unknown = body.keys() - {"jsonrpc", "id", "method", "params", "result", "error"}
    if unknown:
        raise InputError("the message has members that JSON-RPC does not know")
    if "id" in body and (isinstance(body["id"], bool) or not isinstance(body["id"], str | int)):
        raise InputError("`id` must be a string or an integer")
    if "method" not in body:
        if "id" not in body or ("result" in body) == ("error" in body) or "params" in body:
            raise InputError("the message is neither a request nor a notification nor a response")
        return Message(id=body["id"], method=None, params={}, body=body)
    method, params = body["method"], body.get("params", {})
    if not isinstance(method, str) or not method or "result" in body or "error" in body:
        raise InputError("`method` must be a string, and a request has neither `result` nor `error`")
    if not isinstance(params, dict):
        raise InputError("`params` must be an object")
    if "_meta" in params and not isinstance(params["_meta"], dict):
        raise InputError("`_meta` must be an object")
    return Message(id=body.get("id"), method=method, params=params, body=body)


def without_own_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The `_meta` members that are not ours."""
    return {key: value for key, value in meta.items() if not key.startswith(OWN_META)}
