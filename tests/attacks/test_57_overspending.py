"""Attack 57: parallel calls overspend a budget; two processes take one proof."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import pytest

from mcp_authz.store.ports import Lost
from tests.attacks.attacker import answer_in, reason, spy, tool
from tests.road.limited import permitting
from tests.signing import signing
from tests.store.conftest import Stores, stores  # noqa: F401 - the fixture
from tests.store.world import LEAF, SESSION, admission, once, settle
from tests.world import ENVELOPE, world


@pytest.mark.parametrize("budget", [{"session_calls": 10}, {"link_calls": 10}])
async def test_fifty_parallel_calls_get_the_ten_that_the_budget_has(
    stores: Stores,  # noqa: F811
    budget: dict[str, int],
) -> None:
    async with stores.open() as one, stores.open() as other:
        await settle(one, **budget)

        answers = await asyncio.gather(*((one, other)[n % 2].admit(admission(f"c_{n}")) for n in range(50)))

        assert sum(isinstance(answer, int) for answer in answers) == 10
        assert [answer for answer in answers if not isinstance(answer, int)] == [Lost(reason="budget")] * 40
        session, leaf = await one.session(SESSION), await one.link(LEAF)
        assert session is not None and leaf is not None
        assert (session.calls_made, leaf.calls_made) == (10, 10)
        assert len(await one.records(kind="decision")) == 10


async def test_one_proof_shown_to_two_processes_fifty_times_admits_one_call(stores: Stores) -> None:  # noqa: F811
    async with stores.open() as one, stores.open() as other:
        await settle(one)
        asked = [admission(f"c_{n}", once=(once("the same proof"),)) for n in range(50)]

        answers = await asyncio.gather(*((one, other)[n % 2].admit(call) for n, call in enumerate(asked)))

        assert sum(isinstance(answer, int) for answer in answers) == 1
        assert [answer for answer in answers if not isinstance(answer, int)] == [Lost(reason="replayed")] * 49
        assert len(await one.records(kind="decision")) == 1


@pytest.mark.parametrize("hazard", ["read", "destructive"])
async def test_a_signed_call_that_is_sent_fifty_times_at_once_is_one_call(tmp_path: Path, hazard: str) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    entry = server.config(tools={"look": {"hazard": hazard, "scopes": ["spy:look"], "proof": "signed"}})
    async with world(tmp_path, servers={"spy": entry}) as w:
        coder = await w.ready("coder", "spy:look")
        token, meta = await w.token(coder), (await signing(w, coder)).meta("spy__look", at=w.clock())
        said = list[str]()

        async def send() -> None:
            result = answer_in(await w.raw_call(token, "spy__look", {}, meta=meta))["result"]
            said.append(result["_meta"][ENVELOPE].get("reason", "held") if result.get("isError") else "ran")

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(send)
        first = "ran" if hazard == "read" else "held"
        assert sorted(said) == sorted([first, *["replayed"] * 49])
        assert len(server.ran) == (1 if hazard == "read" else 0)


MONEY = {"money": {"amount": "{amount}", "per_session": "10"}}


@pytest.mark.parametrize(
    ("asked", "denied"),
    [('@rate_limit("10/d")', "rate_limited"), ('@budget("money")', "spent")],
    ids=["rate", "budget"],
)
async def test_fifty_calls_at_once_get_the_ten_that_policy_leaves_and_no_other_reaches_the_tool(
    tmp_path: Path, asked: str, denied: str
) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    entry = server.config(tools={"look": {"hazard": "read", "scopes": ["spy:look"]}})
    policy = permitting(tmp_path, asked)
    async with world(tmp_path, servers={"spy": entry}, policy=policy, budgets=MONEY) as w:
        token = await w.token(await w.ready("coder", "spy:look"), "spy:look")
        said = list[str]()

        async def send(number: int) -> None:
            # Each is another call: nothing that is only counted once could keep them apart.
            answer = answer_in(await w.raw_call(token, "spy__look", {"amount": 1, "number": number}))
            said.append(reason(answer) if answer["result"].get("isError") else "ran")

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(send, number)
        assert sorted(said) == sorted(["ran"] * 10 + [denied] * 40)
        assert len(server.ran) == 10
        permits = [fields for fields in await w.decisions() if fields["decision"] == "permit"]
        assert len(permits) == 10


async def test_no_spelling_of_an_amount_takes_less_than_the_tool_is_told(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    entry = server.config(tools={"look": {"hazard": "read", "scopes": ["spy:look"]}})
    policy = permitting(tmp_path, '@budget("money")')
    tricks = [
        "1e1",
        "-5",
        "-0",
        "+1",
        " 1",
        "1 ",
        "0x1",
        "1_0",
        "1,0",
        "01",
        "",
        "\u0661",
        "NaN",
        "1.0000001",
        0.1,
        1e1,
    ]
    tricks += [None, True, [1], {"amount": 1}, 10**15, "9" * 400]
    async with world(tmp_path, servers={"spy": entry}, policy=policy, budgets=MONEY) as w:
        token = await w.token(await w.ready("coder", "spy:look"), "spy:look")
        for amount in tricks:
            denied = answer_in(await w.raw_call(token, "spy__look", {"amount": amount}))
            assert reason(denied) in ("obligation", "spent"), amount
        assert reason(answer_in(await w.raw_call(token, "spy__look", {}))) == "obligation"
        assert server.ran == []
