"""Held calls as tasks (SEP-2663): durable, their owner's alone, and run by nothing but a live poll of their owner.

A poll before the verdict reads; the first one after it takes the captured call down the whole road, with a second full
evaluation. What the call came to is read again until the task's time is up, and never runs again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import anyio

from mcp_authz import audit, limits
from mcp_authz.errors import Conflict, InputError, NotFound, TokenRefused
from mcp_authz.holding import Waiting
from mcp_authz.ids import new_id
from mcp_authz.model import Deny, HeldCall, HoldState, RuleId
from mcp_authz.outcome import Acknowledged, Asked, Broken, Forwarded, Held, Outcome, Refused, TaskSeen
from mcp_authz.parts import Parts
from mcp_authz.principals import Caller, Once, SessionId
from mcp_authz.proving import Proofs
from mcp_authz.relay import Channel
from mcp_authz.rules.approval_prompt import ELICIT, invitation, question, read_answer, read_terms
from mcp_authz.rules.display import visible
from mcp_authz.rules.hold import prompt_may_answer
from mcp_authz.rules.message import Message, without_own_meta
from mcp_authz.rules.task import Asker, Progress, Question, Task, TaskId, TaskOwner, stage
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Event
from mcp_authz.task_channel import PollChannel
from mcp_authz.task_outcome import TaskOutcomes, came_to, is_news, is_passing, kept

log = logging.getLogger(__name__)

Take = Callable[[Proofs, Message, Channel], Awaitable[Outcome]]
"""The road for a captured call."""

_ENVELOPE: Final = "io.modelcontextprotocol/"
_UNKNOWN: Final = Deny(code="unknown_task", because=(RuleId("task-owner"),))
_REPLAYED: Final = Deny(code="replayed", because=(RuleId("replayed"),))


class Tasks:
    """Makes tasks of held calls, and answers their owners."""

    def __init__(self, parts: Parts, sessions: Sessions, take: Take) -> None:
        self._parts = parts
        self._sessions = sessions
        self._store = parts.store
        self._clock = parts.clock
        self._approvals = parts.approvals
        self._take = take
        self._outcomes = TaskOutcomes(parts)
        self._running: set[TaskId] = set()  # in this process; across processes the claim of the hold decides

    async def create(self, waiting: Waiting, held: HeldCall) -> Outcome | None:
        """The held call is a task that can be polled for; None where it is told of its hold in another way.

        An identical call of the same owner is given the same task again.
        """
        if waiting.message.method != "tools/call":
            return None
        owner = _owner(waiting.caller, waiting.asker.session)
        now = self._clock()
        progress = Progress() if waiting.resumes(held, "hold") is None else Progress().asking("prompt", {held.id: {}})
        progress = replace(progress, questions=tuple(replace(one, answer={}) for one in progress.questions))
        task = Task(
            id=TaskId(new_id("t")),
            hold=held.id,
            owner=owner,
            call=_captured(waiting.message),
            progress=progress,  # who has just closed our question is not asked it again
            made_at=now,
            updated_at=now,
            expires_at=held.expires_at + limits.REPLAY_WINDOW,
        )
        try:
            task = await self._store.add_task(task, per_agent=limits.TASKS_PER_AGENT)
        except Conflict:
            return None
        task = await self._asked_of(task, held, waiting.channel.can_elicit)
        return self._seen(waiting.call_id, task, held, waiting.channel.can_elicit, is_new=True)

    async def answer(self, proofs: Proofs, message: Message, channel: Channel) -> Outcome:
        """One request about a task, of whoever it may belong to."""
        request = _Request(id=new_id("c"), proofs=proofs, message=message, channel=channel)
        if (deny := proofs.refuse_call()) is not None:
            return await self._refuse(request, deny)
        task = await self._find(proofs.caller, message.params.get("taskId"))
        if task is None:
            return await self._refuse(request, _UNKNOWN)
        if message.method == "tasks/get":
            return await self._get(request, task)
        if not await proofs.spend():
            return await self._refuse(request, _REPLAYED)
        if message.method == "tasks/update":
            await self._update(task, message.params.get("inputResponses"))
        else:
            await self._cancel(task, request.id)
        return Acknowledged(call_id=request.id)

    async def look(self, caller: Caller, task_id: object, modes: frozenset[str]) -> TaskSeen | None:
        """How the task stands, without anything running; None when the caller has none, or has to prove more first."""
        task = await self._find(caller, task_id)
        if task is None:
            return None
        held = await self._held(task)
        task = await self._asked_of(task, held, modes)
        seen = await self._read(new_id("c"), caller, task, held, modes)
        return seen if isinstance(seen, TaskSeen) else None

    async def follow(
        self, caller: Caller, task_id: str, modes: frozenset[str], tell: Callable[[TaskSeen], Awaitable[None]]
    ) -> None:
        """`tell` hears how the task stands, now and whenever it moves, until it is over; woken, never asking again.

        Raises:
            TokenRefused: what the caller stands on has ended.
        """
        task = await self._find(caller, task_id)
        while task is not None:
            watched = task.hold
            with self._parts.waits.watched(watched) as moved:
                caller = await self._sessions.identify(caller.token, caller.proof)
                if caller.session_over:
                    raise TokenRefused("the session of the token has ended")
                seen = await self.look(caller, task_id, modes)
                if seen is None:
                    return
                await tell(seen)
                if seen.came_to is not None or stage(seen.task, seen.held) == "cancelled":
                    return
                task, held = seen.task, seen.held
                can_expire = held.state in {HoldState.PENDING, HoldState.APPROVED}
                ends = min(held.expires_at, task.expires_at) if can_expire else task.expires_at
                if task.hold == watched:
                    with anyio.move_on_after((ends - self._clock()).total_seconds()):
                        await moved.wait()

    async def _find(self, caller: Caller, task_id: object) -> Task | None:
        """The task of this caller. One of somebody else, one that is over and one that never was are answered alike."""
        known = TaskId(task_id if isinstance(task_id, str) and len(task_id) <= limits.ID_CHARACTERS else "")
        session = caller.session.id if caller.session is not None else SessionId("")
        return await self._store.task(known, _owner(caller, session))

    async def _held(self, task: Task) -> HeldCall:
        held = await self._store.hold(task.hold)
        if held is None:
            raise NotFound(f"there is no hold `{task.hold}`")
        return held

    async def _get(self, request: _Request, task: Task) -> Outcome:
        held = await self._held(task)
        until = task.progress.until
        if until is not None and until <= self._clock():
            task, held = await self._give_up(task, held)
        if task.id not in self._running and stage(task, held) == "ready":
            return await self._run(request, task)
        if not await request.proofs.spend():
            return await self._refuse(request, _REPLAYED)
        modes = request.channel.can_elicit
        task = await self._asked_of(task, held, modes)
        return await self._read(request.id, request.proofs.caller, task, held, modes)

    async def _run(self, request: _Request, task: Task) -> Outcome:
        """The captured call takes the road, now, as this poll's; what it comes to is told, and kept for later polls."""
        request.proofs.only_run = (Once(kind="task", id=task.id, expires_at=task.expires_at),)
        channel = PollChannel(request.channel)
        with self._taken(task.id):
            outcome = await self._take(request.proofs, _message(task, request.message), channel)
            with anyio.CancelScope(shield=True):  # it has happened: the task says so, also when its caller is gone
                task, held = await self._note(task, outcome)
        modes = request.channel.can_elicit
        match outcome:
            case Refused(deny=deny) if deny.code == "rate_limited":
                return replace(self._seen(request.id, task, held, modes), said=deny)
            case Refused(deny=deny) if is_passing(deny) and stage(task, held) == "ready":
                return outcome  # this poll is refused: the next one may bring what it lacks
            case Forwarded() | Broken() | Refused() if stage(task, held) == "over":
                return self._seen(request.id, task, held, modes, came_to=outcome)
        return await self._read(request.id, request.proofs.caller, task, held, modes)

    async def _note(self, task: Task, outcome: Outcome) -> tuple[Task, HeldCall]:
        """The task knows what its call came to, as far as its hold does not say that already."""
        held = await self._held(task)
        match outcome:
            case Asked(result=result):
                until = self._clock() + limits.REQUEST_STATE_LIFETIME
                task = await self._change(task, lambda old: old.asking(result, until))
            case Held(held=other) if other.id != held.id:  # more approval is needed than was given
                task, held = await self._change(task, lambda old: old.under(other)), other
            case Refused(deny=deny) if is_passing(deny):
                pass
            case Broken() | Forwarded() | Refused():
                told = kept(outcome) if is_news(outcome, held) else None
                task = await self._change(task, lambda old: old.ended(told, self._clock()))
                if held.state is HoldState.APPROVED and not isinstance(outcome, Refused):
                    held = await self._call_off(held, task.id, "the call ran without needing an approval")
            case _:
                pass  # another request of the owner was first: the hold says what of it
        return task, held

    async def _change(self, task: Task, change: Callable[[Task], Task]) -> Task:
        return await self._store.change_task(task.id, change)

    async def _read(
        self, call_id: str, caller: Caller, task: Task, held: HeldCall, modes: frozenset[str]
    ) -> TaskSeen | Refused:
        """How the task stands now; what its call came to is read through what policy lets this caller see by now."""
        seen = self._seen(call_id, task, held, modes)
        if stage(task, held) != "over" or task.id in self._running or _is_being_written(task, held, self._clock()):
            return seen
        outcome = came_to(call_id, task, held)
        if isinstance(outcome, Forwarded):
            outcome = await self._outcomes.as_seen_now(outcome, caller, task)
            if isinstance(outcome, Refused) and is_passing(outcome.deny):
                return outcome
        return replace(seen, came_to=outcome)

    def _seen(
        self,
        call_id: str,
        task: Task,
        held: HeldCall,
        modes: frozenset[str],
        *,
        came_to: Outcome | None = None,
        is_new: bool = False,
    ) -> TaskSeen:
        asks = came_to is None and task.id not in self._running and stage(task, held) == "waits"
        shown = [one for one in task.progress.unanswered if asks and one.mode in modes]
        return TaskSeen(
            call_id=call_id,
            task=task,
            held=held,
            asked={one.key: one.request for one in shown},
            came_to=came_to,
            is_new=is_new,
        )

    async def _asked_of(self, task: Task, held: HeldCall, modes: frozenset[str]) -> Task:
        """The task with our question about its hold, where this client can be asked and was not before."""
        if held.state is not HoldState.PENDING or task.outcome is not None or task.progress.state is not None:
            return task
        if any(one.name == held.id for one in task.progress.questions):
            return task
        asker: Asker
        if "form" in modes and prompt_may_answer(held):
            asker, params = "prompt", question(held)
        elif "url" in modes and await self._approvals.asks_subject(held):
            asker, params = "page", invitation(held, f"{self._parts.page}/{held.id}/asked")
            del params["elicitationId"]  # which this revision does not know
        else:
            return task
        request = {"method": ELICIT, "params": params}
        return await self._change(task, lambda old: old.asking_ours(asker, held, request))

    async def _update(self, task: Task, given: object) -> None:
        """The answers to open questions count, each once; those of any other key are ignored."""
        answers = given if isinstance(given, dict) else {}
        heard: list[Question] = []

        def take(old: Task) -> Task:
            progress, taken = old.progress.answered(answers)
            heard.extend(taken)
            return replace(old, progress=progress)

        await self._change(task, take)
        for one in heard:
            if one.asker == "prompt":
                await self._hear(task, one)

    async def _hear(self, task: Task, answered: Question) -> None:
        """What the subject's own client answers counts as it does in a retry of the call: no beats yes."""
        held, approve = await self._held(task), read_answer(answered.answer)
        if approve is None or held.id != answered.name or not isinstance(answered.answer, dict):
            return
        try:
            await self._approvals.hear_client(held.id, approve=approve, terms=read_terms(held, answered.answer))
        except InputError:
            log.info("the prompt of hold %s was answered with terms that narrow nothing", held.id)
        except Conflict:
            if not approve:
                await self._call_off(held, task.id, "the person's own client said no")

    async def _cancel(self, task: Task, call_id: str) -> None:
        """A call that waits is called off; one that runs is left alone, for nobody can take it back."""
        held = await self._held(task)
        if task.id in self._running or stage(task, held) in {"over", "cancelled", "runs"}:
            return
        if task.progress.state is not None:  # it has run as far as its tool server's question
            await self._change(task, lambda old: replace(old, outcome={"cancelled": True}))
            await self._give_up(task, held)
        else:
            await self._call_off(held, call_id, "its caller called it off")

    async def _call_off(self, held: HeldCall, call_id: str, summary: str) -> HeldCall:
        for state in (HoldState.PENDING, HoldState.APPROVED):
            event = self._event(held, HoldState.CANCELLED, call_id, summary)
            if await self._store.move_hold(held.id, come_from=state, to=HoldState.CANCELLED, event=event):
                break
        return await self._store.hold(held.id) or held

    async def _give_up(self, task: Task, held: HeldCall) -> tuple[Task, HeldCall]:
        """Nobody answers the tool server any more: what of the call ran can nobody say, and it does not run again."""
        event = self._event(held, HoldState.UNKNOWN, task.id, "the tool server's question was not answered")
        await self._store.move_hold(held.id, come_from=HoldState.CLAIMED, to=HoldState.UNKNOWN, event=event)
        task = await self._change(task, lambda old: old.ended(old.outcome, self._clock()))
        return task, await self._store.hold(held.id) or held

    def _event(self, held: HeldCall, state: HoldState, call_id: str, summary: str) -> Event:
        who = {"actor": f"agent:{held.actor}", "tool": held.tool, "session": held.session}
        fields = {"hold": held.id, "state": state.value, "summary": summary, **who}
        return Event(kind="approval", at=self._clock(), call=call_id, fields=fields)

    async def _refuse(self, request: _Request, deny: Deny) -> Refused:
        """The denial is recorded, then answered."""
        deny = deny if await request.proofs.spend() else _REPLAYED
        asked = {"method": request.message.method, "task": visible(str(request.message.params.get("taskId")))[:128]}
        decided = audit.decided(deny, policy=self._parts.evaluator.policy_digest)
        who = audit.who(request.proofs.caller)
        await self._store.append(audit.decision_event(request.id, self._clock(), who, asked, decided))
        return Refused(call_id=request.id, deny=deny)

    @contextmanager
    def _taken(self, task: TaskId) -> Iterator[None]:
        self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One request about a task, while it is answered."""

    id: str
    proofs: Proofs
    message: Message
    channel: Channel


def _owner(caller: Caller, session: SessionId) -> TaskOwner:
    return TaskOwner(agent=caller.agent.name, session=session, client=caller.token.client_id)


def _captured(message: Message) -> Mapping[str, Any]:
    """The parameters of a call, as far as they are the call's and not the request's that brought it."""
    meta = {key: value for key, value in without_own_meta(message.meta).items() if not key.startswith(_ENVELOPE)}
    meta.pop("progressToken", None)
    call = {key: message.params[key] for key in ("name", "arguments") if key in message.params}
    return {**call, "_meta": meta}


def _message(task: Task, poll: Message) -> Message:
    """The captured call as a request; where its tool server asked, as the retry that brings the answers."""
    params = dict(task.call)
    if task.progress.state is not None:
        params |= {"requestState": task.progress.state, "inputResponses": task.progress.responses}
    return Message(id=poll.id, method="tools/call", params=params, body={})


def _is_being_written(task: Task, held: HeldCall, now: datetime) -> bool:
    """Whether the call has failed just now, and the error is on its way into the task, maybe by another process."""
    failed = held.state is HoldState.FAILED and task.outcome is None
    return failed and held.ended_at is not None and now - held.ended_at < limits.TASK_WRITTEN
