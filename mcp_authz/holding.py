"""Step 13 in use: how a call that needs a person gets an answer, or is told to wait."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import anyio

from mcp_authz import limits
from mcp_authz.approvals import Approvals, Asker, CannotBeShown, evidence
from mcp_authz.errors import Conflict, DownstreamRefusal, InputError
from mcp_authz.ids import new_id
from mcp_authz.model import Approval, Deny, HeldCall, Hold, HoldId, HoldState, RuleId, ToolCall
from mcp_authz.outcome import Asked, Held, Refused, Replayed
from mcp_authz.principals import Caller
from mcp_authz.relay import Channel
from mcp_authz.rules import session_request
from mcp_authz.rules.display import displayed
from mcp_authz.rules.hold import prompt_may_answer
from mcp_authz.rules.keys import Sealer
from mcp_authz.rules.message import Message
from mcp_authz.rules.request_state import RequestState, seal_state, split_retry
from mcp_authz.store.ports import Clock, Event, Once, Store

log = logging.getLogger(__name__)

ANSWER: Final = "approval"
"""The key of our question among `inputRequests`."""

_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "approve": {"type": "boolean", "title": "Run this call once", "description": "No means: it does not run."}
    },
    "required": ["approve"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One held call at the gateway: everything that decides how it may be answered."""

    call_id: str
    call: ToolCall
    caller: Caller
    asker: Asker
    hold: Hold
    message: Message
    channel: Channel
    resume: RequestState | None
    record: Callable[[HoldId], Event]


class Holding:
    """Finds or opens the hold of a call and asks whoever may be asked through this request."""

    def __init__(
        self,
        *,
        store: Store,
        approvals: Approvals,
        sealer: Sealer,
        clock: Clock,
        on_held: Callable[[HeldCall], None] | None = None,
    ) -> None:
        self._store = store
        self._approvals = approvals
        self._sealer = sealer
        self._clock = clock
        self._on_held = on_held
        self._told: dict[
            HoldId, datetime
        ] = {}  # holds that `on_held` was called for, and until when they can be joined
        self._unanswered: dict[HoldId, datetime] = {}  # runs whose tool server asked something, and until when

    def asks(self, hold: HoldId, *, until: datetime) -> None:
        """The run of this hold goes on when its caller answers the tool server's question, `until` at the latest."""
        self._unanswered[hold] = until

    async def answer(
        self, waiting: Waiting, *, too_little: Approval | None
    ) -> Approval | Held | Replayed | Asked | Refused:
        """Return the evidence that the rules of this hold are met, or what the caller is told instead.

        `too_little` is an approval that met fewer rules than are asked for now: its hold is cancelled, another opens.
        """
        if too_little is not None:
            await self._cancel(too_little.hold, waiting, "more approval is needed than was given")
        held = await self._standing(waiting)
        match held:
            case HeldCall(state=HoldState.APPROVED) if _says_no(waiting, held):
                return await self._take_back(waiting, held)
            case HeldCall(state=HoldState.APPROVED):
                return evidence(held, waiting.hold)
            case HeldCall(state=HoldState.CLAIMED) if _continues(waiting, held):
                self._unanswered.pop(held.id, None)
                return evidence(held, waiting.hold)
            case HeldCall(state=HoldState.CLAIMED):
                return Held(call_id=waiting.call_id, held=held)
            case HeldCall(state=HoldState.DONE | HoldState.FAILED | HoldState.UNKNOWN):
                return Replayed(call_id=waiting.call_id, held=held)
            case HeldCall(state=HoldState.DENIED):
                return self._refused(waiting, "approval_denied", held.id)
        try:
            held = await self._approvals.open(waiting.call, waiting.asker, waiting.hold, waiting.record)
        except CannotBeShown:
            return self._refused(waiting, "cannot_be_shown", "display")
        except Conflict:
            return self._refused(waiting, "too_many_holds", "hold-caps")
        if held.state is HoldState.APPROVED:  # a verdict came between the two reads
            return evidence(held, waiting.hold)
        return await self._ask(waiting, held)

    async def _standing(self, waiting: Waiting) -> HeldCall | None:
        """The hold that already answers for exactly this call, if its answer still counts."""
        held = await self._store.find_hold(
            digest=waiting.hold.call_digest, session=waiting.asker.session, actor=waiting.asker.agent.name
        )
        if held is None:
            return None
        now = self._clock()
        match held.state:
            case HoldState.DONE | HoldState.FAILED | HoldState.UNKNOWN:
                ended = held.ended_at
                return held if ended is not None and now - ended <= limits.REPLAY_WINDOW else None
            case HoldState.DENIED:
                return held if now < held.expires_at else None
            case HoldState.CLAIMED:
                return await self._still_running(held, now)
            case HoldState.APPROVED:
                return held
            case _:
                return None

    async def _still_running(self, held: HeldCall, now: datetime) -> HeldCall | None:
        """The hold; it is `unknown` once nobody can answer its tool server's question any more."""
        until = self._unanswered.get(held.id)
        if until is None or now < until:
            return held
        del self._unanswered[held.id]
        fields = {
            "hold": held.id,
            "state": HoldState.UNKNOWN.value,
            "summary": "the tool server's question was not answered in time; nobody can say what of the call ran",
        }
        event = Event(kind="approval", at=now, call=held.id, fields=fields)
        await self._store.move_hold(held.id, come_from=HoldState.CLAIMED, to=HoldState.UNKNOWN, event=event)
        return await self._store.hold(held.id)

    async def _ask(self, waiting: Waiting, held: HeldCall) -> Approval | Held | Asked | Refused:
        """Ask the requesting client where its answer may count; everybody else is told to call again."""
        if not prompt_may_answer(held) or "form" not in waiting.channel.can_elicit:
            self._tell(held)
            return Held(call_id=waiting.call_id, held=held)
        if waiting.channel.can_be_asked:
            return await self._ask_now(waiting, held)
        if (resume := waiting.resume) is not None and resume.kind == "hold" and resume.hold == held.id:
            return await self._hear_retry(waiting, held, resume)
        return self._ask_by_result(waiting, held)

    async def _ask_now(self, waiting: Waiting, held: HeldCall) -> Approval | Held | Refused:
        await waiting.channel.decided()
        answer: Any = None
        with anyio.move_on_after((held.expires_at - self._clock()).total_seconds()):
            try:
                answer = await waiting.channel.ask("elicitation/create", question(held))
            except DownstreamRefusal:
                self._tell(held)
                return Held(call_id=waiting.call_id, held=held)
        return await self._hear(waiting, held, answer)

    def _tell(self, held: HeldCall) -> None:
        """Whoever listens hears of this hold, the first time that its caller could not be asked by a prompt."""
        if self._on_held is None or held.id in self._told:
            return
        now = self._clock()
        self._told = {hold: until for hold, until in self._told.items() if now < until} | {held.id: held.expires_at}
        self._on_held(held)

    async def _hear_retry(self, waiting: Waiting, held: HeldCall, resume: RequestState) -> Approval | Held | Refused:
        _, responses = split_retry(waiting.message.params)
        if not await self._store.remember(once(resume)):
            return self._refused(waiting, "replayed", "request-state")
        return await self._hear(waiting, held, responses.get(ANSWER))

    async def _hear(self, waiting: Waiting, held: HeldCall, answer: Any) -> Approval | Held | Refused:
        approve = read_answer(answer)
        try:
            if approve is not None:
                await self._approvals.hear_client(held.id, approve=approve, terms=read_terms(held, answer))
        except InputError:
            return Held(call_id=waiting.call_id, held=held)  # terms that narrow nothing: no answer at all
        except Conflict:
            log.info("hold %s moved on while its prompt was open: what it is now counts", held.id)
        held = await self._store.hold(held.id) or held
        match held.state:
            case HoldState.APPROVED if approve is False:
                return await self._take_back(waiting, held)
            case HoldState.APPROVED:
                return evidence(held, waiting.hold)
            case HoldState.DENIED:
                return self._refused(waiting, "approval_denied", held.id)
            case HoldState.EXPIRED:
                return self._refused(waiting, "approval_expired", held.id)
            case HoldState.PENDING | HoldState.CLAIMED:
                return Held(call_id=waiting.call_id, held=held)
            case _:
                return self._refused(waiting, "approval_used", held.id)

    async def _take_back(self, waiting: Waiting, held: HeldCall) -> Refused:
        """The subject's own client says no to what was approved elsewhere and has not run: no beats yes."""
        await self._cancel(held.id, waiting, "the person's own client said no")
        return self._refused(waiting, "approval_denied", held.id)

    def _ask_by_result(self, waiting: Waiting, held: HeldCall) -> Asked:
        state = RequestState(
            id=new_id("q"),
            kind="hold",
            hold=held.id,
            downstream=None,
            expires_at=min(held.expires_at, self._clock() + limits.REQUEST_STATE_LIFETIME),
        )
        sealed = seal_state(
            state, caller=waiting.caller, method=waiting.call.tool.method, call_digest=held.digest, sealer=self._sealer
        )
        request = {"method": "elicitation/create", "params": question(held)}
        return Asked(
            call_id=waiting.call_id,
            result={"resultType": "input_required", "requestState": sealed, "inputRequests": {ANSWER: request}},
        )

    async def _cancel(self, hold: HoldId, waiting: Waiting, summary: str) -> None:
        fields = {"hold": hold, "state": HoldState.CANCELLED.value, "summary": summary}
        event = Event(kind="approval", at=self._clock(), call=waiting.call_id, fields=fields)
        await self._store.move_hold(hold, come_from=HoldState.APPROVED, to=HoldState.CANCELLED, event=event)

    def _refused(self, waiting: Waiting, code: str, rule: str) -> Refused:
        return Refused(call_id=waiting.call_id, deny=Deny(code=code, because=(RuleId(rule),)))


def question(held: HeldCall) -> dict[str, Any]:
    """The elicitation by which the subject's own client is asked (form mode)."""
    if held.tool == session_request.NAME:
        return {"mode": "form", "message": f"Give this session?\n\n{displayed(held)}", "requestedSchema": _terms(held)}
    return {"mode": "form", "message": f"Approve this call?\n\n{displayed(held)}", "requestedSchema": _SCHEMA}


def _terms(held: HeldCall) -> dict[str, Any]:
    minutes = held.arguments["minutes"]
    properties = {
        "approve": {"type": "boolean", "title": "Give the session", "description": "No means: there is none."},
        "minutes": {
            "type": "integer",
            "title": "For how many minutes",
            "minimum": 1,
            "maximum": minutes,
            "default": minutes,
        },
        "only_reading": {"type": "boolean", "title": "Only the tools that read", "default": False},
    }
    return {"type": "object", "properties": properties, "required": ["approve"]}


def read_terms(held: HeldCall, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the person narrowed in the prompt; nothing where there was nothing to narrow."""
    content = answer.get("content")
    if held.tool != session_request.NAME or not isinstance(content, dict):
        return {}
    terms = {"minutes": content["minutes"]} if "minutes" in content else {}
    if content.get("only_reading"):
        more = {*held.arguments["writes"], *held.arguments["held"]}
        terms["tools"] = [tool for tool in held.arguments["tools"] if tool not in more]
    return terms


def read_answer(answer: Any) -> bool | None:
    """Yes, no, or None when the person closed the question: only a plain accepted `true` is a yes."""
    if not isinstance(answer, dict):
        return None
    content = answer.get("content")
    match answer.get("action"):
        case "accept":
            return isinstance(content, dict) and content.get("approve") is True
        case "decline":
            return False
        case _:
            return None


def _continues(waiting: Waiting, held: HeldCall) -> bool:
    resume = waiting.resume
    return resume is not None and resume.kind == "downstream" and resume.hold == held.id


def _says_no(waiting: Waiting, held: HeldCall) -> bool:
    """Whether this is the retry of a prompt about this hold, and the answer is no."""
    resume = waiting.resume
    if resume is None or resume.kind != "hold" or resume.hold != held.id:
        return False
    _, responses = split_retry(waiting.message.params)
    return read_answer(responses.get(ANSWER)) is False


def once(resume: RequestState) -> Once:
    """The single use that a `requestState` has."""
    return Once(kind="request-state", id=resume.id, expires_at=resume.expires_at)
