"""What can be switched off or swept by a name that is none, by a time that has not come, and what that would cancel."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.model import HoldState, ToolName
from mcp_authz.stopping import Stopping
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import START, Time, approve, held, open_hold, pin, settle, state_of

BY = "user:operator"


async def test_what_would_be_cancelled_is_what_is_and_a_tool_that_is_on_may_stay_off_with_its_server(
    tmp_path: Path,
) -> None:
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    try:
        await settle(store)
        stopping = Stopping(store, Time())
        await open_hold(store, held("h_1"))
        await approve(store, "h_1")
        await open_hold(store, held("h_2", digest=b"2" * 32))
        await open_hold(store, held("h_3", digest=b"3" * 32, tool=ToolName("files__read")))
        await open_hold(store, held("h_4", digest=b"4" * 32, server="other", tool=ToolName("other__write")))
        assert await stopping.would_cancel("files", "files__write") == ("h_1", "h_2")
        assert await stopping.would_cancel("files") == ("h_1", "h_2", "h_3")
        gone = await stopping.tool_off(pin("write"), "files__write", reason="leak", by=BY)
        assert gone == ("h_1", "h_2") and await state_of(store, "h_3") is HoldState.PENDING
        assert await stopping.server_off("files", reason="leak", by=BY) == ("h_3",)
        with pytest.raises(Conflict, match="switched off as a whole"):
            await stopping.tool_on(pin("write"), "files__write", by=BY)
        with pytest.raises(Conflict, match="is not switched off"):
            await stopping.server_on("other", by=BY)
        assert await state_of(store, "h_4") is HoldState.PENDING
    finally:
        await store.aclose()


@pytest.mark.parametrize("subject", ["user:nobody", "agent:nobody", "client:nobody"])
async def test_nobody_is_swept_who_is_not_there_nor_before_a_time_that_has_not_come(
    tmp_path: Path, subject: str
) -> None:
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    try:
        await settle(store)
        stopping, before = Stopping(store, Time()), len(await store.records())
        for sweep in (stopping.foresee_sweep, lambda *what: stopping.sweep(*what, reason="leak", by=BY)):
            with pytest.raises(NotFound, match="there is no"):
                await sweep(subject, START)
            with pytest.raises(InputError, match="has not come yet"):
                await sweep("user:alice", START + timedelta(microseconds=1))
            for none in ("alice", "user:", "group:alice", ""):
                with pytest.raises(InputError, match="neither user:NAME"):
                    await sweep(none, START)
        assert len(await store.records()) == before
    finally:
        await store.aclose()
