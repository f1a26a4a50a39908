"""2026-07-28: the client's open `subscriptions/listen` requests, which outlive the gateway that serves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from mcp_authz.client.messages import Id, Message, dump

METHOD: Final = "subscriptions/listen"
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_KEY: Final = "io.modelcontextprotocol/subscriptionId"


@dataclass(slots=True)
class Subscription:
    """One request of the client's that stays open."""

    message: Message
    acknowledged: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def id(self) -> Id:
        """The request's id, by which the client knows what it is told."""
        assert self.message.id is not None  # noqa: S101 - a request
        return self.message.id

    @property
    def wants_tools(self) -> bool:
        """Whether the client wants to hear of changes of the tool list."""
        return self._asked.get("toolsListChanged") is True

    def passes(self, raw: bytes) -> bool:
        """Whether the client is told this; that it is heard it is told once."""
        if json.loads(raw).get("method") != _ACKNOWLEDGED:
            return True
        first, self.acknowledged = not self.acknowledged, True
        return first

    def acknowledgement(self) -> bytes | None:
        """What a client is told that listens while there is no gateway; None when it was told."""
        if self.acknowledged:
            return None
        self.acknowledged = True
        return self._notification(_ACKNOWLEDGED, notifications={"toolsListChanged": True} if self.wants_tools else {})

    def tools_changed(self) -> bytes:
        """What tells the client to list the tools again."""
        return self._notification("notifications/tools/list_changed")

    @property
    def _asked(self) -> Mapping[str, Any]:
        asked = self.message.params.get("notifications")
        return asked if isinstance(asked, dict) else {}

    def _notification(self, method: str, **params: Any) -> bytes:
        return dump({"jsonrpc": "2.0", "method": method, "params": {**params, "_meta": {_KEY: self.id}}})
