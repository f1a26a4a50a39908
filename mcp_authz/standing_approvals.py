"""Standing approvals in use: what a person could give from a held call, giving it, and the calls that use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from mcp_authz import limits
from mcp_authz.approvals import Approvals, Asker, event_of, held_now
from mcp_authz.errors import Conflict, InputError, NotFound, SignatureRefused
from mcp_authz.ids import new_id
from mcp_authz.model import Assurance, HeldCall, Hold, HoldId, HoldState, StandingId, ToolCall, Verdict
from mcp_authz.principals import Person, PersonName, SessionId
from mcp_authz.rules.canonical import digest
from mcp_authz.rules.constraint import Constraint
from mcp_authz.rules.display import shown_arguments
from mcp_authz.rules.hold import after_verdicts, counts_for
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.standing_approval import (
    StandingApproval,
    StandingTerms,
    captured,
    counts_towards,
    fits,
    make_pattern,
    make_statement,
    may_stand,
    read_statement,
    standing_challenge,
)
from mcp_authz.rules.verdict import PasskeyProof, SignInProof, require_challenge
from mcp_authz.store.ports import Clock, Event, Store
from mcp_authz.store.standing_port import StandingUse

_TRIES = 3  # when other calls use them up at the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person wants to approve beside the call before them."""

    calls: int
    freed: Mapping[str, Constraint] = field(default_factory=dict)  # what may differ; the rest stays the same
    until: datetime | None = None  # None: for `limits.STANDING_TIME`


class StandingApprovals:
    """Makes standing approvals of what people sign, and lets calls use them; `rules` decide what fits and counts."""

    def __init__(self, *, store: Store, clock: Clock, approvals: Approvals, gateway_key: PrivateKey) -> None:
        self._store = store
        self._clock = clock
        self._approvals = approvals
        self._gateway_key = gateway_key

    async def draft(self, hold: HoldId, person: PersonName, wish: Wish, *, reason: str) -> StandingTerms:
        """What the person would sign; nothing is changed.

        Raises:
            NotFound: there is no such hold.
            Conflict: no standing approval can be made from it.
            InputError: too many calls, too long, or what is freed is not of this call.
        """
        held = await self._held(hold)
        if held.state is not HoldState.PENDING:
            raise Conflict(f"hold `{hold}` is {held.state.value}, it cannot be answered any more")
        if shown_arguments(held.arguments) is None:
            raise Conflict("this call is too large to be shown whole, so nobody can approve it")
        if not 1 <= wish.calls <= limits.STANDING_CALLS:
            raise InputError(f"a standing approval is for 1 to {limits.STANDING_CALLS} calls")
        now = self._clock()
        until = wish.until or now + limits.STANDING_TIME
        if not now < until <= now + limits.STANDING_LONGEST:
            raise InputError(f"a standing approval ends within {limits.STANDING_LONGEST // timedelta(hours=1)} hours")
        session = await self._store.session(held.session)
        if session is None or session.status != "active" or now >= session.expires_at:
            raise Conflict("the session of this call is over")
        return StandingTerms(
            id=StandingId(new_id("a")),
            hold=held.id,
            person=person,
            pattern=make_pattern(_action(held), wish.freed),
            rules=held.rules,
            most=wish.calls,
            expires_at=min(until, session.expires_at).replace(microsecond=0),
            reason=reason,
        )

    async def give_signed(self, terms: StandingTerms, statement: str) -> HeldCall:
        """The terms are given, signed by the person's own key; the hold that they were made from has this verdict.

        Raises:
            SignatureRefused: it is no statement over these terms by a usable key of the person.
            NotFound, Conflict, InputError: it may not be given, or not any more.
        """
        held, now = await self._held(terms.hold), self._clock()
        keys = {
            str(key.thumbprint): PublicKey.from_raw(key.raw)
            for key in await self._store.keys_of(f"user:{terms.person}")
            if key.status == "active" and (key.retires_at is None or now < key.retires_at)
        }
        signed_by = read_statement(statement, terms=terms, held=held, assurance=Assurance.SIGNED_IN, keys=keys, now=now)
        return await self._give(
            held,
            StandingApproval(
                terms=terms,
                assurance=Assurance.SIGNED_IN,
                statement=statement,
                signed_by=signed_by,
                given_at=now,
            ),
        )

    async def give_page(self, terms: StandingTerms, proof: PasskeyProof | SignInProof) -> HeldCall:
        """The terms are given on the page; signed by the gateway, with the proof that it was the person.

        Raises:
            SignatureRefused: the proof is about something else.
            NotFound, Conflict, InputError: it may not be given, or not any more; or the sign-in was too long ago.
        """
        held, now = await self._held(terms.hold), self._clock()
        by_passkey = isinstance(proof, PasskeyProof)
        if isinstance(proof, PasskeyProof):
            require_challenge(proof, standing_challenge(terms, held, nonce=proof.nonce))
        elif now - proof.at > limits.APPROVAL_SIGN_IN:
            raise Conflict("sign in again first: you approve with a sign-in of just now")
        assurance = Assurance.PASSKEY if by_passkey else Assurance.SIGNED_IN
        statement = make_statement(
            terms, held, assurance=assurance, at=now, key=self._gateway_key, proof=proof.to_json()
        )
        return await self._give(
            held,
            StandingApproval(
                terms=terms,
                assurance=assurance,
                statement=statement,
                signed_by=self._gateway_key.public.thumbprint,
                given_at=now,
                passkey=proof.credential if isinstance(proof, PasskeyProof) else None,
            ),
        )

    async def _give(self, held: HeldCall, standing: StandingApproval) -> HeldCall:
        terms = standing.terms
        who = await self._store.person(terms.person)
        if who is None:
            raise NotFound(f"there is no person `{terms.person}`")
        if standing.assurance < Assurance.SIGNED_IN:
            raise Conflict("a standing approval takes a passkey, a sign-in, or a key")
        if not fits(terms.pattern, _action(held)) or terms.rules != held.rules:
            raise SignatureRefused(f"standing approval `{terms.id}` is not about hold `{held.id}`")
        verdict = _verdict(standing, held.id)
        to, event = await self._approvals.judged(held, who, verdict)
        fields = {"calls": terms.most, "until": terms.expires_at.isoformat()}
        event = replace(event, fields={**event.fields, "permits": fields})
        return await self._store.give_standing(standing, verdict, after=len(held.verdicts), to=to, event=event)

    async def given_by(self, person: PersonName) -> tuple[StandingApproval, ...]:
        """What this person has given and what still counts, newest first."""
        now, counts = self._clock(), []
        for standing in await self._store.standing_approvals():
            session = await self._store.session(SessionId(str(standing.terms.pattern.bound["session"])))
            over = session is None or session.status != "active" or now >= session.expires_at
            if standing.terms.person == person and not over and not standing.is_over(now):
                counts.append(standing)
        return tuple(reversed(counts))

    async def use(
        self, call: ToolCall, asker: Asker, decision: Hold, record: Callable[[HoldId], Event]
    ) -> HeldCall | None:
        """The hold of this call, approved by standing approvals that meet every rule of it; None where they do not.

        It may be one that was there already, in whatever state, when an identical call was faster.
        """
        if not asker.session or shown_arguments(call.arguments) is None:
            return None
        for _ in range(_TRIES):
            wanted = await self._wanted(call, asker, decision)
            chosen = () if wanted is None else await self._meeting(wanted)
            if wanted is None or not chosen:
                return None
            try:
                return await self._store.use_standing(await self._use(wanted, chosen, record))
            except Conflict:
                continue  # another call was faster: look again at what is left
        return None

    async def _wanted(self, call: ToolCall, asker: Asker, decision: Hold) -> HeldCall | None:
        """The call as it is held: the hold that waits for it already, if it is of these rules, or a new one."""
        new = held_now(call, asker, decision, self._clock())
        assert digest(_action(new)) == new.digest  # noqa: S101 - a pattern is compared with what was judged, no less
        same = await self._store.find_hold(digest=new.digest, session=new.session, actor=new.actor)
        if same is None or same.state is not HoldState.PENDING:
            return new
        return same if same.rules == decision.rules else None

    async def _meeting(self, wanted: HeldCall) -> tuple[StandingApproval, ...]:
        """Standing approvals that together meet every rule, no more of them than it takes; empty where none do."""
        people = {v.person: p for v in wanted.verdicts if (p := await self._store.person(v.person)) is not None}
        best: dict[PersonName, StandingApproval] = {}
        for standing in await self._store.live_standing(wanted):
            terms, who = standing.terms, await self._store.person(standing.terms.person)
            if who is None or terms.person in people or not counts_towards(terms, wanted.rules):
                continue
            if not fits(terms.pattern, _action(wanted)):
                continue
            other = best.get(terms.person)
            if other is None or _worth(standing, who, wanted) > _worth(other, who, wanted):
                best[terms.person] = standing
        for name in best:
            if (who := await self._store.person(name)) is not None:
                people[name] = who
        return _fewest(wanted, tuple(best.values()), {str(name): who for name, who in people.items()})

    async def _use(
        self, wanted: HeldCall, chosen: tuple[StandingApproval, ...], record: Callable[[HoldId], Event]
    ) -> StandingUse:
        """What the store does in one transaction; the call runs before the first of them ends, or not by them."""
        first = chosen[0].terms
        arguments = captured(first.pattern, (await self._held(first.hold)).arguments, wanted.arguments)
        wanted = replace(wanted, arguments=arguments)
        ends_at = min(standing.terms.expires_at for standing in chosen)
        if not wanted.verdicts and ends_at < wanted.expires_at:
            wanted = replace(wanted, expires_at=ends_at, ends_with="standing")
        now = self._clock()
        states = [*(HoldState.PENDING for _ in chosen[1:]), HoldState.APPROVED]
        verdicts = [_verdict(standing, wanted.id) for standing in chosen]
        events = [
            event_of(wanted, verdict, to, now, meets=await self._meets(verdict, wanted))
            for verdict, to in zip(verdicts, states, strict=True)
        ]
        return StandingUse(held=wanted, decision=record(wanted.id), verdicts=tuple(zip(verdicts, events, strict=True)))

    async def _meets(self, verdict: Verdict, held: HeldCall) -> tuple[str, ...]:
        """The rules that the verdict counts for now: whoever verifies it later cannot know who was in which group."""
        who = await self._store.person(verdict.person)
        return () if who is None else tuple(rule.name for rule in held.rules if counts_for(verdict, who, held, rule))

    async def _held(self, hold: HoldId) -> HeldCall:
        held = await self._store.hold(hold)
        if held is None:
            raise NotFound(f"there is no hold `{hold}`")
        if not may_stand(held) or not held.bound:
            raise Conflict(f"hold `{hold}` is approved by itself: no standing approval can be made from it")
        return held


def _action(held: HeldCall) -> Mapping[str, object]:
    """The action statement of a held call, whose digest is what an approval is bound to."""
    return {**held.bound, "arguments": dict(held.arguments)}


def _verdict(standing: StandingApproval, hold: HoldId) -> Verdict:
    return Verdict(
        hold=hold,
        person=standing.terms.person,
        approve=True,
        assurance=standing.assurance,
        statement=standing.statement,
        signed_by=standing.signed_by,
        reason=standing.terms.reason,
        given_at=standing.given_at,
        standing=standing.terms.id,
    )


def _worth(standing: StandingApproval, who: Person, held: HeldCall) -> tuple[int, int]:
    verdict = _verdict(standing, held.id)
    return sum(counts_for(verdict, who, held, rule) for rule in held.rules), standing.assurance


def _fewest(
    held: HeldCall, fitting: tuple[StandingApproval, ...], people: dict[str, Person]
) -> tuple[StandingApproval, ...]:
    def meet(some: tuple[StandingApproval, ...]) -> bool:
        given = (*held.verdicts, *(_verdict(standing, held.id) for standing in some))
        return after_verdicts(replace(held, verdicts=given), people) is HoldState.APPROVED

    if not fitting or not meet(fitting):
        return ()
    for standing in fitting:
        without = tuple(one for one in fitting if one is not standing)
        if without and meet(without):
            fitting = without
    return fitting
