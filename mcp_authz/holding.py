"""Step 13 in use: how a call that needs a person gets an answer, waits for it, or is told that it is held."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final

import anyio

from mcp_authz import limits
from mcp_authz.approvals import Approvals, Asker, CannotBeShown, evidence
from mcp_authz.errors import Conflict, InputError
from mcp_authz.ids import new_id
from mcp_authz.model import Approval, Deny, HeldCall, Hold, HoldId, HoldState, RuleId, ToolCall, Verdict
from mcp_authz.open_request import GONE, REFUSED, OpenRequest
from mcp_authz.outcome import Asked, Held, Outcome, Refused, Replayed
from mcp_authz.principals import Caller
from mcp_authz.relay import Channel
from mcp_authz.rules.approval_prompt import ANSWER, ELICIT, invitation, question, read_answer, read_terms
from mcp_authz.rules.hold import prompt_may_answer
from mcp_authz.rules.keys import Sealer
from mcp_authz.rules.message import Message
from mcp_authz.rules.request_state import Kind, RequestState, seal_state, split_retry
from mcp_authz.standing_approvals import StandingApprovals
from mcp_authz.store.ports import Clock, Event, Once, Store
from mcp_authz.waits import UNSETTLED, Waits

log = logging.getLogger(__name__)

_NOTHING: Final = timedelta()


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

    def resumes(self, held: HeldCall, *kinds: Kind) -> RequestState | None:
        """What this retry brings back about the hold, if it is of one of these kinds."""
        resume = self.resume
        return resume if resume is not None and resume.kind in kinds and resume.hold == held.id else None


class Holding:
    """Finds or opens the hold of a call, asks whoever may be asked through this request, and waits for the answer.

    `page` is the URL that holds have their page under; `patience` how long a call waits in all, where its caller can;
    `on_held` hears of each call whose own client cannot answer.
    """

    def __init__(
        self,
        *,
        store: Store,
        approvals: Approvals,
        standing: StandingApprovals,
        waits: Waits,
        sealer: Sealer,
        clock: Clock,
        page: str,
        patience: timedelta,
        on_held: Callable[[HeldCall], None] | None = None,
    ) -> None:
        self._store = store
        self._approvals = approvals
        self._standing = standing
        self._waits = waits
        self._sealer = sealer
        self._clock = clock
        self._page = page
        self._patience = patience
        self._on_held = on_held
        self._told: dict[HoldId, datetime] = {}  # `on_held` was called for them; until when they can be joined
        self._unanswered: dict[HoldId, datetime] = {}  # runs whose tool server asked something, and until when
        self.as_task: Callable[[Waiting, HeldCall], Awaitable[Outcome | None]] | None = None

    def asks(self, hold: HoldId, *, until: datetime) -> None:
        """The run of this hold goes on when its caller answers the tool server's question, `until` at the latest."""
        self._unanswered[hold] = until

    def goes_on(self, hold: HoldId) -> None:
        """The question was answered: the run of this hold is on its way again."""
        self._unanswered.pop(hold, None)

    async def give_up_unanswered(self) -> None:
        """The runs whose questions nobody can answer any more are `unknown`.

        Raises:
            StoreError: the store cannot be written.
        """
        now = self._clock()
        for hold in [hold for hold, until in self._unanswered.items() if until <= now]:
            await self._give_up(hold, "the tool server's question was not answered in time")

    async def answer(self, waiting: Waiting, *, too_little: Approval | None) -> Approval | Outcome:
        """Return the evidence that the rules of this hold are met, or what the caller is told instead.

        `too_little` is an approval that met fewer rules than are asked for now: its hold is cancelled, another opens.
        """
        if too_little is not None:
            await self._cancel(too_little.hold, waiting, "more approval is needed than was given")
        held = await self._joined(waiting)
        if held is not None and (answer := await self._settled(waiting, held)) is not None:
            return answer
        if held is None and (ended := await self._ended(waiting)) is not None:
            return ended
        standing = await self._by_standing(waiting)
        if standing is not None and (answer := await self._settled(waiting, standing)) is not None:
            return answer
        try:
            held = await self._approvals.open(waiting.call, waiting.asker, waiting.hold, waiting.record)
        except CannotBeShown:
            return self._refused(waiting, "cannot_be_shown", "display")
        except Conflict:
            return self._refused(waiting, "too_many_holds", "hold-caps")
        return await self._ask(waiting, held)

    async def _joined(self, waiting: Waiting) -> HeldCall | None:
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

    async def _ended(self, waiting: Waiting) -> Outcome | None:
        """What became of the hold that this request has waited for, if it is over: no other is opened for it."""
        resume = waiting.resume
        if resume is None or resume.kind not in {"url", "wait"} or resume.hold is None:
            return None
        held = await self._store.hold(HoldId(resume.hold))
        match None if held is None else held.state:
            case HoldState.DONE | HoldState.FAILED | HoldState.UNKNOWN:
                return self._refused(waiting, "approval_used", resume.hold)
            case HoldState.EXPIRED:
                return self._refused(waiting, "approval_expired", resume.hold)
            case HoldState.CANCELLED:
                return self._refused(waiting, "approval_cancelled", resume.hold)
            case HoldState.DENIED if held is not None:
                return self._denied(waiting, held)
            case _:
                return None

    async def _by_standing(self, waiting: Waiting) -> HeldCall | None:
        """The hold of this call, if standing approvals meet its rules; an answer to its prompt goes before them."""
        if waiting.resume is not None and waiting.resume.kind == "hold":
            return None
        return await self._standing.use(waiting.call, waiting.asker, waiting.hold, waiting.record)

    async def _still_running(self, held: HeldCall, now: datetime) -> HeldCall | None:
        """The hold; it is `unknown` once nobody can answer its tool server's question any more."""
        until = self._unanswered.get(held.id)
        if until is None or now < until:
            return held
        await self._give_up(held.id, "the tool server's question was not answered in time")
        return await self._store.hold(held.id)

    async def _give_up(self, hold: HoldId, why: str) -> None:
        """A run that waits for an answer here is `unknown`; one that goes on elsewhere is left alone."""
        said = f"{why}; nobody can say what of the call ran"
        fields = {"hold": hold, "state": HoldState.UNKNOWN.value, "summary": said}
        await self._store.abandon_hold(hold, Event(kind="approval", at=self._clock(), call=hold, fields=fields))
        self._unanswered.pop(hold, None)

    async def _settled(self, waiting: Waiting, held: HeldCall) -> Approval | Outcome | None:
        """What a hold that is not pending means for this call; None when its approval counts no more."""
        match held.state:
            case HoldState.PENDING:
                return Held(call_id=waiting.call_id, held=held)
            case HoldState.APPROVED:
                return await self._approved(waiting, held)
            case HoldState.CLAIMED if waiting.resumes(held, "downstream"):
                return await self._going_on(waiting, held)
            case HoldState.CLAIMED:
                await self._store.append(waiting.record(held.id))
                return await self._wait(waiting, held)
            case HoldState.DONE | HoldState.FAILED | HoldState.UNKNOWN:
                return Replayed(call_id=waiting.call_id, held=held)
            case HoldState.DENIED:
                return self._denied(waiting, held)
            case HoldState.EXPIRED:
                return self._refused(waiting, "approval_expired", held.id)
            case HoldState.CANCELLED:
                return self._refused(waiting, "approval_cancelled", held.id)

    async def _approved(self, waiting: Waiting, held: HeldCall) -> Approval | Refused | None:
        """The evidence, if who approved still may, and the subject's own client does not say no: no beats yes."""
        if waiting.resumes(held, "hold") and read_answer(_given(waiting)) is False:
            return await self._take_back(waiting, held)
        if await self._approvals.stands(held):
            return evidence(held, waiting.hold)
        await self._cancel(held.id, waiting, "who approved may not approve it any more")
        return None

    async def _going_on(self, waiting: Waiting, held: HeldCall) -> Approval | Replayed:
        """The evidence that the run began with, if who approved it still may; it is called off where it stands else."""
        if await self._approvals.stands(held):
            return evidence(held, waiting.hold)
        await self._give_up(held.id, "who approved may not approve it any more")
        return Replayed(call_id=waiting.call_id, held=await self._store.hold(held.id) or held)

    async def _ask(self, waiting: Waiting, held: HeldCall) -> Approval | Outcome:
        """Ask the requesting client where its answer may count, or send its person to the page; else wait."""
        channel, is_pending = waiting.channel, held.state is HoldState.PENDING
        if is_pending and "form" in channel.can_elicit and prompt_may_answer(held):
            if channel.can_be_asked:
                return await self._ask_now(waiting, held)
            if (resume := waiting.resumes(held, "hold")) is None:
                return self._ask_by_result(waiting, held, "hold", question(held))
            heard = await self._hear_retry(waiting, held, resume)
            if not isinstance(heard, Held) or not channel.can_do_tasks:
                return heard
            held, is_pending = heard.held, heard.held.state is HoldState.PENDING
        self._tell(held)
        as_task = self.as_task if is_pending and channel.can_do_tasks else None
        if as_task is not None and (told := await as_task(waiting, held)) is not None:
            return told
        waits = self._patience > _NOTHING
        if is_pending and waits and "url" in channel.can_elicit and await self._approvals.asks_subject(held):
            return await self._send_to_page(waiting, held)
        return await self._wait(waiting, held)

    async def _ask_now(self, waiting: Waiting, held: HeldCall) -> Approval | Outcome:
        # What was approved elsewhere waits for the prompt's answer: a no of the same person beats it.
        over = frozenset(HoldState) - UNSETTLED - {HoldState.APPROVED}
        answer = await self._open(waiting, held).ask(question(held), until=over)
        if answer is GONE:
            return Held(call_id=waiting.call_id, held=held)
        if answer is REFUSED:
            self._tell(held)
            return await self._wait(waiting, held)
        return await self._hear(waiting, held, answer)

    async def _send_to_page(self, waiting: Waiting, held: HeldCall) -> Approval | Outcome:
        """The person is sent to the page of this call; what they do there is waited for."""
        asked, channel = invitation(held, f"{self._page}/{held.id}/asked"), waiting.channel
        if not channel.can_be_asked:
            if (came_back := waiting.resumes(held, "url", "wait")) is None:
                return self._ask_by_result(waiting, held, "url", asked)
            if came_back.kind == "url" and not _opened(_given(waiting)):
                return Held(call_id=waiting.call_id, held=held)
            return await self._wait(waiting, held)
        start = anyio.current_time()
        request = self._open(waiting, held)
        answer = await request.ask(asked, until=frozenset(HoldState) - UNSETTLED)
        now = await self._store.hold(held.id) or held
        if answer is GONE or (now.state in UNSETTLED and not _opened(answer)):
            return Held(call_id=waiting.call_id, held=now)
        gone_by = timedelta(seconds=anyio.current_time() - start)
        said = await self._wait(waiting, now, gone_by=gone_by)
        if not isinstance(said, Held):
            await request.close_page()
        return said

    async def _wait(self, waiting: Waiting, held: HeldCall, *, gone_by: timedelta = _NOTHING) -> Approval | Outcome:
        """Wait for as long as this request may: for the verdict, or for the end of a run that is on its way."""
        before, channel = waiting.resumes(held, "wait"), waiting.channel
        waited = _NOTHING if before is None else timedelta(seconds=before.waited)
        longest = min(channel.longest_wait, self._patience - waited) - gone_by
        with self._waits.place(held.id) as placed:
            if placed and longest > _NOTHING and held.state in UNSETTLED:
                held = await self._open(waiting, held).wait(longest, f"{self._page}/{held.id}")
        if held.state not in UNSETTLED:
            settled = await self._settled(waiting, held)
            return settled if settled is not None else self._refused(waiting, "approval_cancelled", held.id)
        if placed and channel.can_return and _NOTHING < longest < self._patience - waited:
            state = self._state(waiting, held, "wait", waited=ceil((waited + longest).total_seconds()))
            return Asked(call_id=waiting.call_id, result={"resultType": "input_required", "requestState": state})
        return Held(call_id=waiting.call_id, held=held)

    def _open(self, waiting: Waiting, held: HeldCall) -> OpenRequest:
        return OpenRequest(channel=waiting.channel, held=held, waits=self._waits, clock=self._clock)

    def _tell(self, held: HeldCall) -> None:
        """Whoever listens hears of this hold, the first time that its caller could not be asked by a prompt."""
        if self._on_held is None or held.id in self._told:
            return
        now = self._clock()
        self._told = {hold: until for hold, until in self._told.items() if now < until} | {held.id: held.expires_at}
        self._on_held(held)

    async def _hear_retry(self, waiting: Waiting, held: HeldCall, resume: RequestState) -> Approval | Outcome:
        if not await self._store.remember(once(resume)):
            return self._refused(waiting, "replayed", "request-state")
        return await self._hear(waiting, held, _given(waiting))

    async def _hear(self, waiting: Waiting, held: HeldCall, answer: Any) -> Approval | Outcome:
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
            case HoldState.PENDING | HoldState.CLAIMED:
                return Held(call_id=waiting.call_id, held=held)
            case HoldState.DONE | HoldState.FAILED | HoldState.UNKNOWN:
                return self._refused(waiting, "approval_used", held.id)
            case _:
                return await self._settled(waiting, held) or Held(call_id=waiting.call_id, held=held)

    async def _take_back(self, waiting: Waiting, held: HeldCall) -> Refused:
        """The subject's own client says no to what was approved elsewhere and has not run: no beats yes."""
        await self._cancel(held.id, waiting, "the person's own client said no")
        return self._refused(waiting, "approval_denied", held.id)

    def _ask_by_result(self, waiting: Waiting, held: HeldCall, kind: Kind, asked: dict[str, Any]) -> Asked:
        request = {"method": ELICIT, "params": {key: value for key, value in asked.items() if key != "elicitationId"}}
        state = self._state(waiting, held, kind)
        return Asked(
            call_id=waiting.call_id,
            result={"resultType": "input_required", "requestState": state, "inputRequests": {ANSWER: request}},
        )

    def _state(self, waiting: Waiting, held: HeldCall, kind: Kind, *, waited: int = 0) -> str:
        # Waiting gives nothing away, and who comes back too late is to be told what became of the hold.
        end = self._clock() + limits.REQUEST_STATE_LIFETIME
        state = RequestState(
            id=new_id("q"),
            kind=kind,
            hold=held.id,
            downstream=None,
            expires_at=min(held.expires_at, end) if kind == "hold" else end,
            waited=waited,
        )
        return seal_state(
            state, caller=waiting.caller, method=waiting.call.tool.method, call_digest=held.digest, sealer=self._sealer
        )

    async def _cancel(self, hold: HoldId, waiting: Waiting, summary: str) -> None:
        fields = {"hold": hold, "state": HoldState.CANCELLED.value, "summary": summary}
        event = Event(kind="approval", at=self._clock(), call=waiting.call_id, fields=fields)
        await self._store.move_hold(hold, come_from=HoldState.APPROVED, to=HoldState.CANCELLED, event=event)

    def _denied(self, waiting: Waiting, held: HeldCall) -> Refused:
        return Refused(call_id=waiting.call_id, deny=why_ended(held))

    def _refused(self, waiting: Waiting, code: str, rule: str) -> Refused:
        return Refused(call_id=waiting.call_id, deny=Deny(code=code, because=(RuleId(rule),)))


def why_ended(held: HeldCall) -> Deny:
    """The denial that a hold ended in without a run, with the reason that was given, and not with who gave it."""
    code = {HoldState.EXPIRED: "approval_expired", HoldState.CANCELLED: "approval_cancelled"}.get(held.state)
    if code is not None:
        return Deny(code=code, because=(RuleId(held.id),))
    last = next((verdict for verdict in reversed(held.verdicts) if not verdict.approve), None)
    code = "sent_back" if last is not None and last.sent_back else "approval_denied"
    return Deny(code=code, because=(RuleId(held.id),), said=_said(last))


def _said(verdict: Verdict | None) -> str:
    return "" if verdict is None else verdict.reason[: limits.REASON].strip()


def _given(waiting: Waiting) -> Any:
    """What the client answers to our question, in a retry."""
    _, responses = split_retry(waiting.message.params)
    return responses.get(ANSWER)


def _opened(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("action") == "accept"


def once(resume: RequestState) -> Once:
    """The single use that a `requestState` has."""
    return Once(kind="request-state", id=resume.id, expires_at=resume.expires_at)
