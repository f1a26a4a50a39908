"""A second policy that decides nothing: it is asked what the first one was, and where it differs, that is recorded.

It can change no answer: it is asked after the first has answered, in a thread and an event loop of its own, about a
copy of the document. A call only leaves its question in a bounded queue, and never waits for anything here.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.evaluation import Evaluation
from mcp_authz.model import Decision, Deny, Hold, Permit
from mcp_authz.policy.engine import PolicyAnswer, PolicyEngine, PolicyInput
from mcp_authz.policy.live import LivePolicy
from mcp_authz.store.ports import Clock, Event, Log

log = logging.getLogger(__name__)

KEY: Final = "shadow_policy"
_REMEMBERED: Final = 4 * limits.SHADOW_WAITING  # calls of which a difference was recorded: each is recorded once
_MINUTE: Final = 60.0
_KINDS: Final = 100  # of differences that are counted apart in one minute


class _Absent:
    """The second policy as long as none could be loaded: it is asked nothing."""

    digest = ""

    async def evaluate(self, _: PolicyInput) -> PolicyAnswer:
        """Return no permit."""
        return PolicyAnswer(permit=False, because=(), errors=("no policy is loaded",))


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    call: str
    document: PolicyInput
    policy: str  # the digest of the policy that decided
    decided: Decision
    conclude: Callable[[PolicyAnswer], Decision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gist:
    """What of a decision its caller would notice."""

    outcome: str  # `permit`, `hold` or `deny`
    reason: str = ""  # of a denial
    rules: tuple[str, ...] = ()  # approval rules of a hold
    obligations: frozenset[tuple[str, str]] = frozenset()  # of a permit, approvals left out: they are met

    @classmethod
    def of(cls, decision: Decision) -> Gist:
        """The gist of one decision; of a call that is only observed, of what would have been decided."""
        match decision:
            case Permit(observed=None, obligations=obligations):
                kept = frozenset((one.kind, one.argument) for one in obligations if one.kind != "approval")
                return cls(outcome="permit", obligations=kept)
            case Permit(observed=observed) if observed is not None:
                hold = observed.would == "hold"
                return cls(
                    outcome=observed.would,
                    reason="" if hold else observed.reason,
                    rules=tuple(sorted(observed.rules)) if hold else (),
                )
            case Hold(rules=rules):
                return cls(outcome="hold", rules=tuple(sorted(rule.name for rule in rules)))
            case Deny(code=code):
                return cls(outcome="deny", reason=code)
        raise AssertionError(decision)


class Shadow:
    """Asks the second policy about calls that were decided, and records the differences."""

    def __init__(self, policy: LivePolicy, log_: Log, clock: Clock) -> None:
        self.policy = policy
        self._log = log_
        self._clock = clock
        self._waiting: asyncio.Queue[_Question] = asyncio.Queue(limits.SHADOW_WAITING)
        self._recorded: OrderedDict[str, None] = OrderedDict()
        self._one_by_one = 0  # differences recorded in this minute
        self._counted: Counter[tuple[str, str, str]] = Counter()  # those that were not: decided, would, because
        self.left_out = 0  # calls of this minute that it was not asked about

    def note(self, call: str, verdict: Evaluation) -> None:
        """The second policy will be asked what the first one was, unless too many calls wait for that already."""
        if verdict.asked is None or self.policy.current is ABSENT:
            return
        question = _Question(
            call=call,
            document=verdict.asked.document,
            policy=verdict.policy,
            decided=verdict.decision,
            conclude=verdict.asked.conclude,
        )
        try:
            self._waiting.put_nowait(question)
        except asyncio.QueueFull:
            self.left_out += 1

    async def idle(self) -> None:
        """It has been asked about every call that was noted, and what differed is recorded or counted."""
        await self._waiting.join()

    async def run(self) -> None:
        """Ask and record, until cancelled; what was counted is recorded then too."""
        with start_blocking_portal() as portal:
            try:
                async with anyio.create_task_group() as group:
                    for _ in range(limits.SHADOW_AT_ONCE):
                        group.start_soon(self._work, portal)
                    group.start_soon(self._count)
            finally:
                with anyio.CancelScope(shield=True):
                    await self.record_counts()
                    await asyncio.wrap_future(portal.start_task_soon(self.policy.aclose))

    async def _work(self, portal: BlockingPortal) -> None:
        while True:
            question = await self._waiting.get()
            engine = self.policy.current
            answer = await self._ask(portal, engine, question.document)
            await self._compare(question, engine.digest, answer)
            self._waiting.task_done()

    async def _ask(self, portal: BlockingPortal, engine: PolicyEngine, document: PolicyInput) -> PolicyAnswer:
        try:
            async with asyncio.timeout(limits.SHADOW_TIME.total_seconds()):
                return await asyncio.wrap_future(portal.start_task_soon(_answer, engine, document))
        except TimeoutError:
            seconds = limits.SHADOW_TIME.total_seconds()
            return PolicyAnswer(permit=False, because=(), errors=(f"no answer within {seconds:.0f} seconds",))

    async def _compare(self, question: _Question, digest: str, answer: PolicyAnswer) -> None:
        """A difference is recorded, unless there was one of this call already, or there are too many in this minute."""
        decision = question.conclude(answer)
        would, decided = Gist.of(decision), Gist.of(question.decided)
        if would == decided or question.call in self._recorded:
            return
        self._recorded[question.call] = None
        if len(self._recorded) > _REMEMBERED:
            self._recorded.popitem(last=False)
        if self._one_by_one >= limits.SHADOW_RECORDED:
            kind = (decided.outcome, would.outcome, " ".join(decision.because))
            self._counted[kind if kind in self._counted or len(self._counted) < _KINDS else ("", "", "")] += 1
            return
        self._one_by_one += 1
        await self._append(question.call, _fields(question, digest, decision, answer))

    async def _count(self) -> None:
        while True:
            await anyio.sleep(_MINUTE)
            await self.record_counts()

    async def record_counts(self) -> None:
        """What was only counted since the last time is recorded, and nothing is counted any more."""
        counted, left_out = self._counted, self.left_out
        self._one_by_one, self._counted, self.left_out = 0, Counter(), 0
        if not counted and not left_out:
            return
        differences = [
            {"decided": decided, "would": would, "because": because.split(), "count": count}
            for (decided, would, because), count in counted.most_common()
        ]
        told = f"{counted.total()} more calls differed within a minute" if counted else ""
        missed = f"{left_out} calls were left out: too many waited" if left_out else ""
        summary = f"`{KEY}`: {'; '.join(filter(None, (told, missed)))}"
        await self._append(None, {"key": KEY, "differences": differences, "left_out": left_out, "summary": summary})

    async def _append(self, call: str | None, fields: dict[str, Any]) -> None:
        try:
            await self._log.append(Event(kind="policy", at=self._clock(), call=call, fields=fields))
        except StoreError as error:
            log.error("what `%s` would have decided is not recorded: %s", KEY, error)


async def _answer(engine: PolicyEngine, document: PolicyInput) -> PolicyAnswer:
    try:
        return await engine.evaluate(copy.deepcopy(document))  # the arguments in it are those that are forwarded
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the next call is asked about all the same
        return PolicyAnswer(permit=False, because=(), errors=(f"the engine failed: {type(error).__name__}",))


def _fields(question: _Question, digest: str, decision: Decision, answer: PolicyAnswer) -> dict[str, Any]:
    document, decided, would = question.document, Gist.of(question.decided), Gist.of(decision)
    actor, tool = f"agent:{document['actor']['id']}", document["resource"]["tool"]
    rules = f" ({', '.join(would.rules or decision.because)})" if would.rules or decision.because else ""
    fields: dict[str, Any] = {
        "key": KEY,
        "actor": actor,
        "tool": tool,
        "action": document["action"],
        "decided": decided.outcome,
        "would": would.outcome,
        "because": list(decision.because),
        "obligations": [{"kind": one.kind, "argument": one.argument} for one in answer.obligations],
        "policy": question.policy,
        "shadow": digest,
        "summary": f"`{KEY}`: {document['action']} of {document['actor']['id']} was {_PAST[decided.outcome]} and would "
        f"have been {_PAST[would.outcome]}{rules}",
    }
    if would.reason:
        fields["reason"] = would.reason
    if would.rules:
        fields["rules"] = list(would.rules)
    if answer.errors:
        fields["detail"] = "; ".join(answer.errors)[: limits.DETAIL_RECORDED]
    return fields


_PAST: Final = {"permit": "permitted", "hold": "held", "deny": "denied"}
