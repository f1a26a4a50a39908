"""Row 34: what approved a running call is revoked: its approver, their key, their passkey, a standing approval."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio

from mcp_authz.model import HoldId, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.revocation import Revocation
from mcp_authz.store.ports import Event, RevocableKind
from tests import passkeys
from tests.attacks.attacker import answer_in
from tests.attacks.test_34_revoked_while_held import SCOPE, held_of
from tests.attacks.test_34_revoked_while_running import SOON, permitted, plain
from tests.standing import ANY, give
from tests.world import OPERATOR, World, world

APPROVAL = {"destructive": {"by": ["group:ops"], "assurance": "signed-in"}}
Approve = Callable[[World, str, HoldId], Awaitable[tuple[RevocableKind | str, str]]]


@dataclass
class Running:
    """Calls of one agent, by what is said with them, and what became of those that ended."""

    w: World
    token: str
    told: dict[str, Any]

    async def call(self, what: str) -> None:
        self.told[what] = answer_in(await self.w.raw_call(self.token, "plain__wait", {"tag": what, "version": what}))

    async def held(self, what: str) -> HoldId:
        await self.call(what)
        return (await held_of(self.w, what)).id

    async def ended(self, what: str) -> Any:
        with anyio.fail_after(SOON):
            while "error" not in self.told.get(what, {}):  # noqa: ASYNC110 - the client has no event for this
                await anyio.sleep(0.01)
        return self.told[what]["error"]["data"]


async def by_person(w: World, name: str, hold: HoldId) -> tuple[str, str]:
    await w.answer(hold, by=name)
    return "person", name


async def by_key(w: World, name: str, hold: HoldId) -> tuple[str, str]:
    await w.answer(hold, by=name)
    return "key", w.approvers[name].public.thumbprint


async def by_passkey(w: World, name: str, hold: HoldId) -> tuple[str, str]:
    credential = name.encode()
    passkey = await passkeys.add_passkey(w, name, credential)
    await passkeys.approve(w, hold, by=name, credential=credential)
    return "passkey", passkey


async def by_replaced_passkey(w: World, name: str, hold: HoldId) -> tuple[str, str]:
    await by_passkey(w, name, hold)
    return "every passkey", name


async def by_member(w: World, name: str, hold: HoldId) -> tuple[str, str]:
    await w.answer(hold, by=name)
    return "group", name


async def by_standing(w: World, name: str, hold: HoldId) -> tuple[str, str]:
    return "approval", await give(w, hold, by=name, tag=ANY, version=ANY)


async def by_standing_of_passkey(w: World, name: str, hold: HoldId) -> tuple[str, str]:
    credential = name.encode()
    passkey = await passkeys.add_passkey(w, name, credential)
    await passkeys.give_standing(w, hold, by=name, credential=credential, tag=ANY, version=ANY)
    return "passkey", passkey


WAYS: list[Approve] = [
    by_person, by_key, by_passkey, by_replaced_passkey, by_member, by_standing, by_standing_of_passkey,
]  # fmt: skip


async def end(w: World, kind: str, name: str, call: str) -> None:
    """It is revoked; and a rehearsal said that this call would be cancelled, and no other."""
    event = Event(kind="revocation", at=w.clock(), fields={})
    match kind:
        case "every passkey":
            await w.store.revoke_passkeys(PersonName(name), event)
        case "group":
            await w.store.set_groups(PersonName(name), frozenset(), event)
        case _:
            revocation = Revocation(w.store, w.clock)
            assert [it.call for it in await revocation.running(kind, name)] == [call]  # type: ignore[arg-type]
            await revocation.revoke(kind, name, reason="gone", by=OPERATOR)  # type: ignore[arg-type]


async def running_call(w: World, before: int) -> str:
    await permitted(w, before + 1)
    return str([it for it in await w.records("decision") if it.event.fields["decision"] == "permit"][-1].event.call)


async def test_a_call_is_cancelled_once_what_approved_it_is_revoked_and_no_other(tmp_path: Path) -> None:
    async with (
        world(tmp_path, servers={"plain": plain("destructive")}, approval=APPROVAL) as w,
        anyio.create_task_group() as group,
    ):
        await w.person("carol", "ops")
        calls = Running(w, await w.token(await w.ready("coder", SCOPE)), {})
        other = await calls.held("other")
        await w.answer(other, by="carol")
        group.start_soon(calls.call, "other")
        await permitted(w, 1)
        for n, approve in enumerate(WAYS, start=1):
            what = approve.__name__
            name = await w.person(f"bob{n}", "ops")
            kind, named = await approve(w, name, await calls.held(what))
            group.start_soon(calls.call, what)
            call = await running_call(w, n)
            await end(w, kind, named, call)
            assert (await calls.ended(what))["reason"] == "revoked", what
            (outcome,) = [it.event for it in await w.records("outcome") if it.event.call == call]
            assert (outcome.fields["outcome"], outcome.fields["ended_by"]) == ("unknown", "revocation"), what
        assert (await w.store.hold(other)).state is HoldState.CLAIMED and w.running.parts.underway.count == 1
        group.cancel_scope.cancel()


async def test_what_a_standing_approval_let_through_ends_with_it_and_not_with_its_time(tmp_path: Path) -> None:
    async with (
        world(tmp_path, servers={"plain": plain("destructive")}, approval=APPROVAL) as w,
        anyio.create_task_group() as group,
    ):
        await w.person("bob", "ops")
        calls = Running(w, await w.token(await w.ready("coder", SCOPE)), {})
        standing = await give(w, await calls.held("first"), by="bob", minutes=2, tag=ANY, version=ANY)
        group.start_soon(calls.call, "next")  # nobody looked at this very call
        await permitted(w, 1)
        w.clock.advance(timedelta(minutes=3))
        await w.person("carol", "ops")
        await Revocation(w.store, w.clock).revoke("person", "carol", reason="gone", by=OPERATOR)  # all are looked at
        await anyio.sleep(0.1)
        assert "next" not in calls.told
        await Revocation(w.store, w.clock).revoke("approval", standing, reason="gone", by=OPERATOR)
        assert (await calls.ended("next"))["reason"] == "revoked"
        group.cancel_scope.cancel()
