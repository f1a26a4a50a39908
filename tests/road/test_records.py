"""Every call leaves its records: the decision before the tool server is reached, the outcome before the answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.road.places import BOTH
from tests.road.wire import wire
from tests.world import World, world


@contextmanager
def log_refuses(w: World, kind: str) -> Iterator[None]:
    """The store refuses records of one kind, as a full disk would refuse all."""
    path = next(w.config.data.glob("*.db"))
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TRIGGER refused BEFORE INSERT ON log "
            f"WHEN json_extract(CAST(NEW.body AS TEXT), '$.kind') = '{kind}' "
            "BEGIN SELECT RAISE(ABORT, 'no more'); END"
        )
        db.commit()
        try:
            yield
        finally:
            db.execute("DROP TRIGGER refused")
            db.commit()


@BOTH
async def test_a_decision_that_cannot_be_recorded_is_a_503_and_reaches_no_tool_server(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        opened = {"owner": "acme", "repo": "api", "title": "t", "branch": "b"}
        before = (w.state / "repositories.json").read_text()
        async with wire(w, coder, mode, "pr") as client:
            with log_refuses(w, "decision"):
                refused = await client.call("acme__open_pull_request", opened)
            assert refused.status == 503
            assert (await refused.end())["error"]["code"] == -32603
            assert (w.state / "repositories.json").read_text() == before
            assert await w.decisions() == []

            again = await (await client.call("acme__open_pull_request", opened)).result()
    assert not again.get("isError")


@BOTH
async def test_an_outcome_that_cannot_be_recorded_is_never_told_as_if_nothing_had_run(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        opened = {"owner": "acme", "repo": "api", "title": "t", "branch": "ran"}
        async with wire(w, coder, mode, "pr") as client:
            with log_refuses(w, "outcome"):
                lost = await (await client.call("acme__open_pull_request", opened)).end()
        assert '"ran"' in (w.state / "repositories.json").read_text()
    assert "may have run" in lost["error"]["message"]
