"""One JSON-RPC message of a client, read from its line, and the HTTP headers that it goes on with."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz.errors import InputError

Id = str | int

VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")
_ENCODED: Final = re.compile(r"=\?base64\?.*\?=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as it was read. `id` is None for a notification, `method` is None for a response."""

    raw: bytes  # the line, without its end
    body: Mapping[str, Any]
    id: Id | None
    method: str | None

    @property
    def is_request(self) -> bool:
        """Whether an answer is owed."""
        return self.method is not None and self.id is not None

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters, empty when there are none."""
        params = self.body.get("params")
        return params if isinstance(params, dict) else {}

    @property
    def meta(self) -> Mapping[str, Any]:
        """The request's `_meta`, empty when there is none."""
        meta = self.params.get("_meta")
        return meta if isinstance(meta, dict) else {}

    @property
    def version(self) -> str | None:
        """The revision that the message itself names: 2026-07-28 or later, None in the handshake era."""
        version = self.meta.get(VERSION_KEY)
        return version if isinstance(version, str) else None

    @property
    def is_modern(self) -> bool:
        """Whether the message is of 2026-07-28, without handshake."""
        return self.version is not None


def read(line: bytes) -> Message:
    """Return the message that the line is; whether its parts are right is for the gateway to say.

    Raises:
        InputError: it is no JSON object, or its `id` is none.
    """
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError("the line is not JSON") from None
    if not isinstance(body, dict):
        raise InputError("the line is not one JSON object")
    id_, method = body.get("id"), body.get("method")
    if isinstance(id_, bool) or not isinstance(id_, str | int | None):
        raise InputError("`id` must be a string or an integer")
    return Message(raw=line, body=body, id=id_, method=method if isinstance(method, str) else None)


def made(body: Mapping[str, Any]) -> Message:
    """Return the message with this body, as if it had been read."""
    return read(dump(body))


def dump(value: Any) -> bytes:
    """Return `value` as JSON on one line, nothing of it changed."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def modern_headers(message: Message) -> dict[str, str]:
    """The headers that repeat what a 2026-07-28 message says, for those who route by them."""
    if message.version is None:
        return {}
    headers = {"mcp-protocol-version": header_value(message.version), "mcp-method": header_value(message.method or "")}
    named = message.params.get(NAMED_BY.get(message.method or "", ""))
    if isinstance(named, str):
        headers["mcp-name"] = header_value(named)
    return headers


def header_value(text: str) -> str:
    """Return the text as a header carries it: in base64 when it would not survive as it is."""
    if _PLAIN.fullmatch(text) and text == text.strip() and not _ENCODED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8', 'surrogatepass')).decode()}?="
