"""Row 27: an approval outlives the right of who gave it, or one rule's approval passes for another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz.accounts import Accounts
from mcp_authz.errors import AuthzError, Conflict
from mcp_authz.model import HoldState
from mcp_authz.principals import PersonName
from mcp_authz.revocation import Revocation
from mcp_authz.store.ports import Event
from tests.attacks.attacker import answer_in, spy, tool
from tests.web.authenticator import visiting
from tests.world import ENVELOPE, OPERATOR, World, world

POLICY = """
@id("usual") permit (principal, action, resource) when { context has session };
@id("friday") @approval("release") permit (principal, action, resource)
when { context has arguments && context.arguments has friday && context.arguments.friday };
"""


class Calls:
    """One agent's calls of `spy__drop`."""

    def __init__(self, w: World, token: str) -> None:
        self._w, self._token = w, token

    async def __call__(self, where: str, /, **more: Any) -> dict[str, Any]:
        answer = answer_in(await self._w.raw_call(self._token, "spy__drop", {"where": where, **more}))
        result: dict[str, Any] = answer["result"]
        return result

    async def held(self, where: str, /, **more: Any) -> Any:
        envelope: dict[str, Any] = (await self(where, **more))["_meta"][ENVELOPE]
        assert envelope["outcome"] == "held", envelope
        return envelope["hold"]

    async def state(self, hold: Any) -> HoldState:
        state: HoldState = (await self._w.store.hold(hold)).state
        return state


async def test_every_rule_must_be_met_by_somebody_who_may_still_meet_it_when_the_call_runs(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("drop"))
    policy = tmp_path / "policy.cedar"
    policy.write_text(POLICY)
    rules = {
        "destructive": {"by": ["group:ops"], "quorum": 2},  # the floor
        "owners": {"by": ["owner"]},  # the tool's own
        "release": {"by": ["group:release"], "reason": True},  # policy's, on Fridays
    }
    tools = {"drop": {"scopes": ["spy:drop"], "approval": "owners"}}
    async with world(tmp_path, servers={"spy": server.config(tools=tools)}, approval=rules, policy=str(policy)) as w:
        for name, groups in {"alice": (), "bob": ("ops",), "carol": ("ops", "release"), "dave": ("ops",)}.items():
            await w.person(name, *groups)
        call = Calls(w, await w.token(await w.ready("coder", "spy:drop")))

        # All three, in any order; each verdict meets what it can, and nothing runs before the last.
        hold = await call.held("1", friday=True)
        await w.answer(hold, by="alice")
        await w.answer(hold, by="bob")
        with pytest.raises(Conflict, match="needs a reason"):
            await w.answer(hold, by="carol")
        assert await call.held("1", friday=True) == hold and server.ran == []
        await w.answer(hold, by="carol", reason="tested")
        await call("1", friday=True)
        assert len(server.ran) == 1
        assert [rule.name for rule in (await w.store.hold(hold)).rules] == ["destructive", "owners", "release"]

        # Who approved has left the group before the call came again.
        hold = await call.held("2")
        for who in ("alice", "bob", "dave"):
            await w.answer(hold, by=who)
        left = Event(kind="administration", at=w.clock(), fields={"summary": "dave left"})
        await w.store.set_groups(PersonName("dave"), frozenset(), left)
        assert await call.held("2") != hold
        assert await call.state(hold) is HoldState.CANCELLED and len(server.ran) == 1

        # One of two voters is revoked before the second answers: it takes another.
        await w.store.set_groups(PersonName("dave"), frozenset({"ops"}), left)
        revocation = Revocation(w.store, w.clock)
        hold = await call.held("3")
        await w.answer(hold, by="alice")
        await w.answer(hold, by="dave")
        await revocation.revoke("person", "dave", reason="left", by=OPERATOR)
        await w.answer(hold, by="bob")
        assert await call.held("3") == hold and await call.state(hold) is HoldState.PENDING
        await w.answer(hold, by="carol")
        await call("3")
        assert len(server.ran) == 2

        # And who is revoked, or whose key is, after the approval takes it along at once.
        for kind, name in (("key", w.approvers["carol"].public.thumbprint), ("person", "bob")):
            hold = await call.held(kind)
            for who in ("alice", "bob", "carol") if kind == "key" else ():
                await w.answer(hold, by=who)
            if kind == "person":
                await w.person("erin", "ops")
                for who in ("alice", "bob", "erin"):
                    await w.answer(hold, by=who)
            assert await call.state(hold) is HoldState.APPROVED
            assert (await revocation.foresee(kind, name)).holds == (hold,)  # type: ignore[arg-type]
            await revocation.revoke(kind, name, reason="lost", by=OPERATOR)  # type: ignore[arg-type]
            assert await call.state(hold) is HoldState.CANCELLED
            assert await call.held(kind) != hold and len(server.ran) == 2


async def test_what_a_lost_passkey_approved_does_not_run(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("drop"))
    tools = {"drop": {"scopes": ["spy:drop"]}}
    rule = {"by": ["group:ops"], "quorum": 2}
    servers = {"spy": server.config(tools=tools)}
    async with world(tmp_path, servers=servers, approval={"destructive": rule}) as w:
        for name in ("bob", "carol"):
            await w.person(name, "ops")
        call = Calls(w, await w.token(await w.ready("coder", "spy:drop")))
        holds = [await call.held(where) for where in ("approved", "pending", "by her key")]
        async with visiting(w, "bob") as bob:
            for hold in holds[:2]:
                await bob.approve(hold)
        for hold in (holds[0], holds[2]):
            await w.answer(hold, by="carol")
        assert await call.state(holds[0]) is HoldState.APPROVED
        assert await Accounts(w.store, w.clock).revoke_passkeys(PersonName("bob"), by=OPERATOR) == 1
        gone = HoldState.CANCELLED
        assert [await call.state(hold) for hold in holds] == [gone, gone, HoldState.PENDING]
        assert await call.held("approved") != holds[0] and server.ran == []


async def test_who_approved_may_still_say_no_until_the_call_runs(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("drop"))
    tools = {"drop": {"scopes": ["spy:drop"]}}
    async with world(
        tmp_path,
        servers={"spy": server.config(tools=tools)},
        approval={"destructive": {"by": ["group:ops"]}, "session": {}},
    ) as w:
        for name in ("alice", "bob", "carol"):
            await w.person(name, "ops")
        await w.person("eve")
        call = Calls(w, await w.token(await w.ready("coder", "spy:drop")))
        for who in ("bob", "carol"):  # their own yes, and somebody else's
            hold = await call.held(who)
            await w.answer(hold, by="bob")
            with pytest.raises(AuthzError):
                await w.answer(hold, by="eve", approve=False)
            assert await call.state(hold) is HoldState.APPROVED
            await w.answer(hold, by=who, approve=False, reason="not today")
            assert await call.state(hold) is HoldState.DENIED
            denied = await call(who)
            assert denied["_meta"][ENVELOPE]["reason"] == "approval_denied"
            assert "not today" in denied["content"][0]["text"] and who not in str(denied)
        assert server.ran == []
        hold = await call.held("runs")
        await w.answer(hold, by="bob")
        await call("runs")
        with pytest.raises(Conflict, match="is done"):
            await w.answer(hold, by="bob", approve=False)
        assert len(server.ran) == 1
