"""What a task is: a held call whose caller looks after it by polling (the tasks extension, SEP-2663)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, NewType

from mcp_authz import limits
from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.principals import AgentName, SessionId

TaskId = NewType("TaskId", str)

Asker = Literal["prompt", "page", "server"]
"""Who asks: we do, by the subject's own client or by sending them to the page; or the tool server of the call does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request to the client. Its key is never given out again, also not once it is answered."""

    key: str
    asker: Asker
    name: str  # the hold that we ask about; of the tool server's question the key that it has there
    request: Mapping[str, Any]
    answer: Mapping[str, Any] | None = None

    @property
    def mode(self) -> str:
        """The elicitation mode that a client must have declared to be shown this question."""
        return str((self.request.get("params") or {}).get("mode", "form"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What was asked so far; and where the tool server waits for answers, how the call goes on with them."""

    keys: int = 0  # that were given out
    questions: tuple[Question, ...] = ()
    state: str | None = None  # the `requestState` that a retry of the call would bring back
    until: datetime | None = None  # and how long it counts

    def asking(self, asker: Asker, requests: Mapping[str, Mapping[str, Any]]) -> Progress:
        """The same with more questions, each under a key of its own; those that were open and those answered are over.

        A question of ours that was asked is kept, so that nobody is asked twice about one hold.
        """
        kept = tuple(replace(old, answer=old.answer or {}) for old in self.questions if old.asker != "server")
        new = tuple(
            Question(key=f"q{number}", asker=asker, name=name, request=request)
            for number, (name, request) in enumerate(requests.items(), start=self.keys + 1)
        )
        return replace(self, keys=self.keys + len(new), questions=(*kept, *new), state=None, until=None)

    @property
    def over(self) -> Progress:
        """The same with nothing that is waited for; keys stay used up."""
        return replace(self, questions=(), state=None, until=None)

    @property
    def unanswered(self) -> tuple[Question, ...]:
        """The questions that wait for an answer."""
        return tuple(question for question in self.questions if question.answer is None)

    def answered(self, answers: Mapping[str, Any]) -> tuple[Progress, tuple[Question, ...]]:
        """The same with these answers, and the questions that they answer; any other key counts for nothing."""
        taken = tuple(
            replace(question, answer=answer)
            for question in self.unanswered
            if isinstance(answer := answers.get(question.key), dict)
        )
        by_key = {question.key: question for question in taken}
        return replace(self, questions=tuple(by_key.get(old.key, old) for old in self.questions)), taken

    @property
    def responses(self) -> Mapping[str, Any]:
        """The answers to the tool server's questions, as a retry of the call brings them."""
        return {question.name: question.answer for question in self.questions if question.asker == "server"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOwner:
    """Who may see a task. A request for a session stands in none: it is the agent's, whatever session it is in."""

    agent: AgentName
    session: SessionId
    client: str  # the `client_id` of its token


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A held call as its owner polls for it."""

    id: TaskId
    hold: HoldId
    owner: TaskOwner
    call: Mapping[str, Any]  # the parameters of the `tools/call`, as far as they are the call's
    progress: Progress = field(default_factory=Progress)
    outcome: Mapping[str, Any] | None = None  # what it came to, where its hold does not say that
    made_at: datetime
    updated_at: datetime
    expires_at: datetime

    def asking(self, result: Mapping[str, Any], until: datetime) -> Task:
        """The task whose tool server asks, and waits `until` then; without questions it wants to be called again."""
        progress = self.progress.asking("server", result.get("inputRequests") or {})
        return replace(
            self,
            progress=replace(progress, state=result["requestState"], until=until),
            expires_at=max(self.expires_at, until + limits.REPLAY_WINDOW),
        )

    def asking_ours(self, asker: Asker, held: HeldCall, request: Mapping[str, Any]) -> Task:
        """The task with our question about its hold, which is asked once."""
        if any(one.name == held.id for one in self.progress.questions):
            return self
        return replace(self, progress=self.progress.asking(asker, {held.id: request}))

    def under(self, held: HeldCall) -> Task:
        """The task under another hold, which asks for more approval."""
        end = max(self.expires_at, held.expires_at + limits.REPLAY_WINDOW)
        return replace(self, hold=held.id, progress=self.progress.over, expires_at=end)

    def ended(self, outcome: Mapping[str, Any] | None, now: datetime) -> Task:
        """The task whose call runs no more, with what its hold does not say of that; it can be read for a while."""
        end = max(self.expires_at, now + limits.REPLAY_WINDOW)
        return replace(self, progress=self.progress.over, outcome=outcome, expires_at=end)


Stage = Literal["waits", "ready", "runs", "over", "cancelled"]

STAGES: Final[Mapping[HoldState, Stage]] = {
    HoldState.PENDING: "waits",
    HoldState.APPROVED: "ready",
    HoldState.CLAIMED: "runs",
    HoldState.DENIED: "over",
    HoldState.EXPIRED: "over",
    HoldState.CANCELLED: "cancelled",
    HoldState.DONE: "over",
    HoldState.FAILED: "over",
    HoldState.UNKNOWN: "over",
}
"""What the state of a hold is for whoever polls: `ready` calls run with the next poll of their owner."""


def stage(task: Task, held: HeldCall) -> Stage:
    """Where the call stands: what it came to comes first, then what its tool server waits for, then its hold."""
    if task.outcome is not None:
        return "cancelled" if "cancelled" in task.outcome else "over"
    of_hold = STAGES[held.state]
    if task.progress.state is None or of_hold in {"over", "cancelled"}:
        return of_hold
    asked = any(question.asker == "server" for question in task.progress.unanswered)
    return "waits" if asked else "ready"


def last_change(task: Task, held: HeldCall) -> datetime:
    """When what the owner sees changed last."""
    times = [task.updated_at, *(verdict.given_at for verdict in held.verdicts)]
    return max(times if held.ended_at is None else [*times, held.ended_at])
