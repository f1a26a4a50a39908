"""The one road of every call (DESIGN section 5): sixteen steps, refusals first, the permit last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import anyio

from mcp_authz import audit
from mcp_authz.approvals import asker_of
from mcp_authz.catalog import could_ever_use, known_to
from mcp_authz.deciding import Deciding, Got, is_own, may_decide
from mcp_authz.downstream import PROMPTS as OFFERED_PROMPTS
from mcp_authz.downstream import Offer
from mcp_authz.errors import SignatureRefused
from mcp_authz.evaluation import Evaluation, effective
from mcp_authz.forwarding import INTERNAL_ERROR, Forwarding, revoked
from mcp_authz.holding import Waiting, once
from mcp_authz.ids import new_id
from mcp_authz.inputs import kept
from mcp_authz.model import Admitted, Approval, Deny, Hold, Permit, RuleId, Tool, ToolCall
from mcp_authz.obligations import LOST, unpaid, why_lost
from mcp_authz.outcome import Broken, Outcome, Refused, Replayed
from mcp_authz.parts import Parts
from mcp_authz.principals import Caller
from mcp_authz.proving import Proofs
from mcp_authz.relay import Channel, clean
from mcp_authz.requesting import SessionRequest, cannot_ask
from mcp_authz.rules import session_request
from mcp_authz.rules.deciding import PROMPTS
from mcp_authz.rules.delegation import uncovered
from mcp_authz.rules.display import visible
from mcp_authz.rules.message import TASKS, Message, without_own_meta
from mcp_authz.rules.redaction import Withheld
from mcp_authz.rules.request_state import RequestState, open_state, split_retry
from mcp_authz.rules.token import MINIMAL_SCOPE
from mcp_authz.sessions import Sessions
from mcp_authz.step_ups import StepUp
from mcp_authz.store.ports import Admission, Event, Lost
from mcp_authz.tasks import Tasks


class Gateway:
    """The policy enforcement point."""

    def __init__(self, parts: Parts, sessions: Sessions) -> None:
        self._parts = parts
        self._sessions = sessions
        self.underway = parts.underway
        self.tasks = Tasks(parts, sessions, self.take)

    async def list_tools(self, caller: Caller) -> tuple[Tool, ...]:
        """The tools this caller could use with some arguments; listing grants nothing."""
        await self._parts.catalog.look()
        own = () if cannot_ask(caller) else (session_request.TOOL,)
        return (*(tool for tool in self._parts.catalog.tools if could_ever_use(caller, tool)), *own)

    async def list_offers(self, caller: Caller, offer: Offer) -> tuple[Mapping[str, Any], ...]:
        """The resources, templates or prompts of the servers that this caller could ask for them, and our own."""
        own = PROMPTS if offer is OFFERED_PROMPTS and may_decide(caller) else ()
        return (*own, *await self._parts.offers.list(caller, offer))

    def why_nothing(self, caller: Caller) -> str:
        """Why `list_tools` is empty for this caller."""
        if not self._parts.catalog.tools:
            return "no tool server is configured, or none could be reached."
        if caller.session is None:
            return "your agent's ceiling covers none of the tools, and you have no open session with a person."
        return "your delegation and your agent's ceiling have no tool in common."

    async def call(self, caller: Caller, message: Message, channel: Channel) -> Outcome:
        """Steps 7 to 16 for one request of an identified caller whose method reaches a tool server."""
        proofs = Proofs(self._parts.proving, self._parts.store, caller, message)
        if (deny := proofs.refuse_links()) is not None:  # 5, for links that come with the request
            return await Ride(self._parts, self._sessions, proofs, message, channel).refuse_unseen(deny)
        if message.method in TASKS:
            return await self.tasks.answer(proofs, message, channel)
        return await self.take(proofs, message, channel)

    async def take(self, proofs: Proofs, message: Message, channel: Channel) -> Outcome:
        """The same for a call that may come with the proofs of a poll for it."""
        caller = proofs.caller
        ride = Ride(self._parts, self._sessions, proofs, message, channel)
        if message.method == "tools/call" and message.params.get("name") == session_request.NAME:
            return await SessionRequest(self._parts, self._sessions, proofs, message, channel).run()
        if is_own(message) and may_decide(caller):
            return await ride.decide(self._parts.deciding)
        if message.method != "tools/call":
            offered = await self._parts.offers.resolve(caller, str(message.method), message.params)  # 7
            return await ride.refuse_unseen(_UNKNOWN) if offered is None else await ride.through(offered)
        tool = known_to(caller, await self._find(str(message.params.get("name"))))  # 7
        arguments = message.params.get("arguments", {})
        if tool is None or tool.method != message.method:
            return await ride.refuse_unseen(_UNKNOWN)
        if not isinstance(arguments, dict):
            return await ride.refuse(ToolCall(tool=tool, arguments={}), _deny("arguments"))
        return await ride.through(ToolCall(tool=tool, arguments=arguments))

    async def _find(self, name: str) -> Tool | None:
        tool = self._parts.catalog.find(name)
        if tool is None or not tool.quarantined:
            return tool
        await self._parts.catalog.reread()  # an operator may have accepted it since
        return self._parts.catalog.find(name)


class Ride:
    """One call on its way through steps 7 to 16."""

    def __init__(self, parts: Parts, sessions: Sessions, proofs: Proofs, message: Message, channel: Channel) -> None:
        self._parts = parts
        self._sessions = sessions
        self._store = parts.store
        self._proofs = proofs
        self._message = message
        self._channel = channel
        self._call_id = new_id("c")

    @property
    def _caller(self) -> Caller:
        return self._proofs.caller

    async def decide(self, deciding: Deciding) -> Outcome:
        """A prompt of the gateway's own: nothing is forwarded; what is refused, or answered, is recorded."""
        if (deny := self._proofs.refuse_call()) is not None:
            return await self.refuse_unseen(deny)
        if not await self._proofs.spend():
            return await self.refuse_unseen(_REPLAYED)
        got = Got(
            call_id=self._call_id,
            caller=self._caller,
            message=self._message,
            channel=self._channel,
            stand_again=self._stands_again,
        )
        said = await deciding.answer(got)
        return await self.refuse_unseen(said) if isinstance(said, Deny) else said

    async def _stands_again(self) -> Caller | Deny:
        """Who asks, as they stand now; what they agreed to may have ended while they thought."""
        if (ended := await self._proofs.stand_again(self._sessions)) is not None:
            return ended
        return self._caller if may_decide(self._caller) else _deny("revoked")

    async def through(self, call: ToolCall) -> Outcome:
        """Evaluate, hold if need be, admit, forward; again from step 7 when something changed, a few times at most."""
        if (deny := self._proofs.refuse_call()) is not None:  # 8, the proof that came; which is needed is evaluated
            return await self.refuse(call, deny)
        approval: Approval | None = None
        for _ in range(4):
            tool = self._parts.catalog.find(call.tool.name)
            if tool is None:
                return await self.refuse_unseen(_UNKNOWN)
            call = ToolCall(tool=tool, arguments=call.arguments)
            if (why := self._channel.disagreement(tool.definition.get("inputSchema"), call.arguments)) is not None:
                return await self.refuse(call, _deny("header_mismatch", detail=why))  # 7
            verdict = await self._parts.evaluator.evaluate(
                self._caller, call, approval=approval, at=self._parts.clock()
            )  # 7 - 12
            if self._parts.shadow is not None:
                self._parts.shadow.note(self._call_id, verdict)
            if isinstance(verdict.decision, Deny):
                return await self.refuse(call, verdict.decision, verdict)
            try:
                resume = self._resume(verdict)
            except SignatureRefused as error:
                return await self.refuse(call, _deny("request_state", detail=str(error)), verdict)
            if isinstance(verdict.decision, Hold):  # 13
                answer = await self._hold(call, verdict, verdict.decision, resume, approval)
                if not isinstance(answer, Approval):
                    return answer
                approval = answer
                # The captured arguments run: what is equal by RFC 8785 may still be written in another way.
                call = replace(call, arguments=approval.arguments)
                continue  # an approval is evidence for a second full evaluation, never a bypass
            if verdict.policy != self._policy:  # another policy decides by now; what was approved stays evidence for it
                continue
            ran = await self._run(call, verdict, verdict.decision, approval, resume)  # 14 - 16
            if not isinstance(ran, Lost):
                return ran
            if ran.reason not in {"definition", "claimed"}:
                return await self.refuse(call, _deny(LOST[ran.reason], detail=why_lost(ran)), verdict)
            await self._parts.catalog.reread()
            approval = None  # where an identical call was first, this one is given its result, or waits for it
        return await self.refuse(call, _deny("changed"))

    def _resume(self, verdict: Evaluation) -> RequestState | None:
        """What a retry brings back, once it is known to be for this caller and exactly this call."""
        state, _ = split_retry(self._message.params)
        if state is None:
            return None
        return open_state(
            state,
            caller=self._caller,
            method=str(self._message.method),
            call_digest=verdict.digest,
            sealer=self._parts.sealer,
            now=self._parts.clock(),
        )

    async def _hold(
        self, call: ToolCall, verdict: Evaluation, hold: Hold, resume: RequestState | None, approval: Approval | None
    ) -> Approval | Outcome:
        """Step 13: evidence that the call was approved, or what the caller is told; every exit is recorded."""
        if any(switch.is_everything for switch in await self._store.switched_off()):
            return await self.refuse(call, _deny("stopped"), verdict)
        if not await self._proofs.spend():  # what was asked for is on its way: the same proof asks for nothing more
            return await self.refuse(call, _REPLAYED, verdict)
        waiting = Waiting(
            call_id=self._call_id,
            call=call,
            caller=self._caller,
            asker=asker_of(self._caller),
            hold=hold,
            message=self._message,
            channel=self._channel,
            resume=resume,
            record=lambda hold_id: self._event(call, verdict, audit.decided(hold, policy=verdict.policy), hold=hold_id),
        )
        answer = await self._parts.holding.answer(waiting, too_little=approval)
        match answer:
            case Refused(deny=deny):
                return await self.refuse(call, deny, verdict)
            case Replayed(held=held):
                await self._store.append(self._event(call, verdict, {"decision": "replay"}, hold=held.id))
                return await self._given_again(answer, hold)
            case Approval() if (ended := await self._proofs.stand_again(self._sessions)) is not None:
                return await self.refuse(call, ended, verdict)  # it may have waited for long
        return answer

    async def _given_again(self, answer: Replayed, hold: Hold) -> Outcome:
        """What a call came to before, as policy lets its caller see it by now: its result may be of another policy."""
        result, redacting = answer.held.result, self._parts.obligations.redacting(hold)
        if result is None or redacting is None:
            return answer
        try:
            return replace(answer, held=replace(answer.held, result=await redacting.members(result)))
        except Withheld as error:
            text = f"the result is withheld: {error}"
            return Broken(call_id=self._call_id, rpc_code=INTERNAL_ERROR, message=text, data=None, may_have_run=True)

    async def _run(
        self,
        call: ToolCall,
        verdict: Evaluation,
        permit: Permit,
        approval: Approval | None,
        resume: RequestState | None,
    ) -> Outcome | Lost:
        """Steps 14 to 16; once what the call stands on is revoked, it is cancelled.

        Whatever happens to it, its outcome is recorded before anybody hears of it. Whoever wants to hear of such calls
        is told; once, also of one that goes on with an answer.
        """
        with self._parts.underway.while_standing(self._caller, call.tool, permit.approval) as running:
            admitted = await self._admit(call, verdict, permit, approval, resume)  # 14
            if isinstance(admitted, Lost):
                return admitted
            if resume is None or resume.kind != "downstream":
                self._parts.obligations.tell(permit, call, verdict.resource, self._caller)
            forwarding = Forwarding(self._parts, self._caller, admitted, self._channel, running)
            return await forwarding.run(digest=verdict.digest, resume=resume)  # 15, 16
        return revoked(self._call_id)

    async def _admit(
        self,
        call: ToolCall,
        verdict: Evaluation,
        permit: Permit,
        approval: Approval | None,
        resume: RequestState | None,
    ) -> Admitted | Lost:
        """Step 14: the decision is durable, and all that it rests on held in the same transaction; or it is lost."""
        caller = self._caller
        assert caller.session is not None and caller.chain is not None and caller.grant is not None  # noqa: S101
        answers = resume is not None and resume.kind == "downstream"
        # A retry goes on with the run it belongs to, and with no other: under another hold it claims like any call.
        continued = resume is not None and answers and resume.hold == permit.approval
        decided = audit.decided(permit, policy=verdict.policy, approval=approval)
        # Who answers the tool server's question goes on with a call that is counted, and has paid, already.
        new = permit if resume is None or not answers else replace(permit, obligations=unpaid(permit, resume.paid))
        only_run = () if answers or permit.approval is not None else self._proofs.only_run
        due = self._parts.obligations.due(new, call, verdict.resource, caller, at=self._parts.clock())
        admission = Admission(
            event=self._event(call, verdict, decided),
            agent=caller.agent.name,
            key=caller.key,
            subject=caller.session.subject,
            grant=caller.grant.id,
            session=caller.session.id,
            links=tuple(link.id for link in caller.chain.links),
            server=call.tool.server,
            tool=call.tool.tool,
            definition_digest=call.tool.digest,
            once=(*self._proofs.unspent, *only_run, *((once(resume),) if resume is not None and answers else ())),
            claim=None if continued else permit.approval,
            continues=permit.approval if continued else None,
            rates=due.rates,
            budgets=due.budgets,
        )
        with anyio.CancelScope(shield=True):  # a caller that leaves now must not leave a permit without an outcome
            admitted = await self._store.admit(admission)
        if isinstance(admitted, Lost):
            return admitted
        return Admitted(
            call_id=self._call_id,
            call=call,
            permit=permit,
            at=self._parts.clock(),
            meta=without_own_meta(self._message.meta),
            extra=self._extra(resume),
        )

    def _extra(self, resume: RequestState | None) -> Mapping[str, Any]:
        """What a retry takes on to the tool server beside name and arguments: its own state, and the answers."""
        if resume is None or resume.kind != "downstream":
            return {}
        _, responses = split_retry(self._message.params)
        own = {} if resume.downstream is None else {"requestState": resume.downstream}
        answers = {key: clean(answer) if isinstance(answer, dict) else answer for key, answer in responses.items()}
        return {"inputResponses": answers, **own}

    async def refuse(self, call: ToolCall, deny: Deny, verdict: Evaluation | None = None) -> Refused:
        """The denial is recorded, then answered."""
        first = await (self._proofs.spend_bound() if _is_sent_back(deny) else self._proofs.spend())
        asked = self._asked(call, deny) if first else None
        if asked is not None and not self._parts.step_ups.note(asked):
            deny, asked = _deny("step_up_limit", detail=deny.detail), None
        deny = deny if first else _REPLAYED
        policy = self._policy if verdict is None else verdict.policy
        decided = audit.decided(deny, policy=policy) | ({} if asked is None else audit.sent_back(asked))
        await self._store.append(self._event(call, verdict, decided))
        return Refused(call_id=self._call_id, deny=deny)

    def _asked(self, call: ToolCall, deny: Deny) -> StepUp | None:
        """What a person will be asked because of this denial, for the page where they are; None where nobody is.

        Only a client agent sends anybody anywhere: an agent with a key gets the token that it lacks by itself.
        """
        caller = self._caller
        if caller.agent.client is None or caller.session is None or not _is_sent_back(deny):
            return None
        return StepUp(
            agent=caller.agent.name,
            session=caller.session.id,
            tool=call.tool.name,
            scopes=uncovered(deny.missing, effective(caller) | {MINIMAL_SCOPE}),
            max_age=deny.max_age,
            at=self._parts.clock(),
        )

    async def refuse_unseen(self, deny: Deny) -> Refused:
        """The denial is recorded and answered without a word of the tool: the caller may not know whether there is one.

        A tool that this caller could never use, and one that nobody knows, are answered alike.
        """
        deny = deny if await self._proofs.spend() else _REPLAYED
        named = self._message.params.get("name") or self._message.params.get("uri")
        asked = {"tool": visible(str(named))[:128], "method": self._message.method}
        decided = audit.decided(deny, policy=self._policy) | audit.claimed(self._message.claims)
        who = audit.who(self._caller)
        await self._store.append(audit.decision_event(self._call_id, self._parts.clock(), who, asked, decided))
        return Refused(call_id=self._call_id, deny=deny)

    @property
    def _policy(self) -> str:
        """The digest of the policy that decides now; a record has that of the one that was asked."""
        return self._parts.evaluator.policy_digest

    def _event(
        self, call: ToolCall, verdict: Evaluation | None, decided: Mapping[str, Any], *, hold: str | None = None
    ) -> Event:
        resource, asked = ({}, None) if verdict is None else (verdict.resource, verdict.asked)
        event = audit.decision_event(
            self._call_id,
            self._parts.clock(),
            audit.who(self._caller),
            audit.what(call, resource, self._parts.evidence),
            decided,
            audit.revision(None if asked is None else asked.answer),
            {} if hold is None else {"hold": hold},
            audit.claimed(self._message.claims),
        )
        event = self._proofs.on_record(event)
        return event if asked is None or not self._parts.keeps_inputs else replace(event, input=kept(asked, call.tool))


def _is_sent_back(deny: Deny) -> bool:
    """Whether another token would help, and so the client is sent for one."""
    return bool(deny.missing) or deny.max_age is not None


def _deny(code: str, *, detail: str = "") -> Deny:
    return Deny(code=code, because=(RuleId(code.replace("_", "-")),), detail=detail)


_UNKNOWN: Final = _deny("unknown_tool")
_REPLAYED: Final = _deny("replayed")
