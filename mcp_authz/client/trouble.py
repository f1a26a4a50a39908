"""What is wrong between a client and the gateway, in one sentence that a model and a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mcp_authz.client.messages import Message
from mcp_authz.errors import AuthzError

UNAUTHENTICATED: Final = 40100
FORBIDDEN: Final = 40300
INTERNAL_ERROR: Final = -32603
ENVELOPE: Final = "dev.mcp-authz/outcome"
NOTHING_RAN: Final = "Nothing was run."
MAY_HAVE_RUN: Final = "It may have run: look before you call again."


class Trouble(AuthzError):
    """A message that the gateway did not answer.

    Attributes:
        reason: `gateway` (it cannot be reached), `sign_in` (it lets the agent not in) or `broken` (during the call).
        rpc_code: what a JSON-RPC error says of it.
        may_have_run: whether the call may have reached its tool.
        passed: the JSON-RPC error that the gateway itself answered, when there is one.
        refused: whether it was this very message that the gateway did not want, and another would pass.
        scope: the scopes that it would have taken, where the token had too few.
    """

    code: ClassVar[str] = "unreachable"

    def __init__(
        self,
        sentence: str,
        *,
        reason: str = "gateway",
        rpc_code: int = INTERNAL_ERROR,
        may_have_run: bool = False,
        passed: Mapping[str, Any] | None = None,
        refused: bool = False,
        scope: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.rpc_code = rpc_code
        self.may_have_run = may_have_run
        self.passed = passed
        self.refused = refused
        self.scope = scope

    @property
    def text(self) -> str:
        """What is wrong, whether anything ran, and what to do."""
        sentence = str(self)
        return f"{sentence[:1].upper()}{sentence[1:]}. {MAY_HAVE_RUN if self.may_have_run else NOTHING_RAN}"


def told(trouble: Trouble, message: Message) -> dict[str, Any]:
    """The answer to the request: of a tool call a result that a model reads, of others a JSON-RPC error."""
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message.id}
    if trouble.passed is not None:
        return {**answer, "error": dict(trouble.passed)}
    envelope = {"outcome": "unreachable", "reason": trouble.reason, "may_have_run": trouble.may_have_run}
    if message.method != "tools/call":
        return {**answer, "error": {"code": trouble.rpc_code, "message": trouble.text, "data": envelope}}
    result = {"content": [{"type": "text", "text": trouble.text}], "isError": True, "_meta": {ENVELOPE: envelope}}
    return {**answer, "result": {"resultType": "complete", **result} if message.is_modern else result}
