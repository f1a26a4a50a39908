"""Row 34: what a waiting call stands on is revoked: it ends at once, whoever waits is told, approvals run nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.principals import Mode
from mcp_authz.revocation import Revocation
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import RevocableKind
from tests.attacks.attacker import answer_in
from tests.road.places import DESTRUCTIVE, asking
from tests.road.test_questions import ASKED, ELICITS, RED
from tests.world import ENVELOPE, OPERATOR, Actor, World, world

POLICIES = ["builtin:scopes_and_hazard", "builtin:own_workflows"]
SCOPE = "deploy:staging"
SOON = 5  # seconds, of the minute that a call may wait


@dataclass(frozen=True)
class Family:
    """A person, the agents of a chain of three, the last one's token, and what can be revoked of them."""

    token: str
    names: dict[str, tuple[RevocableKind, str]]


async def of_a_chain(w: World, n: str) -> Family:
    """alice -> planner -> middle -> coder, each of whom has one link and one key."""
    await w.person(f"alice{n}")
    names = [f"{role}{n}" for role in ("planner", "middle", "coder")]
    actors: list[Actor] = []
    for depth, name in enumerate(names):
        more: dict[str, Any] = {"depth": 2 - depth, "delegates_to": names[depth + 1 : depth + 2]}
        actors.append(await w.agent(name, ceiling=SCOPE, owner=f"alice{n}", **more))
    grant = await w.grant(f"alice{n}", names[0], SCOPE)
    session, root = await w.start(grant)
    await w.delegate(actors[0], names[1], SCOPE)
    await w.delegate(actors[1], names[2], SCOPE)
    middle, leaf = [link for link in await w.store.links(session.id) if link.parent is not None]
    return Family(
        token=await w.token(actors[2]),
        names={
            "its link": ("link", leaf.id),
            "the link above": ("link", middle.id),
            "the root": ("link", root.id),
            "its session": ("session", session.id),
            "the grant": ("grant", grant.id),
            "the agent": ("agent", names[2]),
            "the agent in the middle": ("agent", names[1]),
            "the first agent": ("agent", names[0]),
            "its only key": ("key", actors[2].key.public.thumbprint),
            "the person": ("person", f"alice{n}"),
            "the hold": ("hold", ""),
        },
    )


async def of_a_client(w: World, n: str) -> Family:
    """A stock client of a person."""
    await w.person(f"alice{n}")
    coder = await w.client_agent(f"client{n}", f"alice{n}", scope=SCOPE)
    (agent,) = [agent for agent in await w.store.agents() if agent.name == coder.name]
    return Family(token=coder.access_token, names={"the client": ("client", agent.client)})


async def of_an_owner(w: World, n: str) -> Family:
    """An agent that works for itself; its owner answers for it."""
    await w.person(f"alice{n}")
    coder = await w.agent(f"coder{n}", ceiling=SCOPE, owner=f"alice{n}")
    scope = parse_scopes(SCOPE)
    session, _ = await w.running.sessions.start_own(coder.name, scope=scope, purpose="nightly", by=OPERATOR)
    assert session.mode is Mode.OWN
    return Family(token=await w.token(coder), names={"the owner": ("person", f"alice{n}")})


CHAIN = (
    "its link", "the link above", "the root", "its session", "the grant", "the agent", "the agent in the middle",
    "the first agent", "its only key", "the person", "the hold",
)  # fmt: skip
REVOKED: list[tuple[Callable[[World, str], Awaitable[Family]], str]] = [
    *((of_a_chain, what) for what in CHAIN),
    (of_a_client, "the client"),
    (of_an_owner, "the owner"),
]


def deploy(version: str) -> dict[str, str]:
    return {"owner": "acme", "repo": "api", "environment": "staging", "version": version}


async def held_of(w: World, version: str) -> HeldCall:
    """The hold over this version, once there is one."""
    with anyio.fail_after(SOON):
        while True:
            for held in await w.store.holds(states=[HoldState.PENDING, HoldState.APPROVED]):
                if held.arguments["version"] == version:
                    return held  # type: ignore[no-any-return]
            await anyio.sleep(0.01)


async def revoke(w: World, family: Family, what: str, hold: HoldId) -> None:
    kind, name = family.names[what]
    await Revocation(w.store, w.clock).revoke(kind, name or hold, reason="leaked", by=OPERATOR)


async def test_whoever_waits_is_told_at_once(tmp_path: Path) -> None:
    told: dict[str, Any] = {}

    async def wait(family: Family, what: str) -> None:
        answer = answer_in(await w.raw_call(family.token, "acme__deploy", deploy(what)))
        told[what] = answer["result"]["_meta"][ENVELOPE]

    async with world(tmp_path, policy=POLICIES, waiting={"seconds": 60}) as w, anyio.create_task_group() as group:
        others = await of_a_chain(w, "0")
        group.start_soon(wait, others, "of somebody else")
        unmoved = await held_of(w, "of somebody else")
        for n, (make, what) in enumerate(REVOKED, start=1):
            family = await make(w, str(n))
            group.start_soon(wait, family, what)
            held = await held_of(w, what)
            await revoke(w, family, what, held.id)
            with anyio.fail_after(SOON):
                while what not in told:  # noqa: ASYNC110 - the client has no event for this
                    await anyio.sleep(0.01)
            assert told[what]["outcome"] == "denied", what
            assert told[what]["reason"] in {"approval_cancelled", "revoked"}, (what, told[what])
            assert (await w.store.hold(held.id)).state is HoldState.CANCELLED, what
        assert (await w.store.hold(unmoved.id)).state is HoldState.PENDING and "of somebody else" not in told
        assert w.deployments() == []
        group.cancel_scope.cancel()


async def test_what_was_approved_and_has_not_run_never_runs(tmp_path: Path) -> None:
    async with world(tmp_path, policy=POLICIES) as w:
        for n, (make, what) in enumerate(REVOKED, start=1):
            family = await make(w, str(n))
            await w.raw_call(family.token, "acme__deploy", deploy(what))
            held = await held_of(w, what)
            await w.answer(held.id, by=held.subject)
            await revoke(w, family, what, held.id)
            assert (await w.store.hold(held.id)).state is HoldState.CANCELLED, what
            again = await w.raw_call(family.token, "acme__deploy", deploy(what))
            assert outcome(again) in {"unauthorized", "denied", "held" if what == "the hold" else ""}, what
        assert w.deployments() == []


def outcome(answer: httpx2.Response) -> str:
    """How an answer reads that has no result of the tool."""
    if answer.status_code == 401:
        return "unauthorized"
    return str(answer_in(answer)["result"]["_meta"][ENVELOPE]["outcome"])


@pytest.mark.parametrize("what", ["person", "key"])
async def test_a_run_that_waits_for_an_answer_does_not_go_on_once_its_approver_is_revoked(
    tmp_path: Path, what: RevocableKind
) -> None:
    servers = {"asking": asking(tmp_path / "f", tools=DESTRUCTIVE)}
    approval = {"destructive": {"by": ["user:bob"], "assurance": "signed-in"}}
    async with world(tmp_path, servers=servers, approval=approval) as w:
        token = await w.token(await w.ready("coder", "use"))
        await w.person("bob")

        async def ask(**more: Any) -> dict[str, Any]:
            answer = await w.raw_call(token, "asking__ask", {"asked": ASKED}, capabilities=ELICITS, **more)
            return dict(answer_in(answer)["result"])

        await ask()
        (held,) = await w.store.holds(states=[HoldState.PENDING])
        await w.answer(held.id, by="bob")
        asked = await ask()
        assert asked["resultType"] == "input_required"
        name = "bob" if what == "person" else w.approvers["bob"].public.thumbprint
        await Revocation(w.store, w.clock).revoke(what, name, reason="test", by=OPERATOR)
        said = await ask(requestState=asked["requestState"], inputResponses={"q": RED})
        assert said["_meta"][ENVELOPE]["outcome"] == "replayed" and "received" not in str(said)
        assert (await w.store.hold(held.id)).state is HoldState.UNKNOWN
