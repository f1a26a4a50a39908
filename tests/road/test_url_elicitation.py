"""The client sends its person to the page of a held call: opening it is no answer, what they do there is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp_types import ElicitResult

from mcp_authz.model import HoldState
from mcp_authz.revocation import Revocation
from tests.road.places import BOTH
from tests.road.waiting import DEPLOY, SOON, TOOL, nobody_waits, pending
from tests.road.wire import Wire, wire
from tests.web.authenticator import visiting
from tests.world import LEGACY, MODERN, OPERATOR, Actor, Called, World, called, world

WAITS = {"seconds": 60}
COMPLETE = "notifications/elicitation/complete"
URL: dict[str, Any] = {"elicitation": {"url": {}}}
NO_ADDRESSES: tuple[dict[str, Any], ...] = ({}, {"form": {}})
OPENED = {"approval": {"action": "accept"}}


class Browser:
    """What a client does that is asked to open an address: it answers, and something may happen before or after."""

    def __init__(self, action: str = "accept", *, first: Callable[[], Awaitable[None]] | None = None) -> None:
        self.asked: list[Any] = []
        self.opened = anyio.Event()
        self._first, self._action = first, action

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params)
        self.opened.set()
        if self._first is not None:
            await self._first()
        return ElicitResult(action=self._action)  # type: ignore[arg-type]


async def deploy(w: World, actor: Actor, mode: str, browser: Browser, **more: Any) -> Called:
    """One call by a stock client that opens addresses."""
    with anyio.fail_after(SOON):
        async with w.client(actor, mode, elicitation_callback=browser, **more) as client:
            return await called(client, TOOL, DEPLOY)


@BOTH
async def test_the_person_is_sent_to_the_page_and_their_call_goes_on_with_what_they_do_there(
    tmp_path: Path, mode: str
) -> None:
    told: list[str] = []

    async def hear(message: Any) -> None:
        told.append(getattr(getattr(message, "root", message), "method", ""))

    async with world(tmp_path, waiting=WAITS) as w:
        coder, browser = await w.ready("coder", "deploy"), Browser()
        async with visiting(w, "alice") as alice, anyio.create_task_group() as group:

            async def on_the_page() -> None:
                await browser.opened.wait()
                path = browser.asked[0].url.removeprefix(w.config.public_url)
                page = (await alice.get(path)).headers["location"]
                assert path == f"{page}/asked" and "1.4.0" in (await alice.get(page)).text
                assert w.deployments() == [] and (await pending(w)).verdicts == ()
                assert (await alice.approve((await pending(w)).id)).status_code == 200

            group.start_soon(on_the_page)
            done = await deploy(w, coder, mode, browser, message_handler=hear)
        assert not done.is_error and len(w.deployments()) == 1
        (verdict,) = [record.event.fields for record in await w.records("approval")]
    (asked,) = browser.asked
    assert asked.mode == "url" and "coder asks to run acme__deploy, for alice" in asked.message
    assert "1.4.0" not in asked.message, "the arguments are for the page"
    assert verdict["assurance"] == "passkey" and verdict["person"] == "user:alice"
    assert told.count(COMPLETE) == (mode == LEGACY)


@BOTH
@pytest.mark.parametrize("action", ["decline", pytest.param("cancel", marks=pytest.mark.thorough)])
async def test_a_person_who_does_not_open_the_page_leaves_the_call_held(tmp_path: Path, mode: str, action: str) -> None:
    async with world(tmp_path, waiting=WAITS) as w:
        held = await deploy(w, await w.ready("coder", "deploy"), mode, Browser(action))
        assert held.is_held and (await pending(w)).id == held.hold and w.deployments() == []
        assert (await pending(w)).verdicts == () and w.running.parts.waits.count == 0


@BOTH
@pytest.mark.parametrize(
    "rule",
    [
        {"by": ["owner", "user:bob"], "outside_chain": True},
        pytest.param({"by": ["user:bob"]}, marks=pytest.mark.thorough),
    ],
    ids=["outside", "bob"],
)
async def test_nobody_is_sent_to_a_page_where_they_may_not_answer(
    tmp_path: Path, mode: str, rule: dict[str, Any]
) -> None:
    async with world(tmp_path, waiting={"seconds": 1}, approval={"destructive": rule}) as w:
        await w.person("bob")
        browser = Browser()
        assert (await deploy(w, await w.ready("coder", "deploy"), mode, browser)).is_held
    assert browser.asked == []


@BOTH
@pytest.mark.parametrize(
    "declared",
    [{}, *(pytest.param({"elicitation": it}, marks=pytest.mark.thorough) for it in NO_ADDRESSES)],
    ids=str,
)
async def test_a_client_that_did_not_say_that_it_opens_addresses_is_sent_none(
    tmp_path: Path, mode: str, declared: dict[str, Any]
) -> None:
    async with world(tmp_path, waiting={"seconds": 1}) as w:
        coder = await w.ready("coder", "deploy")
        async with wire(w, coder, mode, "deploy", **(declared if mode == LEGACY else {})) as client:
            reply = await client.call(TOOL, DEPLOY, **({"capabilities": declared} if mode == MODERN else {}))
            result = await reply.result()
            assert [message for message in reply.messages if "method" in message] == []
            if mode == MODERN and result["resultType"] == "input_required":
                assert "inputRequests" not in result
            else:
                assert result["_meta"]["dev.mcp-authz/outcome"]["outcome"] == "held"


async def test_a_verdict_or_an_end_that_comes_before_the_client_has_answered_is_not_kept_waiting(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, waiting=WAITS) as w:
        coder = await w.ready("coder", "deploy")

        async def approved() -> None:
            await w.answer((await pending(w)).id, by="alice")
            await anyio.sleep_forever()

        async def called_off() -> None:
            await Revocation(w.store, w.clock).revoke("hold", (await pending(w)).id, reason="", by=OPERATOR)
            await anyio.sleep_forever()

        off = await deploy(w, coder, LEGACY, Browser(first=called_off))
        assert off.envelope["reason"] == "approval_cancelled" and w.deployments() == []
        done = await deploy(w, coder, LEGACY, Browser(first=approved))
        assert not done.is_error and len(w.deployments()) == 1


async def ask(client: Wire, **more: Any) -> dict[str, Any]:
    """The answer to one raw call of 2026-07-28 by a client that opens addresses: its result, or its error."""
    answer = await (await client.call(TOOL, more.pop("arguments", DEPLOY), capabilities=URL, **more)).end()
    result: dict[str, Any] = answer.get("result") or answer["error"]
    return result


async def test_what_comes_back_with_an_opened_page_approves_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, waiting={"seconds": 1}) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with wire(w, coder, MODERN, "deploy") as client:
            asked = await ask(client)
            (request,) = asked["inputRequests"].values()
            assert request["params"]["mode"] == "url" and "elicitationId" not in request["params"]
            for answer in (
                {"action": "accept", "content": {"approve": True}},
                {"action": "accept", "content": {"approve": True, "state": "approved"}, "approve": True},
            ):
                state = {"requestState": asked["requestState"], "inputResponses": {"approval": answer}}
                told = await ask(client, **state)  # replaying the state gains nothing either: it waits again
                assert told["_meta"]["dev.mcp-authz/outcome"]["outcome"] == "held", told
            assert (await pending(w)).verdicts == () and w.deployments() == []
        await nobody_waits(w)


async def test_no_page_is_opened_for_a_call_that_was_answered_meanwhile(tmp_path: Path) -> None:
    async with world(tmp_path, waiting=WAITS) as w:
        coder = await w.ready("coder", "deploy")
        async with wire(w, coder, MODERN, "deploy") as client:
            state = (await ask(client))["requestState"]
            await w.answer((await pending(w)).id, by="alice")
            done = await ask(client, requestState=state, inputResponses={"approval": {"action": "cancel"}})
            assert not done.get("isError") and len(w.deployments()) == 1
            again = await ask(client, requestState=state, inputResponses=OPENED)
            assert again["_meta"]["dev.mcp-authz/outcome"]["outcome"] == "replayed"
        (held,) = await w.store.holds()
        assert held.state is HoldState.DONE and len(w.deployments()) == 1
