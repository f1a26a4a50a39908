"""Row 35: a revocation ends what descends from it, however deep, running calls included, and no sibling of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from mcp_authz.revocation import Revocation
from tests.attacks.attacker import answer_in
from tests.attacks.test_34_revoked_while_running import SCOPE, permitted, plain
from tests.world import OPERATOR, Actor, World, world

SOON = 10
TREE = {
    "planner": None,
    "middle": "planner",
    "sibling": "planner",
    "deep": "middle",
    "deeper": "deep",
    "beside": "deep",
    "left": "middle",
    "leftmost": "left",
}
BELOW = {
    "deeper": {"deeper"},
    "deep": {"deep", "deeper", "beside"},
    "middle": {"middle", "deep", "deeper", "beside", "left", "leftmost"},  # the last two by nothing but this link
}


async def grown(w: World) -> dict[str, Actor]:
    """The tree: each agent has one link, from the one above it."""
    await w.person("alice")
    actors = {}
    for name in TREE:
        more: dict[str, Any] = {"depth": 4, "delegates_to": list(TREE)}
        actors[name] = await w.agent(name, ceiling=SCOPE, **more)
    await w.start(await w.grant("alice", "planner", SCOPE))
    for name, above in TREE.items():
        if above is not None:
            await w.delegate(actors[above], name, SCOPE)
    return actors


async def test_what_is_below_a_revoked_link_or_agent_ends_and_nothing_beside_it(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain("read")}) as w:
        actors = await grown(w)
        (session,) = await w.store.sessions()
        links = {link.holder: link.id for link in await w.store.links(session.id)}
        tokens = {name: await w.token(actor) for name, actor in actors.items()}
        told: dict[str, Any] = {}

        async def call(name: str) -> None:
            told[name] = answer_in(await w.raw_call(tokens[name], "plain__wait", {"tag": name}))

        async with anyio.create_task_group() as group:
            for name in TREE:
                group.start_soon(call, name)
            await permitted(w, len(TREE))
            gone: set[str] = set()
            for kind, name in (("link", "deeper"), ("agent", "deep"), ("link", "middle")):
                named = links[name] if kind == "link" else name
                await Revocation(w.store, w.clock).revoke(kind, named, reason="leaked", by=OPERATOR)  # type: ignore[arg-type]
                gone |= BELOW[name]
                with anyio.fail_after(SOON):
                    while set(told) < gone:  # noqa: ASYNC110 - the clients have no event for this
                        await anyio.sleep(0.01)
                await anyio.sleep(0.05)
                assert set(told) == gone
                assert all(told[it]["error"]["data"]["reason"] == "revoked" for it in gone)
                for it in TREE:
                    answer = await w.raw_call(tokens[it], "plain__cancelled", {})
                    assert (answer.status_code == 401) is (it in gone), (it, answer.text)
            assert w.running.parts.underway.count == len(TREE) - len(gone)
            group.cancel_scope.cancel()
