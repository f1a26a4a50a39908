"""Row 29: a `requestState` is altered, replayed, or used by another person or another agent of the same client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.errors import SignatureRefused
from mcp_authz.model import HoldState
from mcp_authz.principals import (
    AccessToken,
    Agent,
    AgentName,
    Caller,
    Chain,
    Link,
    LinkId,
    PersonName,
    Proof,
    SessionId,
    Thumbprint,
)
from mcp_authz.protocol.channel import ModernChannel
from mcp_authz.rules.keys import Sealer, b64url, unb64url
from mcp_authz.rules.request_state import RequestState, open_state, seal_state
from tests.attacks.attacker import answer_in, reason
from tests.road.places import asking
from tests.world import ClientActor, World, world

AT = datetime(2026, 11, 20, 9, tzinfo=UTC)
SEALER = Sealer(bytes(32))
STATE = RequestState(id="r_1", kind="hold", hold="h_1", downstream=None, expires_at=AT + timedelta(minutes=5))
DIGEST = b"d" * 32


def caller() -> Caller:
    """Alice's agent of a client, in one session."""
    agent = AgentName("cursor@alice")
    link = Link(
        id=LinkId("l_1"),
        session=SessionId("s_1"),
        parent=None,
        holder=agent,
        scope=frozenset(),
        tools=None,
        depth=0,
        max_depth=0,
        issued_at=AT,
        expires_at=AT + timedelta(hours=1),
    )
    token = AccessToken(
        id="t_1",
        client_id="https://cursor.example/client.json",
        actor=agent,
        key=None,
        subject="user:alice",
        session=link.session,
        link=link.id,
        scope=frozenset(),
        issued_at=AT,
        expires_at=AT + timedelta(minutes=10),
    )
    return Caller(
        agent=Agent(name=agent, owner=PersonName("alice")),
        key=None,
        proof=Proof.BEARER,
        token=token,
        chain=Chain(links=(link,)),
    )


def sealed() -> str:
    return seal_state(STATE, caller=caller(), method="tools/call", call_digest=DIGEST, sealer=SEALER)


def opened(text: object, by: Caller | None = None, **changed: Any) -> RequestState:
    given = {"method": "tools/call", "call_digest": DIGEST, "sealer": SEALER, "now": AT, **changed}
    return open_state(text, caller=by or caller(), **given)


def in_another_session(one: Caller) -> Caller:
    assert one.chain is not None
    return replace(one, chain=Chain(links=(replace(one.chain.leaf, id=LinkId("l_2")),)))


OTHERS: dict[str, Callable[[Caller], Caller]] = {
    "another client": lambda one: replace(one, token=replace(one.token, client_id="https://rival.example/client.json")),
    "another agent of the client": lambda one: replace(one, agent=replace(one.agent, name=AgentName("cursor@bob"))),
    "another person": lambda one: replace(one, token=replace(one.token, subject="user:bob")),
    "the agent with a key": lambda one: replace(one, key=Thumbprint("k1")),
    "another session": in_another_session,
    "no session": lambda one: replace(one, chain=None),
}


def test_it_comes_back_to_its_own_caller_and_call() -> None:
    assert opened(sealed()) == STATE


@pytest.mark.parametrize("other", OTHERS)
def test_it_is_of_no_use_to_anybody_else(other: str) -> None:
    with pytest.raises(SignatureRefused):
        opened(sealed(), OTHERS[other](caller()))


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "prompts/get"},
        {"call_digest": b"e" * 32},
        {"now": STATE.expires_at},
        {"sealer": Sealer(bytes(31) + b"x")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_it_is_of_no_use_for_another_call_or_later_or_elsewhere(changed: dict[str, Any]) -> None:
    with pytest.raises(SignatureRefused):
        opened(sealed(), **changed)


def test_every_changed_bit_and_every_missing_byte_is_seen() -> None:
    raw = unb64url(sealed())
    altered = [raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in range(len(raw))]
    shorter = [raw[:at] for at in range(len(raw))]
    for text in (*map(b64url, (*altered, *shorter)), sealed() + "A", sealed() + "=", 5, None, [sealed()], ""):
        with pytest.raises(SignatureRefused):
            opened(text)


ASKED = {
    "inputRequests": {
        "q": {"method": "elicitation/create", "params": {"mode": "form", "message": "?", "requestedSchema": {}}}
    }
}
ELICITS: dict[str, Any] = {"capabilities": {"elicitation": {"form": {}}}}
ANSWERS = {"q": {"action": "accept", "content": {}}}


async def ask(w: World, who: ClientActor, **more: Any) -> dict[str, Any]:
    """The answer to one call of a tool that asks."""
    more = {**ELICITS, **more}
    return answer_in(await w.raw_call(who.access_token, "asking__ask", {"asked": ASKED}, **more))


async def test_a_state_of_waiting_or_of_an_opened_page_is_of_no_use_to_anybody_else_and_of_little_to_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says for how long a call has waited, and nothing else: altered, handed on or repeated it changes nothing."""
    monkeypatch.setattr(ModernChannel, "longest_wait", timedelta(milliseconds=20))
    tools = {"ask": {"hazard": "destructive", "scopes": ["use"]}, "block": {"hazard": "destructive", "scopes": ["use"]}}
    servers = {"asking": asking(tmp_path / "f", tools=tools)}
    async with world(tmp_path, servers=servers, waiting={"seconds": 60}) as w:
        alices = await w.client_agent("cursor", "alice", scope="use")
        others = [
            await w.client_agent("cursor", "bob", scope="use"),
            await w.client_agent("rival", "alice", scope="use"),
            await w.client_agent("cursor", "alice", scope="use"),
        ]
        declared: tuple[dict[str, Any], ...] = ({}, {"elicitation": {"url": {}}})
        for capabilities in declared:
            how: dict[str, Any] = {"capabilities": capabilities}
            state = (await ask(w, alices, **how))["result"]["requestState"]
            opened = {"q": {"action": "accept"}, "approval": {"action": "accept", "content": {"approve": True}}}
            retry = {**how, "requestState": state, "inputResponses": opened}
            assert [reason(await ask(w, other, **retry)) for other in others] == ["request_state"] * 3
            middle = len(state) // 2
            altered = state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :]
            assert reason(await ask(w, alices, **{**retry, "requestState": altered})) == "request_state"
            another = await w.raw_call(alices.access_token, "asking__block", {"asked": ASKED}, **retry)
            assert reason(answer_in(another)) == "request_state"
            for _ in range(3):  # its owner may repeat it: that is to wait on, as the call itself would
                assert (await ask(w, alices, **retry))["result"]["resultType"] == "input_required"
        (held, *more) = await w.store.holds()
        assert (held.state, held.verdicts, more) == (HoldState.PENDING, (), [])
        assert "permit" not in {fields["decision"] for fields in await w.decisions()}


async def test_at_the_gateway_nobody_else_goes_on_with_it_and_its_owner_once(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"asking": asking(tmp_path / "f")}) as w:
        alices = await w.client_agent("cursor", "alice", scope="use")
        others = [
            await w.client_agent("cursor", "bob", scope="use"),
            await w.client_agent("rival", "alice", scope="use"),
            await w.client_agent("cursor", "alice", scope="use"),  # another session of the same agent
        ]
        retry = {"requestState": (await ask(w, alices))["result"]["requestState"], "inputResponses": ANSWERS}
        assert [reason(await ask(w, other, **retry)) for other in others] == ["request_state"] * 3
        done = await ask(w, alices, **retry)
        again = await ask(w, alices, **retry)
        refused = [f["actor"] for f in await w.decisions() if f.get("reason") == "request_state"]
    assert done["result"]["structuredContent"]["received"]["inputResponses"] == ANSWERS
    assert reason(again) == "replayed"
    assert refused == ["agent:cursor@bob", "agent:rival@alice", "agent:cursor@alice"]
