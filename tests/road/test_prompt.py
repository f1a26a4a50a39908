"""The prompt in the requesting client: asked only where its answer counts, and the answer counts once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp_types import ElicitResult

from tests.road.places import BOTH
from tests.road.wire import Wire, wire
from tests.world import LEGACY, MODERN, Actor, Called, World, called, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
DEPLOY_TOOL = "acme__deploy"


class Person:
    """Who sits in front of the client: keeps what was asked, and answers it, perhaps only after something else."""

    def __init__(
        self,
        action: str,
        content: Mapping[str, Any] | None = None,
        *,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.asked: list[str] = []
        self._after = after
        self._answer = ElicitResult(action=action, content=content)  # type: ignore[arg-type]

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        if params.mode == "form":  # that an address was opened is no answer
            self.asked.append(params.message)
        if self._after is not None:
            await self._after()
        return self._answer


YES = {"approve": True}


async def deploy(w: World, actor: Actor, mode: str, person: Person) -> Called:
    """One call by a stock client that can ask its person."""
    async with w.client(actor, mode, elicitation_callback=person) as client:
        return await called(client, DEPLOY_TOOL, DEPLOY)


@BOTH
async def test_a_person_who_accepts_in_their_own_client_lets_the_call_run_at_once(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder, person = await w.ready("coder", "deploy", interactive=True), Person("accept", YES)
        done = await deploy(w, coder, mode, person)
        assert not done.is_error and len(w.deployments()) == 1
        (verdict,) = [record.event.fields for record in await w.records("approval")]
        permitted = (await w.decisions())[-1]
    (question,) = person.asked
    assert "coder asks to run acme__deploy (destructive)" in question and 'version: "1.4.0"' in question
    assert verdict["assurance"] == "client" and verdict["person"] == "user:alice"
    assert permitted["decision"] == "permit" and permitted["approval"]["assurance"] == "client"


@BOTH
@pytest.mark.parametrize(
    "answer", [("decline",), ("accept", {"approve": False}), ("accept", {})], ids=["declined", "unchecked", "empty"]
)
async def test_a_person_who_declines_denies_the_call(tmp_path: Path, mode: str, answer: Any) -> None:
    person = Person(*answer)
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        denied = await deploy(w, coder, mode, person)
        assert w.deployments() == []
        again = await deploy(w, coder, mode, Person("accept", YES))
        assert w.deployments() == []
    assert denied.envelope["reason"] == again.envelope["reason"] == "approval_denied"
    assert len(person.asked) == 1


@BOTH
async def test_a_prompt_that_is_closed_leaves_the_call_held(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        held = await deploy(w, coder, mode, Person("cancel"))
        assert held.is_held and w.deployments() == []
        assert not (await deploy(w, coder, mode, Person("accept", YES))).is_error
        assert len(w.deployments()) == 1


@BOTH
async def test_an_agent_that_is_not_interactive_is_never_asked_about_itself(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder, person = await w.ready("coder", "deploy"), Person("accept", YES)
        held = await deploy(w, coder, mode, person)
        assert held.is_held and person.asked == [] and w.deployments() == []


@BOTH
async def test_an_agent_that_others_delegated_to_is_never_asked(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        planner = await w.ready("planner", "deploy", depth=1, delegates_to={"coder"})
        coder, person = await w.agent("coder", ceiling="deploy", interactive=True), Person("accept", YES)
        await w.delegate(planner, "coder", "deploy")
        held = await deploy(w, coder, mode, person)
        assert held.is_held and person.asked == [] and w.deployments() == []


@BOTH
@pytest.mark.parametrize(
    "rule",
    [
        {"by": ["user:bob"]},
        {"by": ["subject", "user:bob"]},
        {"quorum": 2},
        {"outside_chain": True},
        {"reason": True},
        {"assurance": "signed-in"},
    ],
    ids=str,
)
async def test_a_rule_that_asks_for_more_than_the_client_is_not_put_to_it(
    tmp_path: Path, mode: str, rule: dict[str, Any]
) -> None:
    async with world(tmp_path, approval={"destructive": rule}) as w:
        coder, person = await w.ready("coder", "deploy", interactive=True), Person("accept", YES)
        held = await deploy(w, coder, mode, person)
        assert held.is_held and person.asked == [] and w.deployments() == []


@BOTH
async def test_a_client_that_cannot_be_asked_is_told_that_the_call_is_held(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        assert (await w.call(coder, DEPLOY_TOOL, mode, **DEPLOY)).is_held


@BOTH
@pytest.mark.parametrize("content", [YES, {"approve": False}], ids=["yes", "no"])
async def test_where_the_prompt_and_the_page_disagree_the_no_counts(
    tmp_path: Path, mode: str, content: dict[str, Any]
) -> None:
    async def on_the_page() -> None:
        (waiting,) = await w.store.holds()
        await w.answer(waiting.id, by="alice", approve=not content["approve"])

    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        denied = await deploy(w, coder, mode, Person("accept", content, after=on_the_page))
        assert denied.envelope["reason"] == "approval_denied"
        again = await deploy(w, coder, mode, Person("cancel"))
        assert again.is_error and w.deployments() == []


@BOTH
async def test_a_call_approved_on_the_page_while_the_prompt_was_open_runs_once(tmp_path: Path, mode: str) -> None:
    async def on_the_page() -> None:
        (waiting,) = await w.store.holds()
        await w.answer(waiting.id, by="alice")

    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        done = await deploy(w, coder, mode, Person("accept", YES, after=on_the_page))
        assert not done.is_error and len(w.deployments()) == 1


async def test_a_prompt_answered_after_its_time_permits_nothing(tmp_path: Path) -> None:
    async def wait() -> None:
        w.clock.advance(timedelta(minutes=6))

    async with world(tmp_path, approval={"destructive": {"expires_minutes": 5}}) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        denied = await deploy(w, coder, LEGACY, Person("accept", YES, after=wait))
        assert denied.envelope["reason"] == "approval_expired" and w.deployments() == []


FORM = {"elicitation": {"form": {}}}
ACCEPTED = {"approval": {"action": "accept", "content": YES}}


async def ask(client: Wire, **more: Any) -> dict[str, Any]:
    """The result of one raw call by a client that can be asked."""
    arguments = more.pop("arguments", DEPLOY)
    reply = await client.call(DEPLOY_TOOL, arguments, capabilities=FORM, **more)
    return await reply.result()


def reason(result: dict[str, Any]) -> Any:
    """Why a result is a denial."""
    return result["_meta"]["dev.mcp-authz/outcome"].get("reason")


async def asked_or_refused(client: Wire, state: Any, arguments: Any = None) -> Any:
    """`input_required`, or the reason why a call with this state is refused as a wrong parameter."""
    retry = {"requestState": state, "inputResponses": ACCEPTED}
    reply = await client.call(DEPLOY_TOOL, arguments or DEPLOY, capabilities=FORM, **retry)
    answer = await reply.end()
    if "result" in answer:
        return answer["result"]["resultType"]
    assert answer["error"]["code"] == -32602
    return answer["error"]["data"]["reason"]


async def test_a_state_that_was_altered_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with wire(w, coder, MODERN, "deploy") as client:
            state = (await ask(client))["requestState"]
            for place in (0, len(state) // 2, len(state) - 2):
                other = "A" if state[place] != "A" else "B"
                altered = state[:place] + other + state[place + 1 :]
                assert await asked_or_refused(client, altered) == "request_state"
            for odd in ("", "x", 7, None, {}, [state]):
                assert await asked_or_refused(client, odd) in {"input_required", "request_state"}, odd
        assert w.deployments() == []


async def test_a_state_is_good_for_one_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with wire(w, coder, MODERN, "deploy") as client:
            state = (await ask(client))["requestState"]
            closed = await ask(client, requestState=state, inputResponses={"approval": {"action": "cancel"}})
            assert closed["_meta"]["dev.mcp-authz/outcome"]["outcome"] == "held"
            assert reason(await ask(client, requestState=state, inputResponses=ACCEPTED)) == "replayed"
        assert w.deployments() == []


async def test_a_state_whose_call_has_run_runs_nothing_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with wire(w, coder, MODERN, "deploy") as client:
            state = (await ask(client))["requestState"]
            assert not (await ask(client, requestState=state, inputResponses=ACCEPTED)).get("isError")
            again = await ask(client, requestState=state, inputResponses=ACCEPTED)
            assert again["_meta"]["dev.mcp-authz/outcome"]["outcome"] == "replayed"
            w.clock.advance(timedelta(minutes=3))
            later = await ask(client, requestState=state, inputResponses=ACCEPTED)
            assert later["resultType"] == "input_required" and later["requestState"] != state
        assert len(w.deployments()) == 1


async def test_a_state_is_refused_for_other_arguments(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with wire(w, coder, MODERN, "deploy") as client:
            state = (await ask(client))["requestState"]
            other = {**DEPLOY, "version": "6.6.6"}
            assert await asked_or_refused(client, state, other) == "request_state"
        assert w.deployments() == []


async def test_a_state_is_refused_from_another_agent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        other = await w.ready("other", "deploy", interactive=True)
        async with wire(w, coder, MODERN, "deploy") as client:
            state = (await ask(client))["requestState"]
        async with wire(w, other, MODERN, "deploy") as client:
            assert await asked_or_refused(client, state) == "request_state"
        assert w.deployments() == []


async def test_a_state_is_refused_when_its_time_is_up(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"destructive": {"expires_minutes": 60}}) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with wire(w, coder, MODERN, "deploy") as client:
            state = (await ask(client))["requestState"]
            w.clock.advance(timedelta(minutes=15))
            client.headers["authorization"] = f"Bearer {await w.token(coder, 'deploy')}"
            assert await asked_or_refused(client, state) == "request_state"
        assert w.deployments() == []


async def test_an_answer_without_a_state_is_no_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with wire(w, coder, MODERN, "deploy") as client:
            await ask(client)
            assert (await ask(client, inputResponses=ACCEPTED))["resultType"] == "input_required"
        assert w.deployments() == []
