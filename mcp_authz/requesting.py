"""The gateway's own tool `authz__request_session`: an agent asks, a person agrees, and there is a session.

It takes the road of every call as far as there is one without a session: identified, checked against the schema, held,
recorded. What follows the approval is no forwarding but a new root link, no more than the person agreed to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import anyio

from mcp_authz import audit
from mcp_authz.approvals import Asker
from mcp_authz.catalog import could_ever_be_given
from mcp_authz.errors import AuthzError, InputError, SignatureRefused, StoreError
from mcp_authz.forwarding import INTERNAL_ERROR, NOT_RECORDED
from mcp_authz.holding import Waiting
from mcp_authz.ids import new_id
from mcp_authz.model import (
    Approval,
    ApprovalRule,
    Assurance,
    Deny,
    Hold,
    HoldId,
    HoldState,
    Permit,
    RuleId,
    Tool,
    ToolCall,
)
from mcp_authz.outcome import Broken, Forwarded, Outcome, Refused, Replayed
from mcp_authz.parts import Parts
from mcp_authz.principals import Caller, Grant, Link, Mode, PersonName, Session, SessionId
from mcp_authz.proving import Proofs
from mcp_authz.relay import Channel
from mcp_authz.rules import session_request
from mcp_authz.rules.binding import action_digest
from mcp_authz.rules.message import OWN_META, Message
from mcp_authz.rules.request_state import RequestState, open_state, split_retry
from mcp_authz.rules.schema import ArgumentSchema
from mcp_authz.seldom import trouble
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Event

RULE: Final = "session"
"""The approval rule of requests for a session; where the configuration has none, that of destructive calls."""

_CONSENT: Final = ApprovalRule(name="consent", assurance=Assurance.SIGNED_IN)  # a grant is more than a client's word
_SCHEMA: Final = ArgumentSchema(session_request.DEFINITION["inputSchema"])


def cannot_ask(caller: Caller) -> str | None:
    """The reason code of why this caller can ask nobody for a session; None when it can."""
    if caller.agent.parent is not None:
        return "child"
    if caller.agent.client is not None:
        return "client"
    if caller.session is not None and caller.session.mode is Mode.IMPERSONATED:
        return "impersonating"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """The person who is asked, and what they have agreed to already; without a grant, all is for them to say."""

    subject: PersonName
    grant: Grant | None


class SessionRequest:
    """One call of the tool, from its arguments to its outcome."""

    def __init__(self, parts: Parts, sessions: Sessions, proofs: Proofs, message: Message, channel: Channel) -> None:
        self._parts = parts
        self._sessions = sessions
        self._proofs = proofs
        self._message = message
        self._channel = channel
        self._call_id = new_id("c")
        self._subject: PersonName | None = None

    @property
    def _caller(self) -> Caller:
        return self._proofs.caller

    async def run(self) -> Outcome:
        """The request waits for a person, or is answered; every exit is recorded."""
        asked = self._message.params.get("arguments", {})
        call = ToolCall(tool=session_request.TOOL, arguments=asked if isinstance(asked, dict) else {})
        if not isinstance(asked, dict):
            return await self._refuse(call, "arguments")
        if (deny := self._proofs.refuse_call()) is not None:  # 8
            return await self._refused(call, deny)
        if (problem := _SCHEMA.problem(asked)) is not None:  # 9
            return await self._refuse(call, "arguments", problem)
        if (why_not := cannot_ask(self._caller)) is not None:
            return await self._refuse(call, why_not)
        whose = await self._whose()
        if not isinstance(whose, Whose):
            return await self._refuse(call, whose)
        self._subject = whose.subject
        known = self._known(whose)
        limited = None if whose.grant is None else whose.grant.tools
        try:
            call = ToolCall(tool=call.tool, arguments=session_request.spelled_out(asked, known, limited))
        except InputError as error:
            return await self._refuse(call, "arguments", str(error))
        answer = await self._hold(call, whose)  # 13
        if not isinstance(answer, Approval):
            return answer
        if (deny := await self._proofs.stand_again(self._sessions)) is not None:
            return await self._refused(call, deny)
        with anyio.CancelScope(shield=True):  # what is agreed happens as a whole, also when the caller goes away
            outcome = await self._open(ToolCall(tool=call.tool, arguments=answer.arguments), answer, whose)
        return outcome  # noqa: RET504 - the scope may end without an answer, says its type

    async def _whose(self) -> Whose | str:
        """The person of the token; else the only one who has let this agent act; else its owner. Never a guess.

        Where there is nobody, the reason code of that.
        """
        caller = self._caller
        grants = await self._sessions.active_grants(caller.agent.name)
        subjects = {grant.subject for grant in grants if grant.subject is not None}
        if caller.token.subject.startswith("user:"):
            subject = PersonName(caller.token.subject.removeprefix("user:"))
        elif len(subjects) > 1:
            return "whose_session"
        else:
            subject = next(iter(subjects), caller.agent.owner)
        if not await self._sessions.is_active(subject):
            return "nobody_to_ask"
        theirs = [grant for grant in grants if grant.subject == subject]
        return Whose(subject=subject, grant=max(theirs, key=lambda grant: grant.granted_at, default=None))

    def _known(self, whose: Whose) -> tuple[Tool, ...]:
        """The tools that could be given: within the agent's ceiling, and within the grant where there is one."""
        held = [self._caller.agent.ceiling, *([] if whose.grant is None else [whose.grant.scope])]
        return tuple(tool for tool in self._parts.catalog.everything if could_ever_be_given(tool, held))

    async def _hold(self, call: ToolCall, whose: Whose) -> Approval | Outcome:
        caller = self._caller
        asker = Asker(
            agent=caller.agent,
            subject=whose.subject,
            session=SessionId(""),
            purpose=str(call.arguments["purpose"]),
            chain=(caller.agent.name,),
            bounds=() if whose.grant is None else ((whose.grant.expires_at, "delegation"),),
        )
        digest = action_digest(
            call, session=asker.session, subject=f"user:{asker.subject}", actor=caller.agent.name, chain=asker.chain
        )
        hold = Hold(call_digest=digest, rules=self._rules(whose), because=(RuleId("request-session"),))
        try:
            resume = self._resume(digest)
        except SignatureRefused as error:
            return await self._refuse(call, "request_state", str(error))
        if not await self._proofs.spend():
            return await self._refuse(call, "replayed")
        waiting = Waiting(
            call_id=self._call_id,
            call=call,
            caller=caller,
            asker=asker,
            hold=hold,
            message=self._message,
            channel=self._channel,
            resume=resume,
            record=lambda hold_id: self._event(call, audit.decided(hold, policy=self._policy), hold=hold_id),
        )
        answer = await self._parts.holding.answer(waiting, too_little=None)
        if isinstance(answer, Approval) and not _meets(answer, hold):  # it was given when less was asked for
            answer = await self._parts.holding.answer(waiting, too_little=answer)
        match answer:
            case Approval() if not _meets(answer, hold):
                return await self._refuse(call, "changed")
            case Refused(deny=deny):
                return await self._refused(call, deny)
            case Replayed(held=held):
                await self._parts.store.append(self._event(call, {"decision": "replay"}, hold=held.id))
        return answer

    def _rules(self, whose: Whose) -> tuple[ApprovalRule, ...]:
        """The configured rule; where the person has not let this agent act, their own consent beside it."""
        rule = self._parts.evaluator.floor.rules[RULE]
        return (rule,) if whose.grant is not None else (rule, _CONSENT)

    def _resume(self, digest: bytes) -> RequestState | None:
        state, _ = split_retry(self._message.params)
        if state is None:
            return None
        return open_state(
            state,
            caller=self._caller,
            method=session_request.TOOL.method,
            call_digest=digest,
            sealer=self._parts.sealer,
            now=self._parts.clock(),
        )

    async def _open(self, call: ToolCall, approval: Approval, whose: Whose) -> Outcome:
        """The approval is claimed, and the session is there; or it could not be, and the approval is used up."""
        permit = Permit(call_digest=approval.call_digest, approval=approval.hold, because=(RuleId("request-session"),))
        decided = audit.decided(permit, policy=self._policy, approval=approval)
        event = self._event(call, decided, hold=approval.hold)
        if not await self._move(approval.hold, HoldState.APPROVED, HoldState.CLAIMED, event):
            return await self._refuse(call, "approval_used")
        try:
            session, root = await self._start(call, approval, whose)
        except AuthzError as error:
            event = self._outcome(call, "error", str(error))
            await self._move(approval.hold, HoldState.CLAIMED, HoldState.FAILED, event)
            return Refused(call_id=self._call_id, deny=_deny("changed", str(error)))
        result = _result(session, root, call)
        try:
            await self._move(
                approval.hold, HoldState.CLAIMED, HoldState.DONE, self._outcome(call, "done", session.id), result
            )
        except StoreError as error:
            trouble.error(error, "the outcome of call %s is not on record: %s", self._call_id, error)
            return Broken(
                call_id=self._call_id, rpc_code=INTERNAL_ERROR, message=NOT_RECORDED, data=None, may_have_run=True
            )
        envelope = {"outcome": "session", "call": self._call_id, "hold": approval.hold, "session": session.id}
        return Forwarded(call_id=self._call_id, result={**result, "_meta": {f"{OWN_META}outcome": envelope}})

    async def _start(self, call: ToolCall, approval: Approval, whose: Whose) -> tuple[Session, Link]:
        caller, sessions = self._caller, self._sessions
        by = ", ".join(f"user:{person}" for person in approval.by)
        terms = session_request.agreed(
            call.arguments, self._known(whose), None if whose.grant is None else whose.grant.tools
        )
        lifetime = timedelta(minutes=terms.minutes)
        grant = whose.grant or await sessions.grant(
            whose.subject, caller.agent.name, scope=caller.agent.ceiling, tools=terms.tools, lifetime=lifetime, by=by
        )
        opened = await sessions.start(grant, purpose=terms.purpose, tools=terms.tools, lifetime=lifetime, by=by)
        if caller.session is not None and caller.chain is not None and caller.chain.agents == (caller.agent.name,):
            await self._replace(caller.session, opened[0])
        return opened

    async def _replace(self, old: Session, new: Session) -> None:
        """The session that asked is over: two open ones could not be told apart at the next sign-in."""
        fields = {
            "summary": f"session {old.id} ended: {new.id} is there in its place",
            "by": f"agent:{self._caller.agent.name}",
            "of": "session",
            "name": old.id,
        }
        await self._parts.store.revoke(
            "session", old.id, Event(kind="revocation", at=self._parts.clock(), fields=fields)
        )

    async def _move(
        self,
        hold: HoldId,
        come_from: HoldState,
        to: HoldState,
        event: Event,
        result: Mapping[str, Any] | None = None,
    ) -> bool:
        return await self._parts.store.move_hold(hold, come_from=come_from, to=to, event=event, result=result)

    async def _refuse(self, call: ToolCall, code: str, detail: str = "") -> Refused:
        return await self._refused(call, _deny(code, detail))

    async def _refused(self, call: ToolCall, deny: Deny) -> Refused:
        deny = deny if await self._proofs.spend() else _deny("replayed")
        await self._parts.store.append(self._event(call, audit.decided(deny, policy=self._policy)))
        return Refused(call_id=self._call_id, deny=deny)

    @property
    def _policy(self) -> str:
        return self._parts.evaluator.policy_digest

    def _event(self, call: ToolCall, decided: Mapping[str, Any], *, hold: str | None = None) -> Event:
        who = audit.who(self._caller)
        event = audit.decision_event(
            self._call_id,
            self._parts.clock(),
            {**who, "subject": f"user:{self._subject}"} if self._subject is not None else who,
            audit.what(call, {}, self._parts.evidence),
            decided,
            {} if hold is None else {"hold": hold},
            audit.claimed(self._message.claims),
        )
        return self._proofs.on_record(event)

    def _outcome(self, call: ToolCall, outcome: str, what: str) -> Event:
        fields = {
            "outcome": outcome,
            "actor": f"agent:{self._caller.agent.name}",
            "tool": call.tool.name,
            "milliseconds": 0,
            "detail": what,
        }
        return Event(kind="outcome", at=self._parts.clock(), call=self._call_id, fields=fields)


def _meets(approval: Approval, hold: Hold) -> bool:
    """Whether every rule that is asked for now was met, with the content that it has now."""
    return {rule.name for rule in hold.rules} <= set(approval.rules)


def _deny(code: str, detail: str = "") -> Deny:
    return Deny(code=code, because=(RuleId(code.replace("_", "-")),), detail=detail)


def _result(session: Session, root: Link, call: ToolCall) -> Mapping[str, Any]:
    """What the model is told; the token it has is of before, so it has to get another one."""
    minutes, held = call.arguments["minutes"], call.arguments["held"]
    tools = ", ".join(tool for tool in call.arguments["tools"] if tool not in held)
    text = (
        f"Session {session.id} is open for {minutes} minute{'' if minutes == 1 else 's'}, for {session.subject}: "
        f"{session.purpose}. You can use: {tools or 'nothing without approval'}."
    )
    if held:
        text += f" Still held for approval each time: {', '.join(held)}."
    text += " It counts from your next access token on."
    structured = {
        "session": session.id,
        "delegation": root.id,
        "expires_at": session.expires_at.isoformat(timespec="seconds"),
        "tools": list(call.arguments["tools"]),
    }
    return {"content": [{"type": "text", "text": text}], "structuredContent": structured, "isError": False}
