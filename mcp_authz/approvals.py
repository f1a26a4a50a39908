"""Held calls in use: opening one, hearing a verdict, and turning verdicts into evidence for a second evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from typing import Any

from mcp_authz import hearing, limits
from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.hearing import Answered, PageAnswer, WebhookAnswer
from mcp_authz.ids import new_id
from mcp_authz.model import Approval, EndsWith, HeldCall, Hold, HoldId, HoldState, ToolCall, Verdict
from mcp_authz.other_client import in_the_chain
from mcp_authz.principals import Agent, AgentName, Caller, Key, Mode, Person, PersonName, SessionId
from mcp_authz.rules import session_request
from mcp_authz.rules.binding import action_statement
from mcp_authz.rules.deciding import ClientAnswer
from mcp_authz.rules.difference import Difference, differences
from mcp_authz.rules.display import shown_arguments
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.hold import (
    after_verdicts,
    counts_for,
    evidence_assurance,
    is_eligible,
    is_enough,
    may_speak,
    wants_reason,
)
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.verdict import word
from mcp_authz.store.ports import Clock, Event, Store


class CannotBeShown(Conflict):
    """The call is too large to be shown to a person whole, so nobody can approve it."""

    code = "cannot_be_shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who a person is asked by, and for what."""

    agent: Agent
    subject: PersonName
    session: SessionId  # empty for a request for a session
    purpose: str
    chain: tuple[AgentName, ...]
    bounds: tuple[tuple[datetime, EndsWith], ...]  # when it is over, whatever the rules say
    mode: Mode = Mode.DELEGATED


def asker_of(caller: Caller) -> Asker:
    """The asker of a call that stands in a session."""
    assert caller.session is not None and caller.chain is not None  # noqa: S101 - steps 5 and 12 came before
    return Asker(
        agent=caller.agent,
        # Who owns the first agent answers for one that works for itself.
        subject=caller.session.subject or caller.holders[caller.session.agent].owner,
        session=caller.session.id,
        purpose=caller.session.purpose,
        chain=caller.chain.agents,
        bounds=((caller.session.expires_at, "session"), (caller.chain.leaf.expires_at, "delegation")),
        mode=caller.session.mode,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What helps a person to judge a held call: calls of its kind that were approved before."""

    last: HeldCall | None  # the one that was asked for last
    differences: tuple[Difference, ...]  # of this call's arguments from that one's
    same_ran: HeldCall | None  # the last one with the same arguments that ran to its end


class Approvals:
    """Opens holds and hears verdicts; who may answer is decided by `rules.hold` alone."""

    def __init__(self, *, store: Store, clock: Clock, gateway_key: PrivateKey) -> None:
        self._store = store
        self._clock = clock
        self._gateway_key = gateway_key

    async def open(self, call: ToolCall, asker: Asker, decision: Hold, record: Callable[[HoldId], Event]) -> HeldCall:
        """The call waits for a person: a new hold, or the identical one that waits already; recorded either way.

        Raises:
            CannotBeShown: the arguments cannot be displayed in full.
            Conflict: too many holds wait already.
        """
        if shown_arguments(call.arguments) is None:
            raise CannotBeShown("arguments are too large to be shown whole")
        held = held_now(call, asker, decision, self._clock())
        opened = await self._store.open_hold(
            held, record(held.id), per_session=limits.HOLDS_PER_SESSION, per_agent=limits.HOLDS_PER_AGENT
        )
        if opened.id != held.id:
            await self._store.append(record(opened.id))
        return opened

    async def hear_signed(self, hold: HoldId, person: PersonName, statement: str) -> HeldCall:
        """The verdict in a statement signed by the approver's own key is heard.

        Raises:
            NotFound: no such hold, or no such person.
            SignatureRefused: the statement is not over this hold and what it displays, or not by a key of the person.
            Conflict: the person may not answer, or the hold is not pending any more.
        """
        held, who = await self._hold(hold), await self._person(person)
        keys = {
            str(key.thumbprint): PublicKey.from_raw(key.raw)
            for key in await self._store.keys_of(f"user:{person}")
            if _is_usable(key, self._clock())
        }
        verdict = hearing.by_own_key(held, statement, person=person, keys=keys, at=self._clock())
        return await self._hear(held, who, verdict)

    async def hear_client(self, hold: HoldId, *, approve: bool, terms: Mapping[str, Any] | None = None) -> HeldCall:
        """The answer that the subject's own client gave to the prompt is heard; signed by the gateway, as such.

        Raises:
            NotFound, Conflict: as `hear_signed`; and where a client's prompt may not answer at all.
        """
        held = await self._hold(hold)
        return await self._hear_answered(held, hearing.by_own_prompt(held, approve=approve, terms=terms))

    async def hear_page(self, hold: HoldId, answer: PageAnswer) -> HeldCall:
        """The answer that a person gave on the page is heard; signed by the gateway, with the proof that it was them.

        Raises:
            NotFound, Conflict, InputError: as `hear_signed`; and when an approval comes without a proof, or with a
                sign-in of too long ago.
            SignatureRefused: the proof is about something else.
        """
        held = await self._hold(hold)
        return await self._hear_answered(held, hearing.by_page(held, answer, at=self._clock()))

    async def hear_other_client(self, hold: HoldId, caller: Caller, answer: ClientAnswer) -> HeldCall:
        """The answer that a person gave in another MCP client of theirs is heard; signed by the gateway, as such.

        Raises:
            NotFound, Conflict, InputError: as `hear_signed`; and where the client may not answer for anybody, or is one
                that the call came through.
        """
        held = await self._hold(hold)
        if (why := await in_the_chain(self._store, held, caller)) is not None:
            raise Conflict(why)
        return await self._hear_answered(held, hearing.by_other_client(caller, answer))

    async def hear_webhook(self, answer: WebhookAnswer) -> HeldCall:
        """The answer that a webhook brings is heard; signed by the gateway, with the webhook that it came through.

        Raises:
            NotFound, Conflict: as `hear_signed`; and when it is not about what waits.
        """
        held = await self._hold(answer.hold)
        return await self._hear_answered(held, hearing.by_webhook(held, answer))

    async def context(self, held: HeldCall) -> Context:
        """What was approved before of this kind: the same tool, by the same actor, for the same person."""
        alike = await self._store.approved_like(held, limits.ALIKE_LOOKED_AT)
        ran = (one for one in alike if one.state is HoldState.DONE and one.arguments == held.arguments)
        last = alike[0] if alike else None
        return Context(
            last=last,
            differences=() if last is None else differences(last.arguments, held.arguments),
            same_ran=next(ran, None),
        )

    async def stands(self, held: HeldCall, *, at: datetime | None = None) -> bool:
        """Whether the verdicts meet every rule of an approved hold by what the people who gave them may do now.

        With `at` a standing approval whose time was up later than that still counts: nobody took it away.
        """
        if await self._store.rests_on_ended(held.id, at=at):
            return False
        people = {v.person: p for v in held.verdicts if (p := await self._store.person(v.person)) is not None}
        return after_verdicts(held, {str(name): who for name, who in people.items()}) is HoldState.APPROVED

    async def asks_subject(self, held: HeldCall) -> bool:
        """Whether the person that the call is for may answer it: only they are sent to its page by their client."""
        who = await self._store.person(held.subject) if held.mode is Mode.DELEGATED else None
        return who is not None and any(is_eligible(who, held, rule) for rule in held.rules)

    async def _hear_answered(self, held: HeldCall, answered: Answered) -> HeldCall:
        who = await self._person(answered.person)
        return await self._hear(held, who, hearing.by_gateway(held, answered, key=self._gateway_key, at=self._clock()))

    async def _hear(self, held: HeldCall, who: Person, verdict: Verdict) -> HeldCall:
        to, event = await self.judged(held, who, verdict)
        return await self._store.give_verdict(verdict, after=len(held.verdicts), to=to, event=event)

    async def judged(self, held: HeldCall, who: Person, verdict: Verdict) -> tuple[HoldState, Event]:
        """The state that this verdict leads to, and its record.

        Raises:
            Conflict, InputError: it may not be given.
        """
        if not may_speak(held, verdict):
            raise Conflict(_too_late(held, verdict))
        if not any(is_eligible(who, held, rule) for rule in held.rules):
            raise Conflict(f"`{who.name}` may not answer hold `{held.id}`: no rule of it names them")
        if verdict.approve and not is_enough(who, held, verdict.assurance):
            raise Conflict(f"hold `{held.id}` needs a stronger proof than `{verdict.assurance.label}`")
        if verdict.approve and wants_reason(who, held) and not verdict.reason.strip():
            raise Conflict(f"hold `{held.id}` needs a reason with the approval")
        if len(verdict.reason) > limits.REASON:
            raise Conflict(f"the reason is longer than {limits.REASON} characters, and nobody could read it all")
        if verdict.sent_back and (verdict.approve or not verdict.reason.strip()):
            raise Conflict(f"hold `{held.id}` is sent back with a reason: say what the call should be instead")
        if verdict.approve:
            terms_of(held, verdict.terms)
        after = replace(held, verdicts=(*held.verdicts, verdict))
        people = {str(v.person): await self._person(v.person) for v in after.verdicts}
        to = after_verdicts(after, people)
        meets = tuple(rule.name for rule in held.rules if counts_for(verdict, who, held, rule))
        return to, event_of(held, verdict, to, self._clock(), meets=meets)

    async def _hold(self, hold: HoldId) -> HeldCall:
        held = await self._store.hold(hold)
        if held is None:
            raise NotFound(f"there is no hold `{hold}`")
        return held

    async def _person(self, person: PersonName) -> Person:
        who = await self._store.person(person)
        if who is None:
            raise NotFound(f"there is no person `{person}`")
        return who


def evidence(held: HeldCall, asked: Hold) -> Approval:
    """The approval that an approved (or claimed) hold is evidence of.

    A rule that has another content by now than when it was met is not met: its name alone proves nothing.
    """
    given = [verdict for verdict in held.verdicts if verdict.approve]
    return Approval(
        hold=held.id,
        call_digest=held.digest,
        arguments=terms_of(held),
        rules=tuple(rule.name for rule in held.rules if rule in asked.rules),
        assurance=evidence_assurance(held),
        by=tuple(verdict.person for verdict in given),
        approved_at=max(verdict.given_at for verdict in given),
    )


def terms_of(held: HeldCall, more: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """What runs once the hold is approved: the captured arguments, narrowed by what each approver made of them.

    Raises:
        InputError: `more` would not narrow it, or this is no call that could be narrowed.
    """
    every = [*(verdict.terms for verdict in held.verdicts if verdict.approve), more or {}]
    if held.tool == session_request.NAME:
        return reduce(session_request.narrowed, every, held.arguments)
    if any(every):
        raise InputError("only a request for a session can be narrowed; approve the call as it is, or deny it")
    return held.arguments


def _too_late(held: HeldCall, verdict: Verdict) -> str:
    if held.state is HoldState.PENDING:
        return f"`{verdict.person}` has answered hold `{held.id}` already"
    return f"hold `{held.id}` is {held.state.value}, it cannot be answered any more"


def shortest(decision: Hold) -> timedelta:
    """How long a call waits: as long as the least patient rule."""
    return min(rule.expires for rule in decision.rules)


def _bound(call: ToolCall, asker: Asker) -> Mapping[str, Any]:
    """What the action digest was made of beside the arguments, so that anybody can make it again."""
    chain, own = asker.chain, asker.mode is Mode.OWN
    statement = action_statement(
        call,
        session=asker.session,
        subject=f"agent:{chain[0]}" if own else f"user:{asker.subject}",
        actor=asker.agent.name,
        chain=chain,
    )
    return {name: value for name, value in statement.items() if name != "arguments"}


def held_now(call: ToolCall, asker: Asker, decision: Hold, now: datetime) -> HeldCall:
    """The call as it is held from now on, under a new id."""
    expires_at, ends_with = _end(decision, asker, now)
    return HeldCall(
        id=HoldId(new_id("h")),
        state=HoldState.PENDING,
        digest=decision.call_digest,
        tool=call.tool.name,
        server=call.tool.server,
        arguments=call.arguments,
        hazard=call.tool.classification.hazard,
        session=asker.session,
        purpose=asker.purpose,
        subject=asker.subject,
        owner=asker.agent.owner,
        actor=asker.agent.name,
        chain=asker.chain,
        interactive=asker.agent.interactive,
        rules=decision.rules,
        asked_at=now,
        expires_at=expires_at,
        ends_with=ends_with,
        mode=asker.mode,
        bound=_bound(call, asker),
    )


def _end(decision: Hold, asker: Asker, now: datetime) -> tuple[datetime, EndsWith]:
    """When a call that is held now stops waiting, and which bound that is."""
    rule: tuple[datetime, EndsWith] = (now + shortest(decision), "rule")
    return min((*asker.bounds, rule), key=lambda bound: bound[0])


def _is_usable(key: Key, at: datetime) -> bool:
    return key.status == "active" and (key.retires_at is None or at < key.retires_at)


def event_of(
    held: HeldCall, verdict: Verdict, to: HoldState, at: datetime, *, meets: tuple[str, ...] | None = None
) -> Event:
    """The record of a verdict that leads to this state; `meets` are the rules that it counts for, where it is known."""
    return Event(
        kind="approval",
        at=at,
        call=held.id,
        fields={
            "hold": held.id,
            "person": f"user:{verdict.person}",
            "verdict": word(verdict),
            "assurance": verdict.assurance.label,
            "signed_by": verdict.signed_by,
            "reason": verdict.reason,
            "statement": name_of(verdict.statement),
            "actor": f"agent:{held.actor}",
            "tool": held.tool,
            "state": to.value,
            **({"session": held.session} if held.session else {}),
            **({} if meets is None else {"meets": list(meets)}),
            **({"terms": dict(verdict.terms)} if verdict.terms else {}),
            **({"standing": verdict.standing} if verdict.standing else {}),
        },
    )
