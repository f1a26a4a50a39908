"""Row 25: a standing approval is given for calls like one, and another call is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcp_authz.store.ports import Event
from tests.attacks.attacker import tool
from tests.attacks.test_25_another_call import APPROVED, OTHERS, SCOPES, destroyer, outcome, said
from tests.standing import ANY, give
from tests.world import OPERATOR, Actor, World, world


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


async def test_another_tool_server_session_person_or_agent_is_not_what_was_approved(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    servers["spy2"]["tools"] = {"drop": {"scopes": ["spy:drop"]}}
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        token = await w.token(coder)
        await stands(w, coder, token, where=ANY)
        assert outcome(await said(w, coder, "spy__burn", APPROVED, token)) == "held"
        assert outcome(await said(w, coder, "spy2__drop", APPROVED, token)) == "held"
        assert outcome(await said(w, await w.ready("rival", SCOPES), "spy__drop", APPROVED)) == "held"
        other, _ = await w.start(await w.running.sessions.only_grant("alice", "coder"))
        await w.person("bob")
        of_bob, _ = await w.start(await w.grant("bob", "coder", SCOPES))
        for session in (other, of_bob):
            elsewhere = await w.token(coder, client_assertion=w.assertion(coder, session=session.id))
            assert outcome(await said(w, coder, "spy__drop", {**APPROVED, "where": "x"}, elsewhere)) == "held"
        assert server.ran == []


async def test_what_was_to_stay_the_same_runs_as_it_was_written_and_shown(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        token = await w.token(coder)
        held = await said(w, coder, "spy__drop", {"n": 1, "where": "a"}, token)
        await give(w, hold_of(held), by="alice", where=ANY)
        response = await w.raw_call(token, "spy__drop", {"n": 1.0, "where": "b"})  # the same value, in RFC 8785
        assert response.status_code == 200
        assert json.dumps(server.ran) == '[["drop", {"n": 1, "where": "b"}]]'


async def test_a_tool_that_was_accepted_anew_is_not_what_was_approved(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        token = await w.token(coder)
        await stands(w, coder, token, where=ANY)
        server.lists(tool("drop", description="drops everything"), tool("burn"))
        await w.running.catalog.refresh(w.running.parts.downstreams["spy"])
        (waiting,) = [pin for pin in await w.store.pins() if pin.changed_digest is not None and pin.server == "spy"]
        event = Event(kind="pin", at=w.clock(), fields={"by": OPERATOR})
        await w.store.accept("spy", "drop", waiting.changed_digest, event)
        await w.running.catalog.refresh(w.running.parts.downstreams["spy"])
        assert outcome(await said(w, coder, "spy__drop", {**APPROVED, "where": "x"}, token)) == "held"
        assert server.ran == []
