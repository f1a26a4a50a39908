"""Row 25: a standing approval is given for calls like one, and another call is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.attacks.test_25_another_call import APPROVED, OTHERS, SCOPES, destroyer, outcome, said
from tests.standing import ANY, give
from tests.world import Actor, World, world


def hold_of(result: dict[str, Any]) -> Any:
    return result["_meta"]["dev.mcp-authz/outcome"]["hold"]


async def stands(w: World, who: Actor, token: str, **freed: Any) -> Any:
    """A standing approval over calls like `APPROVED`."""
    return await give(w, hold_of(await said(w, who, "spy__drop", APPROVED, token)), by="alice", **freed)


async def test_nothing_but_what_was_freed_may_differ(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        token = await w.token(coder)
        id_ = await stands(w, coder, token, where=ANY)
        assert outcome(await said(w, coder, "spy__drop", APPROVED, token)) == "done"
        for where in ("there", 7, None, {"x": 1}):
            assert outcome(await said(w, coder, "spy__drop", {**APPROVED, "where": where}, token)) == "done"
        assert len(server.ran) == 5
        others = {what: call for what, call in OTHERS.items() if {**call, "where": "here"} != APPROVED}
        assert len(others) > 8
        for what, arguments in others.items():
            assert outcome(await said(w, coder, "spy__drop", arguments, token)) == "held", what
        assert len(server.ran) == 5
        standing = await w.store.standing_approval(id_)
        assert standing.used == 4  # the call that it was given with is beside the count
