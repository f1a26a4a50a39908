"""Verdicts in a file, counts of held calls, and what stands beside a call before it is answered."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.rules.canonical import digest
from tests.cli.desk import PASSPHRASE, Cast, Desk, held_call, hold, sealed, settle
from tests.store.world import event

ASKED = [("passphrase", PASSPHRASE)]


@pytest.fixture
async def cast(desk: Desk) -> Cast:
    async with desk.open() as here:
        return await settle(here)


@pytest.fixture
def key(desk: Desk) -> Path:
    desk.path("bob.key").write_text(sealed()[1])
    return desk.path("bob.key")


def bound_call(cast: Cast, **changes: object) -> HeldCall:
    """A held call whose digest is that of its action."""
    call = replace(held_call(cast), **changes)  # type: ignore[arg-type]
    bound = {
        "server": call.server,
        "tool": "deploy",
        "definition": "00" * 32,
        "session": call.session,
        "subject": f"user:{call.subject}",
        "actor": f"agent:{call.actor}",
        "chain": [f"agent:{name}" for name in call.chain],
    }
    return replace(call, bound=bound, digest=digest({**bound, "arguments": dict(call.arguments)}))


async def test_a_verdict_is_exported_and_verifies_without_a_store(desk: Desk, cast: Cast, key: Path) -> None:
    async with desk.open() as here:
        held = await hold(here, bound_call(cast))
    told = desk.seated(
        "holds", "send-back", held.id, "--as", "bob", "--key", key, "--reason", "staging first", types=ASKED
    )
    assert told.code == 0 and f"{held.id} is sent back by bob" in told.out and "send back exactly this" in told.terminal
    shown = desk.ok("holds", "show", held.id)
    assert "bob sent it back" in shown and ", sent back since" in shown and f"holds export {held.id}" in shown
    bundle = desk.ok("holds", "export", held.id[:12])
    desk.path("bundle.json").write_text(bundle)
    gateway = json.loads(bundle)["keys"]["gateway"]
    desk.path("keys.json").write_text(json.dumps({"keys": [gateway]}))

    desk.config.unlink()  # neither configuration nor store
    own_word = desk.ok("holds", "verify", desk.path("bundle.json"))
    assert "the bundle's own word" in own_word and "nothing is wrong" in own_word
    verified = desk.ok("holds", "verify", desk.path("bundle.json"), "--keys", desk.path("keys.json"))
    assert "one that you trust" in verified
    assert "bob sent back this with their own key" in verified and "signed by their own key: staging first" in verified
    desk.path("bundle.json").write_text(bundle.replace("staging first", "staging later"))
    wrong = desk.run("holds", "verify", desk.path("bundle.json"), "--keys", desk.path("keys.json"))
    assert wrong.code == 1 and "the verdict of bob: `reason` is not what was signed" in wrong.out
    assert "do not rely on it" in wrong.out
    told_json = desk.run("holds", "verify", desk.path("bundle.json"), "--json")
    assert told_json.code == 1 and told_json.json["ok"] is False


async def test_what_differs_from_before_is_read_before_the_passphrase_is_typed(
    desk: Desk, cast: Cast, key: Path
) -> None:
    async with desk.open() as here:
        before = await hold(here, bound_call(cast, arguments={"repo": "api", "note": "1"}))
        for come_from, to in ((HoldState.PENDING, HoldState.APPROVED), (HoldState.APPROVED, HoldState.CLAIMED)):
            assert await here.store.move_hold(before.id, come_from=come_from, to=to, event=None)
        await here.store.move_hold(before.id, come_from=HoldState.CLAIMED, to=HoldState.DONE, event=None, result={})
        same = await hold(here, bound_call(cast, arguments={"repo": "api", "note": "1"}, id=HoldId("h_same1")))
        other = await hold(here, bound_call(cast, arguments={"repo": "api", "note": "2"}, id=HoldId("h_other1")))
    assert "the same call ran" in desk.ok("holds", "show", same.id)
    done = desk.seated("holds", "approve", other.id, "--as", "bob", "--key", key, types=ASKED)
    read = done.terminal[: done.terminal.index("passphrase of")]
    assert "differs:" in read and '  note: "1" -> "2"' in read
    shown = desk.json("holds", "show", other.id)
    assert shown["differences"] == [{"name": "note", "before": ["1"], "now": ["2"]}]
    assert shown["last_approved"] == before.id and shown["same_ran_at"] is None


async def test_without_a_key_the_page_of_the_call_is_where_it_is_answered(desk: Desk, cast: Cast) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast))
    assert f"/holds/{held.id}" in desk.ok("holds", "approve", held.id)
    for more in (("--as", "bob"), ("--reason", "so"), ("--standing", "3")):
        assert "both --as and --key" in desk.refused("holds", "approve", held.id, *more)


async def test_held_calls_are_counted_by_what_became_of_them(desk: Desk, cast: Cast) -> None:
    async with desk.open() as here:
        now = here.clock()
        for n in range(5):
            held = await hold(here, bound_call(cast, id=HoldId(f"h_yes{n}"), arguments={"repo": f"r{n}"}))
            await here.store.move_hold(held.id, come_from=HoldState.PENDING, to=HoldState.APPROVED, event=event())
        old = {"asked_at": now - timedelta(hours=2), "expires_at": now - timedelta(hours=1)}
        await hold(here, bound_call(cast, id=HoldId("h_late1"), tool="acme__drop", arguments={"repo": "x"}, **old))
        await hold(here, bound_call(cast, id=HoldId("h_late2"), tool="acme__drop", arguments={"repo": "x"}))
    deploy, drop = desk.json("holds", "stats")
    assert (deploy["name"], deploy["held"], deploy["approved"], deploy["always_approved"]) == (
        "acme__deploy",
        5,
        5,
        True,
    )
    assert (drop["held"], drop["expired"], drop["came_again"], drop["waiting"]) == (2, 1, 1, 1)
    shown = desk.ok("holds", "stats")
    assert "1 of 1 expired calls came again" in shown and "people approved every one as it was" in shown
    assert desk.json("holds", "stats", "--by", "agent", "--days", "1")[0]["name"] == "coder"
    assert [line["name"] for line in desk.json("holds", "stats", "--by", "rule")] == ["release"]
    assert desk.json("holds", "stats", "--by", "person") == []
