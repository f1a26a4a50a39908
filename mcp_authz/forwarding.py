"""Steps 15 and 16: an admitted call reaches its tool server once, and its outcome is recorded before it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import anyio

from mcp_authz import audit, limits
from mcp_authz.errors import DownstreamError, DownstreamRefusal, InputError, StoreError
from mcp_authz.ids import new_id
from mcp_authz.model import Admitted, HoldId, HoldState
from mcp_authz.obligations import paid
from mcp_authz.outcome import Asked, Broken, Forwarded, Outcome
from mcp_authz.parts import Parts
from mcp_authz.principals import Caller
from mcp_authz.relay import Channel, GovernedRelay, Unanswered
from mcp_authz.rules.message import OWN_META
from mcp_authz.rules.redaction import REDACTED, Withheld
from mcp_authz.rules.request_state import RequestState, seal_state
from mcp_authz.seldom import trouble
from mcp_authz.store.calls_port import Ending

INTERNAL_ERROR: Final = -32603
_KINDS: Final = ("complete", "input_required")  # of results that a tool server gives: tasks are the gateway's own
NOT_RECORDED: Final = (
    "the call was passed to its tool server, but what came of it cannot be recorded now, so that it is not told; "
    "it is recorded as soon as the gateway's store can be written"
)
QUESTIONS: Final = 10  # rounds of questions one call may ask an older client before it is ended


class Forwarding:
    """One admitted call at its tool server."""

    def __init__(
        self, parts: Parts, caller: Caller, admitted: Admitted, channel: Channel, running: anyio.CancelScope
    ) -> None:
        """`running` is cancelled, and the call with it, once what the caller stands on is revoked."""
        self._parts = parts
        self._running = running
        self._caller = caller
        self._admitted = admitted
        self._channel = channel
        self._recorded = False
        self._hold: HoldId | None = None
        self._result_digest: str | None = None
        server = admitted.call.tool.server
        self._redacting = parts.obligations.redacting(admitted.permit)
        self._relay = GovernedRelay(
            server=server,
            channel=channel,
            elicitation=parts.elicitation.get(server, False),
            redact=None if self._redacting is None else self._redacting.members,
        )

    async def run(self, *, digest: bytes, resume: RequestState | None) -> Outcome:
        """Return what became of the call; the outcome is durable by then, or the caller hears that it is not.

        A store that fails now fails after the call was forwarded: that is no refusal, and nobody may try again blindly.
        """
        self._hold = self._admitted.permit.approval or _continued(resume)
        if self._hold is not None:
            self._parts.holding.goes_on(self._hold)
        try:
            await self._channel.decided()
            return await self._run(digest, self._hold)
        except StoreError as error:
            trouble.error(error, "the outcome of call %s is not on record: %s", self._admitted.call_id, error)
            return self._broken(INTERNAL_ERROR, NOT_RECORDED, None, may_have_run=True)
        finally:
            if not self._recorded:
                # The caller went away, its authority was revoked, or the gateway stops: the call may have run.
                with anyio.CancelScope(shield=True):
                    await self._record_unknown()

    async def _record_unknown(self) -> None:
        try:
            await self._record("unknown", HoldState.UNKNOWN, self._hold, None, ended_by=self._ended_by())
        except StoreError as error:
            trouble.error(error, "the outcome of call %s is not on record: %s", self._admitted.call_id, error)

    async def _run(self, digest: bytes, hold: HoldId | None) -> Outcome:
        try:
            result = await self._redacted(await self._result(hold))
            self._result_digest = self._parts.evidence.digest_of_result(result)
        except Withheld as error:
            await self._record("unknown", HoldState.UNKNOWN, hold, None)
            return self._broken(INTERNAL_ERROR, f"the result is withheld: {error}", None, may_have_run=True)
        except InputError:
            await self._record("unknown", HoldState.UNKNOWN, hold, None)
            return self._broken(INTERNAL_ERROR, "the tool server's answer is no JSON", None, may_have_run=True)
        except DownstreamRefusal as error:
            message, data = await self._said(error.message), await self._told(error.data)
            await self._record("error", HoldState.FAILED, hold, None)
            return self._broken(error.rpc_code, message, data, may_have_run=False)
        except DownstreamError as error:
            text = await self._said(str(error))
            state, outcome = (HoldState.UNKNOWN, "unknown") if error.sent else (HoldState.FAILED, "error")
            await self._record(outcome, state, hold, None, ended_by=self._ended_by() if error.sent else None)
            return self._broken(INTERNAL_ERROR, text, None, may_have_run=error.sent)
        if result.get("resultType") == "input_required":
            return await self._ask_on(result, digest, hold)
        await self._record("tool-error" if result.get("isError") else "done", HoldState.DONE, hold, result)
        return Forwarded(call_id=self._admitted.call_id, result=result)

    async def _redacted(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """The result as the caller may see it; the server's own state stays, which travels sealed."""
        if self._redacting is None:
            return result
        asks = result.get("resultType") == "input_required" and "requestState" in result
        state = {"requestState": result["requestState"]} if asks else {}
        return {**await self._redacting.members(result), **state}

    async def _said(self, value: Any) -> Any:
        """What the server says of a failure, as the caller may see it."""
        if self._redacting is None:
            return value
        try:
            return await self._redacting.value(value)
        except Withheld:
            return REDACTED

    async def _told(self, data: Any) -> Any:
        """The data of a failure, as the caller may see it: a number in them is the tool's, whatever it is called."""
        said = await self._said({"data": data})
        return said["data"] if isinstance(said, Mapping) else said

    async def _result(self, hold: HoldId | None) -> Mapping[str, Any]:
        """The server's result; where the caller can be asked during the call, its questions are answered on the way."""
        downstream = self._parts.downstreams[self._admitted.call.tool.server]
        admitted = self._admitted
        for _ in range(QUESTIONS):
            result = strip(await downstream.forward(await self._in_context(admitted, hold), self._relay))
            if result.get("resultType") != "input_required" or not self._channel.can_be_asked:
                return result
            try:
                answers = {
                    key: await self._relay.ask(request["method"], request.get("params") or {})
                    for key, request in asked_by(result).items()
                }
            except Unanswered as error:
                raise DownstreamError(f"the tool server asked, and {error}", sent=True) from None
            state = {"requestState": result["requestState"]} if "requestState" in result else {}
            admitted = replace(admitted, extra={"inputResponses": answers, **state})
        raise DownstreamError("the tool server asked too many questions", sent=True)

    async def _in_context(self, admitted: Admitted, hold: HoldId | None) -> Admitted:
        """The call with a fresh context token, where its server gets one: each forwarding has its own.

        Raises:
            DownstreamError: the approval that the token would name cannot be read, or no key signs; nothing was sent.
        """
        parts = self._parts
        if admitted.call.tool.server not in parts.contexts.audiences:
            return admitted
        try:
            approved = None if hold is None else await parts.store.hold(hold)
            token = parts.contexts.token(admitted, self._caller, approved, at=parts.clock())
        except StoreError as error:
            raise DownstreamError(f"the call's context cannot be told: {error}", sent=False) from None
        return replace(admitted, context=token)

    async def _ask_on(self, result: Mapping[str, Any], digest: bytes, hold: HoldId | None) -> Outcome:
        """The server's questions go on in the result; its state travels inside ours, for this caller and call only."""
        try:
            requests = {
                key: {**request, "params": self._relay.question(request["method"], request.get("params") or {})}
                for key, request in asked_by(result).items()
            }
        except (DownstreamRefusal, DownstreamError) as error:
            await self._record("error", HoldState.FAILED, hold, None)
            text = f"the tool server asked what it may not ask: {error}"
            return self._broken(INTERNAL_ERROR, text, None, may_have_run=True)
        own = result.get("requestState")
        state = RequestState(
            id=new_id("q"),
            kind="downstream",
            hold=hold,
            downstream=own if isinstance(own, str) else None,
            expires_at=self._parts.clock() + limits.REQUEST_STATE_LIFETIME,
            paid=paid(self._admitted.permit.obligations),
        )
        sealed = seal_state(
            state,
            caller=self._caller,
            method=self._admitted.call.tool.method,
            call_digest=digest,
            sealer=self._parts.sealer,
        )
        if hold is not None:
            self._parts.holding.asks(hold, until=state.expires_at)
        await self._record("asked", None, hold, None)
        asked = {**result, "requestState": sealed}
        if requests:
            asked["inputRequests"] = requests
        return Asked(call_id=self._admitted.call_id, result=asked)

    async def _record(
        self,
        outcome: str,
        state: HoldState | None,
        hold: HoldId | None,
        result: Mapping[str, Any] | None,
        ended_by: str | None = None,
    ) -> None:
        event = audit.outcome_event(
            self._admitted.call_id,
            started=self._admitted.at,
            ended=self._parts.clock(),
            outcome=outcome,
            caller=self._caller,
            call=self._admitted.call,
            result=self._result_digest if result is not None else None,
            hold=hold,
            redacted=None if self._redacting is None else self._redacting.count,
            ended_by=ended_by,
        )
        self._recorded = True  # there is room for it, whatever becomes of the store; it is written once
        ending = Ending(call=self._admitted.call_id, event=event, hold=hold, to=state, result=result)
        with anyio.CancelScope(shield=True):  # what is known of the call by now is not made unknown by who leaves now
            await self._parts.store.end_call(ending)

    def _ended_by(self) -> str | None:
        """What ended a call of which nobody can say whether it ran; None where the gateway does not know."""
        if self._running.cancel_called:
            return "revocation"
        if self._channel.is_gone:
            return "caller"
        return "shutdown" if self._parts.waits.is_leaving else None

    def _broken(self, code: int, message: str, data: object, *, may_have_run: bool) -> Broken:
        return Broken(
            call_id=self._admitted.call_id, rpc_code=code, message=message, data=data, may_have_run=may_have_run
        )


def revoked(call_id: str) -> Broken:
    """What the caller of a call is told that was cancelled because what it stood on was revoked, or switched off."""
    return Broken(
        call_id=call_id,
        rpc_code=INTERNAL_ERROR,
        message="what this call stood on was revoked, or switched off, while it ran, and it was cancelled",
        data={"outcome": "unknown", "reason": "revoked", "call": call_id},
        may_have_run=True,
    )


def _continued(resume: RequestState | None) -> HoldId | None:
    return HoldId(resume.hold) if resume is not None and resume.kind == "downstream" and resume.hold else None


def asked_by(result: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The questions in an `input_required` result, by key: each has a method, and parameters that are an object.

    Raises:
        DownstreamError: they are none; the call has reached the tool server.
    """
    requests = result.get("inputRequests") or {}
    if not isinstance(requests, dict) or not all(_is_question(request) for request in requests.values()):
        raise DownstreamError("the tool server asks questions that cannot be read", sent=True)
    return requests


def _is_question(request: Any) -> bool:
    return (
        isinstance(request, dict)
        and isinstance(request.get("method"), str)
        and isinstance(request.get("params") or {}, dict)
    )


def strip(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The result without what only the gateway says: `_meta` members of our prefix, and that it is a task of ours."""
    if "resultType" in result and result["resultType"] not in _KINDS:
        result = {**result, "resultType": "complete"}
    meta = result.get("_meta")
    if not isinstance(meta, dict) or not any(key.startswith(OWN_META) for key in meta):
        return result
    return {**result, "_meta": {key: value for key, value in meta.items() if not key.startswith(OWN_META)}}
