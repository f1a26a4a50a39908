"""A call that a person sends back: they say what it should be instead, and the agent hears it; no name goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError

from mcp_authz import limits
from mcp_authz.errors import Conflict
from mcp_authz.model import HoldState
from tests.attacks.attacker import spy, tool
from tests.road.places import BOTH
from tests.road.test_offers import bookshelf
from tests.web.authenticator import visiting
from tests.world import world

NAMES = ("alice", "user:alice", "bob")


def server(directory: Path) -> dict[str, Any]:
    rule = {"hazard": "destructive", "scopes": ["use"]}
    books = bookshelf(tools=dict.fromkeys(("resources/read", "prompts/get"), rule))
    return {"spy": spy(directory / "spy", tool("drop")).config(tools={"drop": rule}), "lib": books}


@BOTH
async def test_the_agent_reads_what_the_call_should_be_and_a_changed_call_is_asked_about_anew(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path, servers=server(tmp_path), approval={"destructive": {"by": ["group:ops"]}}) as w:
        await w.person("alice", "ops")
        await w.person("bob", "ops")
        coder = await w.ready("coder", "use")
        held = await w.call(coder, "spy__drop", mode, where="all")
        async with visiting(w, "alice") as alice:
            refused = await alice.post(f"/holds/{held.hold}/send-back", {"reason": " "})
            assert refused.status_code == 409 and "with a reason" in refused.json()["error"]
            long = await alice.post(f"/holds/{held.hold}/send-back", {"reason": "x" * (limits.REASON + 1)})
            assert long.status_code == 400
            said = await alice.post(f"/holds/{held.hold}/send-back", {"reason": "drop only\none \u202e table"})
            assert said.status_code == 200 and said.json()["says"].startswith("Sent back.")
            page = (await alice.get(f"/holds/{held.hold}")).text
            assert "sent back" in page and "data-deny" not in page and "data-approve" not in page
        for _ in range(2):  # and an identical call is told the same
            told = await w.call(coder, "spy__drop", mode, where="all")
            assert told.is_error and told.envelope["reason"] == "sent_back" and told.envelope["outcome"] == "denied"
            assert told.envelope["said"] == "drop only\\u{000a}one \\u{202e} table"
            assert "Change it as they say" in told.text and told.envelope["said"] in told.text
            assert not [name for name in NAMES if name in str(told.result)]
        changed = await w.call(coder, "spy__drop", mode, where="one table")
        assert changed.is_held and changed.hold != held.hold
        (record,) = [r.event.fields for r in await w.records("approval") if "verdict" in r.event.fields]
        assert (record["verdict"], record["state"]) == ("send-back", "denied")


@BOTH
async def test_the_reason_of_a_denial_reaches_whoever_asked_for_a_prompt_or_a_resource(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path, servers=server(tmp_path)) as w:
        coder = await w.ready("coder", "use")
        async with w.client(coder, mode) as client:
            asks = {
                "prompt": lambda: client.get_prompt("lib__review", {"title": "Emma"}),
                "resource": lambda: client.read_resource("book://one"),
            }
            for what, ask in asks.items():
                with pytest.raises(MCPError) as first:
                    await ask()
                hold = first.value.error.data["hold"]
                await w.answer(hold, by="alice", approve=False, reason=f"not this {what}")
                with pytest.raises(MCPError) as denied:
                    await ask()
                error = denied.value.error
                assert error.data["reason"] == "approval_denied" and error.data["said"] == f"not this {what}"
                assert f"They say: not this {what}" in error.message
                assert not [name for name in NAMES if name in f"{error.message} {error.data}"]


async def test_what_is_sent_back_is_no_approval_and_needs_a_reason_whatever_signs_it(tmp_path: Path) -> None:
    async with world(tmp_path, servers=server(tmp_path)) as w:
        coder = await w.ready("coder", "use")
        held = await w.call(coder, "spy__drop", where="all")
        with pytest.raises(Conflict, match="with a reason"):
            await w.answer(held.hold, by="alice", approve=False, sent_back=True)
        with pytest.raises(Conflict, match="longer than"):
            await w.answer(held.hold, by="alice", approve=False, reason="x" * (limits.REASON + 1))
        await w.answer(
            held.hold, by="alice", approve=True, sent_back=True, reason="less"
        )  # `approve` says nothing here
        after = await w.store.hold(held.hold)
        assert after.state is HoldState.DENIED and [v.approve for v in after.verdicts] == [False]
