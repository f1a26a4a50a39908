"""Revoking a held call that waits no longer: what became of it, and what ends it where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import tomlkit

from mcp_authz.model import HoldId, HoldState
from tests.attacks.test_34_revoked_while_held import SCOPE, held_of
from tests.attacks.test_34_revoked_while_running import permitted, plain
from tests.cli.desk import Desk, held_call, hold, settle
from tests.standing import ANY, give
from tests.world import World, world


async def test_of_a_call_that_runs_the_link_the_session_and_the_approval_are_named_that_end_it(tmp_path: Path) -> None:
    approval = {"destructive": {"by": ["user:bob"], "assurance": "signed-in"}}
    servers = {"plain": plain("destructive")}
    async with (
        world(tmp_path, servers=servers, approval=approval) as w,
        anyio.create_task_group() as group,
    ):
        await w.person("bob")
        desk = desk_of(w)
        token = await w.token(await w.ready("coder", SCOPE))

        async def call(what: str) -> None:
            await w.raw_call(token, "plain__wait", {"tag": what, "version": what})

        async def revoke(*what: str) -> str:
            return await anyio.to_thread.run_sync(lambda: desk.ok("revoke", *what, "--reason", "x"))

        await call("first")
        alone = await held_of(w, "first")
        await w.answer(alone.id, by="bob")
        group.start_soon(call, "first")
        await permitted(w, 1)
        ((session, root),) = await w.store.open_links("coder", w.clock())
        said = await revoke("hold", alone.id)
        runs, ends, after = said.splitlines()
        assert runs == f"hold {alone.id} waits no longer, its call runs already; nothing was changed"
        assert ends == f"the call ends with: link {root.id}, or session {session.id}"
        assert after.endswith(f"revoke link {root.id} --reason WHY")

        await call("second")
        held = await held_of(w, "second")
        standing = await give(w, held.id, by="bob", tag=ANY, version=ANY)
        group.start_soon(call, "second")
        await permitted(w, 2)
        said = await revoke("hold", held.id)
        assert said.splitlines()[1].endswith(f"link {root.id}, or session {session.id}, or approval {standing}")
        assert "stopped: running call" in await revoke("approval", standing)
        await until_over(w, held.id)
        said = await revoke("hold", held.id)
        assert "its call has begun, and nobody can say how it ended; nothing was changed" in said
        assert "by approval" not in said  # which was revoked
        await revoke("link", root.id)
        await until_over(w, alone.id)


async def until_over(w: World, held: HoldId) -> None:
    with anyio.fail_after(10):
        while (await w.store.hold(held)).state is HoldState.CLAIMED:  # noqa: ASYNC110
            await anyio.sleep(0.01)


def desk_of(w: World) -> Desk:
    """The command line on the machine of this gateway."""
    desk = Desk(directory=w.directory)
    values: dict[str, Any] = {"public_url": w.config.public_url, "data_dir": str(w.directory / "data")}
    desk.configure(tomlkit.dumps(values))
    return desk


async def test_of_a_hold_that_ended_it_is_said_how(desk: Desk) -> None:
    async with desk.open() as here:
        cast = await settle(here)
        done, denied = await hold(here, held_call(cast)), await hold(here, held_call(cast))
        for come_from, to in (
            (HoldState.PENDING, HoldState.APPROVED),
            (HoldState.APPROVED, HoldState.CLAIMED),
            (HoldState.CLAIMED, HoldState.DONE),
        ):
            await here.store.move_hold(done.id, come_from=come_from, to=to, event=None, result={})
        await here.store.move_hold(denied.id, come_from=HoldState.PENDING, to=HoldState.DENIED, event=None)
    said = desk.ok("revoke", "hold", done.id, "--reason", "x")
    assert said == f"hold {done.id} waits no longer, its call has run already; nothing was changed\n"
    said = desk.ok("revoke", "hold", denied.id, "--reason", "x")
    assert said == f"hold {denied.id} waits no longer, it is denied; nothing was changed\n"
