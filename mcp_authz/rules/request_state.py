"""`requestState` as the gateway gives it out: sealed, bound to one caller and one call, good for one retry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.principals import Caller
from mcp_authz.rules import strict_json
from mcp_authz.rules.keys import Sealer, b64url, equal, unb64url

_CONTEXT: Final = b"mcp-authz request state 1"

Kind = Literal["hold", "url", "wait", "downstream", "decide", "decide-page"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestState:
    """What a retry brings back.

    `kind` says what it answers: our question about a hold, the page that we sent the person to, nothing but that it
    waits for its hold, the tool server's question, or what an approver was asked, or sent to, in a client of their own.
    """

    id: str
    kind: Kind
    hold: str | None
    downstream: str | None  # the tool server's own `requestState`
    expires_at: datetime
    paid: tuple[str, ...] = ()  # what the run that asked was counted as and took, so that its answer is no new call
    waited: int = 0  # seconds that earlier rounds of this call have waited for its hold
    shown: str = ""  # base64url; the digest of what an approver was shown


def seal_state(state: RequestState, *, caller: Caller, method: str, call_digest: bytes, sealer: Sealer) -> str:
    """Return the text that the client sends back; nobody else can use it, and for no other call."""
    body = {
        "id": state.id,
        "kind": state.kind,
        "hold": state.hold,
        "downstream": state.downstream,
        "exp": int(state.expires_at.timestamp()),
        "paid": list(state.paid),
        "waited": state.waited,
        "shown": state.shown,
        "bound": b64url(_binding(caller, method, call_digest)),
    }
    return b64url(sealer.seal(strict_json.dump(body), _CONTEXT))


def open_state(
    text: object, *, caller: Caller, method: str, call_digest: bytes, sealer: Sealer, now: datetime
) -> RequestState:
    """Return the state, once it is known to be ours, of this caller, for this call, and in time.

    Raises:
        SignatureRefused: whatever is wrong with it; one message for all.
    """
    refused = SignatureRefused("requestState is not valid for this caller and this call; call again without it")
    if not isinstance(text, str):
        raise refused
    try:
        body = strict_json.parse_object(sealer.unseal(unb64url(text), _CONTEXT))
    except (InputError, SignatureRefused):
        raise refused from None
    if not equal(str(body["bound"]).encode(), b64url(_binding(caller, method, call_digest)).encode()):
        raise refused
    expires_at = datetime.fromtimestamp(body["exp"], UTC)
    if now >= expires_at:
        raise refused
    return RequestState(
        id=body["id"],
        kind=body["kind"],
        hold=body["hold"],
        downstream=body["downstream"],
        expires_at=expires_at,
        paid=tuple(body.get("paid", ())),  # a state of an earlier version has none
        waited=body.get("waited", 0),
        shown=body.get("shown", ""),
    )


def _binding(caller: Caller, method: str, call_digest: bytes) -> bytes:
    link = caller.chain.leaf.id if caller.chain is not None else ""
    parts = [caller.token.client_id, caller.agent.name, caller.key or "", caller.token.subject, link, method]
    return "\x00".join(parts).encode() + b"\x00" + call_digest


def split_retry(params: Mapping[str, Any]) -> tuple[object | None, Mapping[str, Any]]:
    """The `requestState` and `inputResponses` of a request's parameters; None and nothing for a first call."""
    responses = params.get("inputResponses")
    return params.get("requestState"), responses if isinstance(responses, dict) else {}
