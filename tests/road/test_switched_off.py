"""What an operator stops for everybody: a tool, a server, or all calls; what runs of it is cancelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from mcp_authz.model import HoldState
from mcp_authz.running import running_calls, stands_on
from mcp_authz.stopping import Stopping
from tests.attacks.attacker import answer_in
from tests.attacks.test_34_revoked_while_held import SCOPE, held_of
from tests.attacks.test_34_revoked_while_running import permitted, plain
from tests.world import ENVELOPE, OPERATOR, World, world

SOON = 10
WAIT = {"tag": "x", "version": "1"}


async def outcome(w: World, token: str, tool: str, arguments: Any = None) -> str:
    """How a call reads: the reason it was denied for, that it is held, or `done`."""
    result = answer_in(await w.raw_call(token, tool, arguments or {}))["result"]
    envelope = (result.get("_meta") or {}).get(ENVELOPE, {})
    return str(envelope.get("reason") or envelope.get("outcome") or "done")


async def listed(w: World, actor: Any) -> set[str]:
    async with w.client(actor) as client:
        return {tool.name for tool in (await client.list_tools()).tools}


async def cancelled(told: list[Any]) -> dict[str, Any]:
    """What the caller of the one running call was told."""
    with anyio.fail_after(SOON):
        while not told:  # noqa: ASYNC110 - the client has no event for this
            await anyio.sleep(0.01)
    data: dict[str, Any] = told.pop()["error"]["data"]
    return data


async def test_a_tool_that_is_switched_off_is_nobodys_until_it_is_accepted(tmp_path: Path) -> None:
    told: list[Any] = []

    async def call() -> None:
        told.append(answer_in(await w.raw_call(token, "plain__wait", WAIT)))

    async with (
        world(tmp_path, servers={"plain": plain("read"), "other": plain("read")}) as w,
        anyio.create_task_group() as group,
    ):
        coder = await w.ready("coder", SCOPE)
        token, stopping = await w.token(coder), Stopping(w.store, w.clock)
        pin = next(pin for pin in await w.store.pins() if (pin.server, pin.tool) == ("plain", "wait"))
        both = {"plain__wait", "plain__cancelled", "other__wait", "other__cancelled"}
        assert await listed(w, coder) >= both

        group.start_soon(call)
        await permitted(w, 1)
        (running,) = await running_calls(w.store)
        assert stands_on(running, "tool", frozenset({"plain__wait"}))
        assert not stands_on(running, "server", frozenset({"other"}))
        assert await stopping.tool_off(pin, "plain__wait", reason="leaks", by=OPERATOR) == ()
        assert (await cancelled(told))["reason"] == "revoked"
        assert await running_calls(w.store) == ()
        assert await outcome(w, token, "plain__wait", WAIT) == "switched_off"
        assert not await listed(w, coder) & {"plain__wait"} and await listed(w, coder) >= both - {"plain__wait"}
        assert await outcome(w, token, "plain__cancelled") == "done"

        assert await stopping.tool_on(pin, "plain__wait", by=OPERATOR)
        assert await listed(w, coder) >= both
        group.start_soon(call)
        await permitted(w, 3)
        await stopping.server_off("plain", reason="leaks", by=OPERATOR)
        await cancelled(told)
        assert await listed(w, coder) >= {"other__wait"} and not await listed(w, coder) & {"plain__cancelled"}
        assert await outcome(w, token, "plain__cancelled") == "switched_off"
        assert await stopping.server_off("plain", reason="again", by=OPERATOR) is None
        await stopping.server_on("plain", by=OPERATOR)
        assert await outcome(w, token, "plain__cancelled") == "done"
        assert len(await w.records("revocation")) == 2


async def test_while_all_calls_are_stopped_nothing_is_forwarded_and_what_waits_goes_on_waiting(tmp_path: Path) -> None:
    told: list[Any] = []
    servers = {"plain": plain("read"), "held": plain("destructive")}

    async def call() -> None:
        told.append(answer_in(await w.raw_call(token, "plain__wait", WAIT)))

    async with world(tmp_path, servers=servers) as w, anyio.create_task_group() as group:
        coder = await w.ready("coder", SCOPE)
        token, stopping = await w.token(coder), Stopping(w.store, w.clock)
        assert await outcome(w, token, "held__wait", WAIT) == "held"
        held = await held_of(w, "1")
        group.start_soon(call)
        await permitted(w, 1)
        assert await stopping.stop_all(reason="leak", by=OPERATOR)
        assert not await stopping.stop_all(reason="again", by=OPERATOR)
        await cancelled(told)
        assert await outcome(w, token, "plain__wait", WAIT) == "stopped"
        assert await outcome(w, token, "held__wait", {"version": "2"}) == "stopped"  # and nobody is asked
        assert await outcome(w, token, "held__cancelled") == "stopped"
        assert await listed(w, coder) >= {"plain__wait"}
        await w.answer(held.id, by="alice")
        assert await outcome(w, token, "held__wait", WAIT) == "stopped"
        assert (await w.store.hold(held.id)).state is HoldState.APPROVED
        assert len(await w.store.holds()) == 1
        assert await stopping.start_all(by=OPERATOR) and not await stopping.start_all(by=OPERATOR)
        group.start_soon(call)
        await permitted(w, 2)
        assert (await stopping.stopped()) is None
        group.cancel_scope.cancel()
