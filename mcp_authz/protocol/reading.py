"""Steps 1 and 2: one strict message, and headers that agree with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp.shared.inbound import (
    InboundLadderRejection,
    classify_inbound_request,
    decode_header_value,
    validate_mcp_param_headers,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.rules import strict_json
from mcp_authz.rules.message import TASKS, Message, read_message
from mcp_authz.rules.trace_context import MEMBER, with_traceparent

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020

_SINGLE: Final = frozenset(
    {"authorization", "content-length", "transfer-encoding", "content-type", "host", "dpop", "origin", "mcp-session-id"}
)
# In both eras: the SDK routes by the first of them, everything here reads the last.
_ROUTING: Final = frozenset({"mcp-protocol-version", "mcp-method", "mcp-name"})
_PARAMETER: Final = "mcp-param-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request as the edge read it, before anything is believed."""

    raw: bytes
    headers: tuple[tuple[str, str], ...]  # names in lower case, in the order received
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A request that steps 1 and 2 refuse: an HTTP status and a JSON-RPC error."""

    status: int
    code: int
    message: str
    data: Any = None
    closes: bool = False  # whether the rest of the request is not worth reading
    id: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A message that was read. `capabilities` are what the client declared in a 2026-07-28 envelope, None before it."""

    message: Message
    headers: Mapping[str, str]
    capabilities: Mapping[str, Any] | None

    @property
    def raw(self) -> bytes:
        """The message written again: what every later reader sees."""
        return strict_json.dump(self.message.body)


def check_headers(headers: tuple[tuple[str, str], ...]) -> Unreadable | None:
    """Refuse what two readers could read differently: repeated headers, two ways to say how long the body is."""
    names = [name for name, _ in headers]
    twice = sorted(name for name in _SINGLE if names.count(name) > 1)
    if twice:
        return Unreadable(status=400, code=INVALID_REQUEST, message=f"header `{twice[0]}` appears more than once")
    if (routed := _routed_twice(names)) is not None:
        return Unreadable(status=400, code=HEADER_MISMATCH, message=f"header `{routed}` appears more than once")
    if "content-length" in names and "transfer-encoding" in names:
        message = "`Content-Length` and `Transfer-Encoding` together; send one of them"
        return Unreadable(status=400, code=INVALID_REQUEST, message=message)
    if any(len(value) > limits.HEADER_BYTES for _, value in headers):
        return Unreadable(status=400, code=INVALID_REQUEST, message="a header is too long")
    return None


def _routed_twice(names: list[str]) -> str | None:
    twice = (name for name in names if name in _ROUTING or name.startswith(_PARAMETER))
    return next((name for name in twice if names.count(name) > 1), None)


def is_modern(headers: Mapping[str, str]) -> bool:
    """Whether the header names a revision without handshake (2026-07-28 and later)."""
    version = headers.get("mcp-protocol-version")
    return version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS


def read(request: Request) -> Read | Unreadable:
    """Return the request's one message, once headers and body say the same."""
    if (bad := check_headers(request.headers)) is not None:
        return bad
    headers = dict(request.headers)
    if headers.get("content-type", "").lower().split(";")[0].strip() != "application/json":
        return Unreadable(status=415, code=INVALID_REQUEST, message="send `Content-Type: application/json`")
    try:
        body = strict_json.parse_object(request.raw)
    except InputError as error:
        return Unreadable(status=400, code=PARSE_ERROR, message=f"the body cannot be read: {error}")
    try:
        body = with_traceparent(body, headers.get(MEMBER))
        message = read_message(body)
    except InputError as error:
        return Unreadable(status=400, code=INVALID_REQUEST, message=str(error))
    capabilities = None
    if is_modern(headers) and message.is_request:
        verdict = classify_inbound_request(body, headers=_stripped(headers))
        if isinstance(verdict, InboundLadderRejection):
            return Unreadable(status=400, code=verdict.code, message=verdict.message, data=verdict.data, id=message.id)
        if (wrong := _task_header(message, headers)) is not None:
            return Unreadable(status=400, code=HEADER_MISMATCH, message=wrong, id=message.id)
        declared = verdict.client_capabilities
        capabilities = declared if isinstance(declared, dict) else {}
    return Read(message=message, headers=headers, capabilities=capabilities)


def parameter_headers(schema: Any, arguments: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """How `Mcp-Param-*` headers contradict the arguments that the pinned schema annotates; None when they agree."""
    rejection = validate_mcp_param_headers(schema, arguments, headers)
    return None if rejection is None else rejection.message


def _task_header(message: Message, headers: Mapping[str, str]) -> str | None:
    """How `Mcp-Name` contradicts the id of the task that a request is about; None when they agree (SEP-2663)."""
    task = message.params.get("taskId") if message.method in TASKS else None
    if task is None or decode_header_value(_stripped(headers).get("mcp-name")) == task:
        return None
    return "mcp-name header does not match the request body's 'taskId' parameter"


def _stripped(headers: Mapping[str, str]) -> dict[str, str]:
    """Header values without the blanks around them, which are no part of a value (RFC 9110 section 5.5)."""
    return {name: value.strip(" \t") for name, value in headers.items()}
