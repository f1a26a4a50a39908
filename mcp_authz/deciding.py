"""The gateway's own prompts, by which an approver sees and answers held calls in an MCP client of their own.

A prompt is got by a person, never by a model; and that it was got answers nothing: what counts is what the person says
to the question that their client then puts to them, or does on the page that it opens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.approvals import Approvals
from mcp_authz.enterprise import is_by_assertion
from mcp_authz.errors import Conflict, InputError, SignatureRefused
from mcp_authz.holding import once
from mcp_authz.ids import new_id
from mcp_authz.model import Assurance, Deny, HeldCall, HoldId, HoldState, RuleId
from mcp_authz.open_request import REFUSED, OpenRequest
from mcp_authz.other_client import in_the_chain
from mcp_authz.outcome import Asked, Forwarded, Outcome
from mcp_authz.principals import Caller, Person
from mcp_authz.relay import Channel
from mcp_authz.rules import deciding as rules
from mcp_authz.rules.approval_prompt import ANSWER, ELICIT, invitation
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.display import displayed_digest
from mcp_authz.rules.hold import is_eligible, is_enough
from mcp_authz.rules.keys import Sealer, b64url, equal
from mcp_authz.rules.message import Message
from mcp_authz.rules.offered import COMPLETE, GET
from mcp_authz.rules.request_state import Kind, RequestState, open_state, seal_state, split_retry
from mcp_authz.store.ports import Clock, Store
from mcp_authz.waits import Waits

_NAMES: Final = frozenset(prompt["name"] for prompt in rules.PROMPTS)
_SETTLED: Final = frozenset(HoldState) - {HoldState.PENDING}
_COMPLETED: Final = 100  # values in one completion, says the protocol
_UNKNOWN: Final = Deny(code="unknown_hold", because=(RuleId("unknown-hold"),))


def is_own(message: Message) -> bool:
    """Whether the request is about one of the gateway's own prompts."""
    match message.method:
        case "prompts/get":
            return message.params.get("name") in _NAMES
        case "completion/complete":
            ref = message.params.get("ref")
            return isinstance(ref, dict) and ref.get("type") == "ref/prompt" and ref.get("name") in _NAMES
        case _:
            return False


def may_decide(caller: Caller) -> bool:
    """Whether this caller is shown the prompts at all: a person's own client, by what they agreed to themselves."""
    return rules.may_decide(caller) and caller.grant is not None and not is_by_assertion(caller.grant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """One request for an own prompt, by a caller who may decide; its proofs are spent."""

    call_id: str
    caller: Caller
    message: Message
    channel: Channel
    stand_again: Callable[[], Awaitable[Caller | Deny]]  # who asks, as they stand now; or why not any more

    @property
    def person(self) -> Person:
        """Who sits at the client."""
        assert self.caller.person is not None  # noqa: S101 - `may_decide` came before
        return self.caller.person

    @property
    def hold(self) -> object:
        """The hold that the request names, as it does."""
        arguments = self.message.params.get("arguments")
        return arguments.get(rules.HOLD) if isinstance(arguments, dict) else None

    @property
    def digest(self) -> bytes:
        """What a `requestState` of this request is good for: the prompt, and the hold as it was named; 32 bytes."""
        named = self.hold if isinstance(self.hold, str) else ""
        return hashlib.sha256(canonical({"prompt": rules.ANSWER_ONE, "hold": named})).digest()


class Deciding:
    """Shows approvers what waits for them, and hands their answers to `Approvals`, which decides.

    `page` is the URL that holds have their page under; `patience` how long a request waits for what is done there.
    """

    def __init__(
        self,
        *,
        store: Store,
        approvals: Approvals,
        waits: Waits,
        sealer: Sealer,
        clock: Clock,
        page: str,
        patience: timedelta,
    ) -> None:
        self._store = store
        self._approvals = approvals
        self._waits = waits
        self._sealer = sealer
        self._clock = clock
        self._page = page
        self._patience = patience

    async def answer(self, got: Got) -> Outcome | Deny:
        """What the request comes to; a denial is the caller's to record."""
        if got.message.method == COMPLETE:
            return _result(got, await self._completion(got))
        if got.message.params.get("name") == rules.LIST:
            text = rules.listed(got.person, await self._waiting(got.person), page=self._page)
            return _prompt(got, "The calls that wait for an answer.", text)
        state, responses = split_retry(got.message.params)
        if state is not None:
            return await self._came_back(got, state, responses.get(ANSWER))
        held = rules.found(got.hold, await self._waiting(got.person))
        if held is None:
            return _UNKNOWN
        if (why := await in_the_chain(self._store, held, got.caller)) is not None:
            return _refused(f"{why}; answer at {self._url(held)}")
        return await self._ask(got, held)

    async def _waiting(self, person: Person) -> list[HeldCall]:
        """The calls that wait for an answer of this person, oldest first."""
        now, pending = self._clock(), await self._store.holds(states=(HoldState.PENDING,))
        return [held for held in pending if now < held.expires_at and rules.waits_for(person, held)]

    async def _completion(self, got: Got) -> Mapping[str, Any]:
        argument, ref = got.message.params.get("argument"), got.message.params["ref"]
        named = argument if isinstance(argument, dict) else {}
        values: list[str] = []
        if ref["name"] == rules.ANSWER_ONE and named.get("name") == rules.HOLD:
            typed = str(named.get("value", ""))
            values = [held.id for held in await self._waiting(got.person) if held.id.startswith(typed)]
        shown = values[:_COMPLETED]
        return {"completion": {"values": shown, "total": len(values), "hasMore": len(values) > len(shown)}}

    async def _ask(self, got: Got, held: HeldCall) -> Outcome | Deny:
        """By form where an approval from there is enough, else on the page; a client that can do neither says where."""
        can, enough = got.channel.can_elicit, is_enough(got.person, held, Assurance.CLIENT_OTHER)
        if "form" in can and (enough or "url" not in can):
            return await self._put(got, held, "decide", rules.form(held, may_approve=enough, page=self._url(held)))
        if "url" in can:
            return await self._put(got, held, "decide-page", invitation(held, self._url(held)))
        return self._said(got, held, "elsewhere")

    async def _put(self, got: Got, held: HeldCall, kind: Kind, asked: dict[str, Any]) -> Outcome | Deny:
        """The question reaches the person: during the request where that can be, else by its result."""
        if not got.channel.can_be_asked:
            params = {key: value for key, value in asked.items() if key != "elicitationId"}
            result = {
                "resultType": "input_required",
                "requestState": self._state(got, held, kind),
                "inputRequests": {ANSWER: {"method": ELICIT, "params": params}},
            }
            return Asked(call_id=got.call_id, result=result)
        request = self._open(got, held)
        answer = await request.ask(asked, until=_SETTLED)
        if answer is REFUSED:
            return self._said(got, held, "elsewhere")
        now = await got.stand_again()  # the person thought for a while
        if isinstance(now, Deny):
            return now
        if kind == "decide":
            return await self._hear(got, now, held, answer)
        said = await self._opened(got, held, answer)
        await request.close_page()
        return said

    async def _came_back(self, got: Got, text: object, answer: Any) -> Outcome | Deny:
        """A retry with what the person said: about exactly the hold that they were shown, once."""
        try:
            state = open_state(
                text,
                caller=got.caller,
                method=GET,
                call_digest=got.digest,
                sealer=self._sealer,
                now=self._clock(),
            )
        except SignatureRefused as error:
            return _deny("request_state", str(error))
        held = None if state.hold is None else await self._store.hold(HoldId(state.hold))
        if held is None or not any(is_eligible(got.person, held, rule) for rule in held.rules):
            return _UNKNOWN
        if not equal(state.shown.encode(), b64url(displayed_digest(held)).encode()):
            return _deny("request_state", "the hold is shown in another way than it was")
        if not await self._store.remember(once(state)):
            return _deny("replayed")
        if state.kind == "decide-page":
            return await self._opened(got, held, answer)
        return await self._hear(got, got.caller, held, answer)

    async def _hear(self, got: Got, caller: Caller, held: HeldCall, answer: Any) -> Outcome | Deny:
        given = rules.read_answer(held, answer)
        if given is None:
            return self._said(got, await self._now(held), "closed")
        try:
            held = await self._approvals.hear_other_client(held.id, caller, given)
        except (Conflict, InputError) as error:
            now = await self._now(held)
            if now.state is HoldState.PENDING and rules.waits_for(got.person, now):
                return _refused(f"{error}; try again, or answer at {self._url(held)}")
            return self._said(got, now, "closed")
        return self._said(got, held, "answered")

    async def _opened(self, got: Got, held: HeldCall, answer: Any) -> Outcome:
        """What became of it on the page, as far as that is known while this request may wait."""
        if not isinstance(answer, dict) or answer.get("action") != "accept":
            return self._said(got, await self._now(held), "not opened")
        longest = min(got.channel.longest_wait, self._patience)
        with self._waits.place(held.id) as placed:
            if placed and held.state is HoldState.PENDING and longest > timedelta():
                await self._open(got, held).wait(longest, self._url(held))
        return self._said(got, await self._now(held), "opened")

    def _open(self, got: Got, held: HeldCall) -> OpenRequest:
        return OpenRequest(channel=got.channel, held=held, waits=self._waits, clock=self._clock)

    async def _now(self, held: HeldCall) -> HeldCall:
        return await self._store.hold(held.id) or held

    def _said(self, got: Got, held: HeldCall, came: rules.Came) -> Outcome:
        return _prompt(got, f"Held call {held.id}", rules.told(held, came, page=self._url(held)))

    def _url(self, held: HeldCall) -> str:
        return f"{self._page}/{held.id}"

    def _state(self, got: Got, held: HeldCall, kind: Kind) -> str:
        state = RequestState(
            id=new_id("q"),
            kind=kind,
            hold=held.id,
            downstream=None,
            expires_at=min(held.expires_at, self._clock() + limits.REQUEST_STATE_LIFETIME),
            shown=b64url(displayed_digest(held)),
        )
        return seal_state(state, caller=got.caller, method=GET, call_digest=got.digest, sealer=self._sealer)


def _prompt(got: Got, description: str, text: str) -> Outcome:
    message = {"role": "user", "content": {"type": "text", "text": text}}
    return _result(got, {"description": description, "messages": [message]})


def _result(got: Got, result: Mapping[str, Any]) -> Outcome:
    return Forwarded(call_id=got.call_id, result=result)


def _refused(why: str) -> Deny:
    return _deny("cannot_decide", why)


def _deny(code: str, detail: str = "") -> Deny:
    return Deny(code=code, because=(RuleId(code.replace("_", "-")),), detail=detail)
