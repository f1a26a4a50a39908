"""The handshake era: one MCP session with the gateway at a time, made anew by us when the gateway forgot it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_authz.client.messages import Id, Message, dump, made

OWN_ID: Final = "mcp-authz-connect"
"""The id of requests that we make ourselves; each is alone on its connection."""

INITIALIZED: Final = dump({"jsonrpc": "2.0", "method": "notifications/initialized"})


@dataclass(slots=True)
class McpSession:
    """One MCP session as the gateway knows it."""

    number: int  # the first, the second ... of this client
    id: str
    version: str
    announced: bool = False  # whether the gateway heard `notifications/initialized`

    @property
    def headers(self) -> dict[str, str]:
        """What every later message of the session carries."""
        return {"mcp-session-id": self.id, "mcp-protocol-version": self.version}


@dataclass(slots=True)
class Handshake:
    """What the client said when it introduced itself, and the session that this led to."""

    asked: Mapping[str, Any] | None = None  # the parameters of its `initialize`
    client_is_ready: bool = False  # whether it sent `notifications/initialized`
    level: Message | None = None  # its last `logging/setLevel`
    session: McpSession | None = None
    _count: int = 0
    _questions: dict[Id, tuple[McpSession, Id]] = field(default_factory=dict)

    def opened(self, id_: str, version: str) -> McpSession:
        """There is a new session."""
        self._count += 1
        self.session = McpSession(number=self._count, id=id_, version=version)
        return self.session

    def forget(self, session: McpSession) -> list[bytes]:
        """The gateway does not know this session any more; returns what the client is told of its open questions."""
        if self.session is session:
            self.session = None
        over = [shown for shown, (asked_in, _) in self._questions.items() if asked_in is session]
        for shown in over:
            del self._questions[shown]
        return [_cancelled(shown) for shown in over]

    def introduction(self) -> Message:
        """The `initialize` request of ours, in the client's words."""
        return made({"jsonrpc": "2.0", "id": OWN_ID, "method": "initialize", "params": dict(self.asked or {})})

    def asks(self, session: McpSession, body: Mapping[str, Any], raw: bytes) -> bytes:
        """Return a question, or the end of one, as the client gets it.

        Each session of the gateway numbers its questions from the start: an answer to an old one must not become the
        answer to a new one.
        """
        if body.get("method") == "notifications/cancelled":
            params = body.get("params")
            asked = params.get("requestId") if isinstance(params, dict) else None
            shown = _shown(session, asked)
            if shown not in self._questions or shown == asked:
                return raw
            return dump({**body, "params": {**dict(params or {}), "requestId": shown}})
        shown = _shown(session, body["id"])
        self._questions[shown] = (session, body["id"])
        return raw if shown == body["id"] else dump({**body, "id": shown})

    def answers(self, message: Message) -> tuple[McpSession, bytes] | None:
        """Return the session that asked, and the client's answer as it knows it; None when nobody asked."""
        found = self._questions.pop(message.id, None) if message.id is not None else None
        if found is None:
            return None
        session, asked = found
        return session, message.raw if asked == message.id else dump({**message.body, "id": asked})


def _shown(session: McpSession, id_: Any) -> Any:
    return id_ if session.number == 1 else f"{session.number}:{id_}"


def _cancelled(id_: Id) -> bytes:
    params = {"requestId": id_, "reason": "the gateway that asked is gone"}
    return dump({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
