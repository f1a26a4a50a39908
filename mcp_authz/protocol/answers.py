"""How an outcome reads on the wire: a tool result a model can act on, a JSON-RPC error, or an HTTP challenge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from mcp_authz.errors import StoreError, StoreUpgraded
from mcp_authz.model import Deny, HeldCall, HoldState, ProofNeeded
from mcp_authz.outcome import (
    Acknowledged,
    Asked,
    Broken,
    Forwarded,
    Held,
    Outcome,
    Refused,
    Replayed,
    TaskSeen,
)
from mcp_authz.principals import AccessToken, Proof
from mcp_authz.protocol.detailed import detailed
from mcp_authz.rules.call_proof import INVOCATION, TYP
from mcp_authz.rules.decision import DPOP_REQUIRED, REASONS
from mcp_authz.rules.display import visible
from mcp_authz.rules.dpop import ALGORITHMS
from mcp_authz.rules.message import OWN_META, Message
from mcp_authz.rules.token import MINIMAL_SCOPE

UNAUTHENTICATED: Final = 40100  # what HTTP says with 401; outside JSON-RPC's reserved range
FORBIDDEN: Final = 40300  # what HTTP says with 403
INTERNAL_ERROR: Final = -32603
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020
ENVELOPE: Final = f"{OWN_META}outcome"

_DPOP: Final = f'DPoP algs="{" ".join(ALGORITHMS)}"'


_TOLD: Final = frozenset({"arguments", "proof_invalid", "rate_limited", "cannot_decide"})
_STEP_UP: Final = frozenset({"insufficient_scope", "insufficient_user_authentication"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A JSON-RPC result."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """A JSON-RPC error; over HTTP with a status and perhaps a challenge, while the headers are still open."""

    code: int
    message: str
    data: Any = None
    status: int = 200
    challenge: str | None = None


Answer = Result | Error


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where answers point to: the resource and its metadata (RFC 9728), and the pages of held calls."""

    resource: str
    resource_metadata: str
    holds: str


def answer(outcome: Outcome, message: Message, token: AccessToken, *, places: Places) -> Answer:
    """Return what the caller is told who came with this token.

    What the gateway itself says is a tool result that a model reads; other methods have no such place, so there it is a
    JSON-RPC error with the same text and data.
    """
    if isinstance(outcome, Refused) and (outcome.deny.missing or outcome.deny.max_age is not None):
        return _step_up(outcome, token, places)
    said = _answer(outcome, message, places)
    own = isinstance(said, Result) and not isinstance(outcome, Forwarded | Asked | TaskSeen | Acknowledged)
    if message.method == "tools/call" or not own or isinstance(said, Error):
        return said
    if isinstance(outcome, Replayed) and outcome.held.state is HoldState.DONE:
        return said
    return Error(code=FORBIDDEN, message=said.result["content"][0]["text"], data=said.result["_meta"][ENVELOPE])


def _answer(outcome: Outcome, message: Message, places: Places) -> Answer:
    match outcome:
        case Forwarded(result=result) | Asked(result=result):
            return Result(result=result)
        case TaskSeen():
            kind = {"resultType": "task"} if outcome.is_new else {}
            return Result(result={**kind, **shown_task(outcome, places)})
        case Acknowledged():
            return Result(result={})
        case Replayed(call_id=call_id, held=held):
            return _replayed(call_id, held)
        case Held(call_id=call_id, held=held):
            return _said(_held_text(held, places), {"outcome": "held", "call": call_id, "hold": held.id})
        case Broken(rpc_code=code, message=broken, data=data, may_have_run=may_have_run):
            text = f"{broken}; it may have run, look before you call again" if may_have_run else broken
            return Error(code=code, message=text, data=data)
        case Refused():
            return _refusal(outcome, message, places)


def _refusal(refused: Refused, message: Message, places: Places) -> Answer:
    match refused:
        case Refused(deny=Deny(code="unknown_task")):
            return Error(code=INVALID_PARAMS, message=REASONS["unknown_task"], status=400)
        case Refused(deny=Deny(code="unknown_tool")):
            return Error(code=INVALID_PARAMS, message=_unknown(message), status=400)
        case Refused(call_id=call_id, deny=Deny(code="unknown_hold") as deny):
            return Error(code=INVALID_PARAMS, message=_reason(deny), data=_denied(call_id, deny), status=400)
        case Refused(deny=Deny(code="header_mismatch", detail=detail)):
            return Error(code=HEADER_MISMATCH, message=detail, status=400)
        case Refused(call_id=call_id, deny=Deny(code="request_state") as deny):
            # No result, which would look like a completed call: the state is a parameter, and it is wrong.
            return Error(code=INVALID_PARAMS, message=_reason(deny), data=_denied(call_id, deny), status=400)
        case Refused(deny=Deny(code="links_invalid") as deny):
            return _unauthorized(deny, places)
        case Refused(call_id=call_id, deny=Deny(needs=ProofNeeded(proof=Proof.DPOP)) as deny):
            return _bound_token(_denied(call_id, deny), places)
        case Refused(call_id=call_id, deny=Deny(needs=ProofNeeded(link=link)) as deny):
            more = {"proof": "signed", "sign": _to_sign(message, link, places)}
            return _said(f"Denied: {_reason(deny)}", _denied(call_id, deny) | more)
        case Refused(call_id=call_id, deny=deny):
            more = {"said": visible(deny.said)} if deny.said else {}
            return _said(f"Denied: {_reason(deny)}", _denied(call_id, deny) | more)


def shown_task(seen: TaskSeen, places: Places) -> dict[str, Any]:
    """The task with what its call came to, as that reads for whoever made the call."""
    if seen.came_to is None:
        return detailed(seen, None, holds=places.holds)
    call = Message(id=None, method="tools/call", params=seen.task.call, body={})
    match _answer(seen.came_to, call, places):
        case Result(result=result):
            came_to: dict[str, Any] = {"result": {"resultType": "complete", **result}}  # as the call itself would say
        case Error(code=code, message=message, data=data):
            more = {} if data is None else {"data": data}
            came_to = {"error": {"code": code, "message": message, **more}}
    return detailed(seen, came_to, holds=places.holds)


def _step_up(refused: Refused, token: AccessToken, places: Places) -> Error:
    """More could be had: for scopes of RFC 6750 section 3.1, for a sign-in that is fresh enough RFC 9470 section 3.

    The scopes are all that the next token needs, so that nobody comes back with less than they had.
    """
    deny = refused.deny
    scopes = " ".join(deny.missing or sorted(token.scope))
    scheme = "Bearer" if token.confirmation is None else f"{_DPOP},"
    if deny.max_age is None:
        error, code, status = "insufficient_scope", FORBIDDEN, 403
        text, asked, data = f"insufficient scope: this call needs {scopes}", "", dict[str, Any]()
    else:
        error, code, status = "insufficient_user_authentication", UNAUTHENTICATED, 401
        seconds = int(deny.max_age.total_seconds())
        text = f"the person has to sign in again: this call needs a sign-in of the last {seconds} seconds"
        asked, data = f'error_description="{text}", max_age="{seconds}", ', {"max_age": seconds}
    return Error(
        code=code,
        message=text,
        data={**_denied(refused.call_id, deny), "error": error, "scope": scopes, **data},
        status=status,
        challenge=f'{scheme} error="{error}", {asked}scope="{scopes}", resource_metadata="{places.resource_metadata}"',
    )


def in_stream(error: Error, message: Message) -> Answer:
    """The error as it is said when the HTTP status is committed already: a tool result that a model reads."""
    if message.method != "tools/call" or error.status not in {401, 403, 503}:
        return error
    data = error.data if isinstance(error.data, dict) else {}
    reason = data.get("reason", data.get("error", "unavailable"))
    # The client could not be sent anywhere by this answer; it is by that of the next call.
    again = (
        ". Make exactly the same call again: your client can then see to it" if data.get("error") in _STEP_UP else ""
    )
    return _said(f"Denied: {error.message}{again}", {"outcome": "denied", **data, "reason": reason})


UNAVAILABLE: Final = Error(
    code=INTERNAL_ERROR, message="the gateway cannot record this now, nothing was done; try again", status=503
)
"""The store failed before anything was forwarded."""


def unavailable(error: StoreError) -> Error:
    """What a caller reads of it: nothing of the disk, and that another one has to see to it where waiting is no use."""
    return replace(UNAVAILABLE, message=str(error)) if isinstance(error, StoreUpgraded) else UNAVAILABLE


BROKEN: Final = Error(code=INTERNAL_ERROR, message="internal error of the gateway; its log says more", status=500)
"""Something of ours went wrong; nothing of it is shown."""


def unauthorized_challenge(*, resource_metadata: str, error: str | None, description: str) -> str:
    """The `WWW-Authenticate` value of a 401: always the same minimal scope, whatever was asked (RFC 6750, RFC 9728).

    Who sent no credentials at all is offered both schemes. Bearer stands first: clients look for their parameters from
    the left, and some know no other scheme.
    """
    where = f'resource_metadata="{resource_metadata}", scope="{MINIMAL_SCOPE}"'
    if error is None:
        return f"Bearer {where}, {_DPOP}, {where}"
    return f'Bearer error="{error}", error_description="{description}", {where}'


def dpop_challenge(*, resource_metadata: str, error: str, description: str) -> str:
    """The `WWW-Authenticate` value of a 401 that takes a DPoP proof to mend (RFC 9449 section 7.1).

    `error` is `invalid_token`, where a token bound to a key is needed or was shown without its key,
    `invalid_dpop_proof`, or `use_dpop_nonce`. `description` is one sentence without quotes.
    """
    where = f'resource_metadata="{resource_metadata}", scope="{MINIMAL_SCOPE}"'
    return f'{_DPOP}, error="{error}", error_description="{description}", {where}'


def _unauthorized(deny: Deny, places: Places) -> Error:
    """Links that are not those of the token are a token that does not stand (DESIGN section 5, step 5)."""
    text = "the signed links that came with the request are not those of its access token; sign in again"
    challenge = unauthorized_challenge(
        resource_metadata=places.resource_metadata, error="invalid_token", description=text
    )
    data = {"error": "invalid_token", "reason": deny.code}
    return Error(code=UNAUTHENTICATED, message=REASONS[deny.code], data=data, status=401, challenge=challenge)


def _bound_token(denied: Mapping[str, Any], places: Places) -> Error:
    """A token of another kind would do, which the client gets by signing in with a key of its own (RFC 9449)."""
    return Error(
        code=UNAUTHENTICATED,
        message=DPOP_REQUIRED,
        data={**denied, "error": "invalid_token", "proof": "dpop"},
        status=401,
        challenge=dpop_challenge(
            resource_metadata=places.resource_metadata,
            error="invalid_token",
            description="this call needs an access token that is bound to a key",
        ),
    )


def _to_sign(message: Message, link: str | None, places: Places) -> dict[str, Any]:
    """What a client signs beside the arguments so that the call counts as signed, and where that goes."""
    tool = message.params.get("name") if message.method == "tools/call" else message.method
    return {"meta": INVOCATION, "typ": TYP, "link": link, "tool": tool, "audience": places.resource}


def _unknown(message: Message) -> str:
    match message.method:
        case "tools/call":
            return f"Unknown tool: {message.params.get('name')}"
        case "prompts/get":
            return f"Unknown prompt: {message.params.get('name')}"
        case "resources/read":
            return f"Unknown resource: {message.params.get('uri')}"
        case _:
            return "Unknown reference"


def _reason(deny: Deny) -> str:
    # What is wrong with arguments or proof, and how long to wait, are the details that a caller needs; the others are
    # the operator's. They name members and rules, never values.
    if deny.said:  # by the person who was asked: it is for the caller to read
        return f"{REASONS[deny.code]} They say: {visible(deny.said)}"
    told = deny.code in _TOLD and deny.detail
    return f"{REASONS[deny.code]} ({deny.detail})" if told else REASONS[deny.code]


def _denied(call_id: str, deny: Deny) -> dict[str, Any]:
    return {"outcome": "denied", "reason": deny.code, "because": list(deny.because), "call": call_id}


def _held_text(held: HeldCall, places: Places) -> str:
    if held.state is HoldState.CLAIMED:
        return f"Running: this call was approved and is running now (hold {held.id}). Call again for its result."
    return (
        f"Held, not executed: this call waits for a person's approval. Tell them: it is at {places.holds}/{held.id} . "
        "Make exactly the same call again later to run it once it is approved; do not try to get around the wait."
    )


def _replayed(call_id: str, held: HeldCall) -> Answer:
    envelope = {"outcome": "replayed", "call": call_id, "hold": held.id, "state": held.state.value}
    if held.state is HoldState.DONE and held.result is not None:
        meta = held.result.get("_meta")
        return Result(result={**held.result, "_meta": {**(meta if isinstance(meta, dict) else {}), ENVELOPE: envelope}})
    words = "failed" if held.state is HoldState.FAILED else "was interrupted: nobody can say whether it ran"
    return _said(f"Not run again: this call was approved for one run, and that run {words}.", envelope)


def _said(text: str, envelope: Mapping[str, Any]) -> Result:
    return Result(
        result={"content": [{"type": "text", "text": text}], "isError": True, "_meta": {ENVELOPE: dict(envelope)}}
    )
