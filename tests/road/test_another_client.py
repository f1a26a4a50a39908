"""An approver's own MCP client: what waits is listed there, shown whole, answered once, and nobody else is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp_types import PromptReference

from mcp_authz.model import HoldState
from mcp_authz.revocation import Revocation
from mcp_authz.rules import jose
from mcp_authz.rules.display import displayed
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.session_request import NAME
from tests.approving import (
    BOTH_WAYS,
    DECIDE_ONE,
    DEPLOY,
    DEPLOYS,
    FORM,
    LIST,
    SCOPE,
    Approver,
    ask,
    at_client,
    get,
    prompt,
    retry,
    said,
    text,
    verdicts,
    waits,
)
from tests.proofs import Prover
from tests.road.places import BOTH
from tests.world import LEGACY, MODERN, OPERATOR, world

HOLD = PromptReference(type="ref/prompt", name=DECIDE_ONE)
OTHER = {**DEPLOY, "version": "2.0.0"}
YES, NO = {"answer": "approve"}, {"answer": "deny"}
APPROVERS = {"approval": {"destructive": {"by": ["group:approvers"], "assurance": "client-other"}}}


@BOTH
async def test_a_person_lists_completes_and_approves_in_their_own_client(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, **APPROVERS) as w:
        await w.person("alice", "approvers")
        coder, hold = await waits(w)
        other = (await w.call(coder, DEPLOYS, **OTHER)).hold
        approver, desk = Approver(YES), await w.client_agent("desk", "alice", scope=f"pr:read {SCOPE}")
        async with at_client(w, desk, mode, elicitation_callback=approver) as client:
            assert [one.name for one in (await client.list_prompts()).prompts] == [LIST, DECIDE_ONE]
            listed = await said(client, LIST)
            typed = {"name": "hold", "value": hold[:9]}
            assert (await client.complete(ref=HOLD, argument=typed)).completion.values == [hold]
            told = await said(client, DECIDE_ONE, hold=hold[:9])
            assert hold not in await said(client, LIST)
        held = await w.store.hold(hold)
        ran = await w.call(coder, DEPLOYS, **DEPLOY)
        (record,) = await verdicts(w)
        (signed,) = await w.store.signed([record["statement"]])
    assert f"{hold}: coder asks to run acme__deploy (destructive), for alice; until " in listed and other in listed
    assert "version" not in listed and "2 calls wait for alice" in listed
    (question,) = approver.asked
    assert displayed(held) in question.message and "is approved. It runs once" in told
    assert not ran.is_error and len(w.deployments()) == 1
    statement = jose.read(signed).claims
    assert (record["person"], record["assurance"], statement["assurance"]) == (
        "user:alice",
        "client-other",
        "client-other",
    )
    assert statement["proof"] == {
        "type": "client",
        "client": "https://desk.example/client.json",
        "agent": "agent:desk@alice",
        "token": statement["proof"]["token"],
        "proof": "bearer",
    }


@BOTH
async def test_without_the_scope_by_its_name_the_prompts_do_not_exist(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        _, hold = await waits(w)
        desk = await w.client_agent("desk", "alice", scope="* holds holds:* *:decide")
        answers = []
        async with at_client(w, desk, mode, elicitation_callback=Approver(YES)) as client:
            assert (await client.list_prompts()).prompts == []
            for name in (LIST, DECIDE_ONE, "no-such-prompt"):
                with pytest.raises(MCPError) as refused:
                    await client.get_prompt(name, {"hold": hold})
                answers.append((refused.value.error.code, refused.value.error.message.replace(name, "NAME")))
            with pytest.raises(MCPError):
                await client.complete(ref=HOLD, argument={"name": "hold", "value": "h"})
        assert (await w.store.hold(hold)).verdicts == ()
    assert len(set(answers)) == 1, answers


ANSWERS: list[tuple[dict[str, Any], HoldState, str | None, str]] = [
    (NO, HoldState.DENIED, "deny", "is denied. It does not run."),
    ({**NO, "reason": "not today"}, HoldState.DENIED, "deny", "is denied"),
    ({"answer": "send back", "reason": "use 1.4.1"}, HoldState.DENIED, "send-back", "is sent back"),
    ({"answer": "send back"}, HoldState.PENDING, None, "sent back with a reason"),
    ({"approve": True}, HoldState.PENDING, None, "Nothing was answered"),
]


async def test_what_is_answered_is_what_is_recorded_and_the_reason_reaches_the_agent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (coder, _), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        for number, (answer, state, record, told) in enumerate(ANSWERS):
            before, call = len(await verdicts(w)), {**DEPLOY, "version": f"2.{number}.0"}
            hold = (await w.call(coder, DEPLOYS, **call)).hold
            asked = await get(w, desk, hold, capabilities=FORM)
            done = await get(w, desk, hold, capabilities=FORM, **retry(asked, answer))
            assert (await w.store.hold(hold)).state is state and told in text(done), text(done)
            new = [one["verdict"] for one in (await verdicts(w))[before:]]
            assert new == ([] if record is None else [record])
            if record is not None and "reason" in answer:
                again = await w.call(coder, DEPLOYS, **call)
                assert answer["reason"] in again.text and "alice" not in again.text


@BOTH
async def test_a_question_that_is_closed_answers_nothing_and_one_that_is_declined_denies(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path) as w:
        (_, hold), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        async with at_client(w, desk, mode, elicitation_callback=Approver(action="cancel")) as client:
            assert "Nothing was answered" in await said(client, DECIDE_ONE, hold=hold)
        assert (await w.store.hold(hold)).state is HoldState.PENDING
        async with at_client(w, desk, mode, elicitation_callback=Approver(action="decline")) as client:
            assert "is denied" in await said(client, DECIDE_ONE, hold=hold)
        assert (await w.store.hold(hold)).state is HoldState.DENIED


async def test_where_a_rule_wants_a_reason_the_form_says_so_and_a_yes_without_one_is_no_answer(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"destructive": {"reason": True}}) as w:
        (_, hold), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        asked = await get(w, desk, hold, capabilities=FORM)
        schema = asked["result"]["inputRequests"]["approval"]["params"]["requestedSchema"]
        assert "To approve, say why." in schema["properties"]["reason"]["description"]
        assert "needs a reason" in text(await get(w, desk, hold, capabilities=FORM, **retry(asked, YES)))
        asked = await get(w, desk, hold, capabilities=FORM)
        done = await get(w, desk, hold, capabilities=FORM, **retry(asked, {**YES, "reason": "I asked for it"}))
        assert "is approved" in text(done)
        assert (await verdicts(w))[0]["reason"] == "I asked for it"


async def test_a_request_for_a_session_is_narrowed_there(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")  # the person agreed to something before, or they had to sign in for this
        hold = (await w.call(coder, NAME, purpose="fix issue 41", minutes=60)).hold
        approver, desk = Approver({**YES, "minutes": 5}), await w.client_agent("desk", "alice", scope=SCOPE)
        async with at_client(w, desk, elicitation_callback=approver) as client:
            assert f"{hold}: coder asks for a session" in await said(client, LIST)
            assert "is approved" in await said(client, DECIDE_ONE, hold=hold)
        opened = await w.call(coder, NAME, purpose="fix issue 41", minutes=60)
        lengths = [one.expires_at - one.started_at for one in await w.store.sessions() if one.agent == "coder"]
    assert not opened.is_error and timedelta(minutes=5) in lengths
    assert {"minutes", "only_reading"} <= approver.asked[0].requested_schema["properties"].keys()


STRICT = {"approval": {"destructive": {"assurance": "passkey"}}}


async def test_rules_that_ask_for_more_lead_to_the_page_and_the_form_can_only_deny(tmp_path: Path) -> None:
    async with world(tmp_path, **STRICT) as w:
        (_, hold), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        page = f"{w.config.public_url}/holds/{hold}"
        both = await get(w, desk, hold, capabilities=BOTH_WAYS)
        opened = both["result"]["inputRequests"]["approval"]["params"]
        assert opened["mode"] == "url" and opened["url"] == page
        done = await get(w, desk, hold, capabilities=BOTH_WAYS, **retry(both, None))
        assert "The page" in text(done) and page in text(done)
        form = await get(w, desk, hold, capabilities=FORM)
        asked = form["result"]["inputRequests"]["approval"]["params"]
        assert asked["requestedSchema"]["properties"]["answer"]["enum"] == ["deny", "send back"]
        assert page in asked["message"]
        refused = await get(w, desk, hold, capabilities=FORM, **retry(form, YES))
        assert "stronger proof than `client-other`" in text(refused)
        assert (await w.store.hold(hold)).verdicts == ()


async def test_a_person_is_not_heard_for_half_of_their_rules(tmp_path: Path) -> None:
    weak, strong = {"by": ["subject"]}, {"by": ["user:alice"], "assurance": "passkey"}
    servers = {"destructive": weak, "strong": strong}
    async with world(tmp_path, approval=servers, policy=[str(_adds(tmp_path, "strong"))]) as w:
        (_, hold), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        asked = await get(w, desk, hold, capabilities=FORM)
        done = await get(w, desk, hold, capabilities=FORM, **retry(asked, YES))
        assert "stronger proof" in text(done) and (await w.store.hold(hold)).verdicts == ()


def _adds(directory: Path, rule: str) -> Path:
    """A policy that permits everything, and asks for this rule beside the floor's."""
    path = directory / "more.cedar"
    path.write_text(
        f'@id("more") @approval("{rule}") permit (principal, action, resource) when {{ context has session }};'
    )
    return path


@BOTH
async def test_a_client_that_cannot_be_asked_is_told_where_the_page_is(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        (_, hold), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        async with at_client(w, desk, mode) as client:
            told = await said(client, DECIDE_ONE, hold=hold)
        assert f"{w.config.public_url}/holds/{hold}" in told
        assert (await w.store.hold(hold)).state is HoldState.PENDING


@BOTH
async def test_what_is_done_on_the_page_that_was_opened_is_told(tmp_path: Path, mode: str) -> None:
    async def on_the_page() -> None:
        await w.answer(hold, by="alice")

    rule = {"destructive": {"by": ["subject"], "assurance": "signed-in"}}
    async with world(tmp_path, waiting={"seconds": 1}, approval=rule) as w:
        coder = await w.ready("coder", "deploy")
        with anyio.move_on_after(2):
            await w.raw_call(await w.token(coder), DEPLOYS, DEPLOY)
        ((hold, state),) = [(one.id, one.state) for one in await w.store.holds()]
        approver, desk = Approver(after=on_the_page), await w.client_agent("desk", "alice", scope=SCOPE)
        async with at_client(w, desk, mode, elicitation_callback=approver) as client:
            told = await said(client, DECIDE_ONE, hold=hold)
    assert state is HoldState.PENDING and "is approved" in told
    assert approver.asked[0].url == f"{w.config.public_url}/holds/{hold}"


async def test_a_stranger_and_a_guess_get_one_and_the_same_answer(tmp_path: Path) -> None:
    async with world(tmp_path, **APPROVERS) as w:
        await w.person("alice", "approvers")
        coder, hold = await waits(w)
        other = (await w.call(coder, DEPLOYS, **OTHER)).hold
        await w.person("mallory")
        stranger = await w.client_agent("desk", "mallory", scope=SCOPE)
        theirs = await w.client_agent("desk", "alice", scope=SCOPE)
        await w.answer(other, by="alice", approve=False)
        answers = [
            await get(w, stranger, hold, capabilities=FORM),
            await get(w, stranger, "h_nothing", capabilities=FORM),
            await get(w, stranger, None, capabilities=FORM),
            await get(w, theirs, other, capabilities=FORM),  # answered already
            await get(w, theirs, "h_nothing", capabilities=FORM),
        ]
        assert text(await get(w, stranger, None, name=LIST)) == "No call waits for mallory."
        completed = {"ref": {"type": "ref/prompt", "name": DECIDE_ONE}, "argument": {"name": "hold", "value": ""}}
        params = {**completed, "_meta": prompt("", None)["_meta"]}
        values = (await ask(w, stranger, "completion/complete", "", params))["result"]["completion"]["values"]
        denied = [fields for fields in await w.decisions() if fields.get("reason") == "unknown_hold"]
    said_of = {(one["error"]["code"], one["error"]["message"]) for one in answers}
    assert len(said_of) == 1 and next(iter(said_of))[0] == -32602 and values == []
    assert [one["actor"] for one in denied] == ["agent:desk@mallory"] * 3 + ["agent:desk@alice"] * 2


async def test_the_beginning_of_two_ids_names_neither(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (coder, hold), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        assert "result" in await get(w, desk, "h_", capabilities=FORM)
        await w.call(coder, DEPLOYS, **OTHER)
        assert "error" in await get(w, desk, "h_", capabilities=FORM)
        assert "result" in await get(w, desk, hold, capabilities=FORM)


async def test_an_answer_counts_once_for_one_hold_and_in_one_client(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder, hold = await waits(w)
        other = (await w.call(coder, DEPLOYS, **OTHER)).hold
        desk, phone = [await w.client_agent(name, "alice", scope=SCOPE) for name in ("desk", "phone")]
        asked = await get(w, desk, hold, capabilities=FORM)
        for agent, named in ((desk, other), (phone, hold)):
            refused = await get(w, agent, named, capabilities=FORM, **retry(asked, YES))
            assert "requestState is not valid" in text(refused)
        called = await w.raw_call(desk.access_token, DEPLOYS, DEPLOY, **retry(asked, YES))
        assert called.status_code == 403 or "requestState" in called.text
        closed = await get(w, desk, hold, capabilities=FORM, **retry(asked, None, "cancel"))
        assert "Nothing was answered" in text(closed)
        again = await get(w, desk, hold, capabilities=FORM, **retry(asked, YES))
        assert "has been used before" in text(again)
        assert await verdicts(w) == []


async def test_a_hold_that_was_settled_meanwhile_is_told_and_stays_as_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (_, hold), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        asked = await get(w, desk, hold, capabilities=FORM)
        await w.answer(hold, by="alice", approve=False)
        done = await get(w, desk, hold, capabilities=FORM, **retry(asked, YES))
        assert "is denied. It does not run." in text(done) and len(await verdicts(w)) == 1


async def test_two_of_two_is_told_that_it_waits_for_another(tmp_path: Path) -> None:
    rule = {"destructive": {"by": ["group:approvers"], "quorum": 2, "assurance": "client-other"}}
    async with world(tmp_path, approval=rule) as w:
        for name in ("alice", "bob"):
            await w.person(name, "approvers")
        _, hold = await waits(w)
        told = []
        for name in ("alice", "bob"):
            desk = await w.client_agent("desk", name, scope=SCOPE)
            asked = await get(w, desk, hold, capabilities=FORM)
            told.append(text(await get(w, desk, hold, capabilities=FORM, **retry(asked, YES))))
    assert "waits for another person" in told[0] and "is approved" in told[1]


async def test_a_client_whose_session_ends_while_its_person_thinks_decides_nothing(tmp_path: Path) -> None:
    async def stopped() -> None:
        await Revocation(w.store, w.clock).revoke("session", desk.session, reason="test", by=OPERATOR)

    async with world(tmp_path) as w:
        (_, hold), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        async with at_client(w, desk, LEGACY, elicitation_callback=Approver(YES, after=stopped)) as client:
            with pytest.raises(MCPError, match="withdrawn"):
                await client.get_prompt(DECIDE_ONE, {"hold": hold})
            with pytest.raises(MCPError, match="Unknown prompt"):
                await client.get_prompt(DECIDE_ONE, {"hold": hold})
        assert (await w.store.hold(hold)).verdicts == ()


async def test_a_client_that_is_stopped_while_its_person_thinks_decides_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (_, hold), desk = await waits(w), await w.client_agent("desk", "alice", scope=SCOPE)
        asked = await get(w, desk, hold, capabilities=FORM)
        await Revocation(w.store, w.clock).revoke("grant", desk.grant, reason="test", by=OPERATOR)
        refused = await get(w, desk, hold, capabilities=FORM, **retry(asked, YES))
        assert refused["error"]["code"] == 40100 and (await w.store.hold(hold)).verdicts == ()


async def test_a_request_needs_its_proof_and_each_proof_counts_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        prover = Prover(w, PrivateKey.generate())
        _, hold = await waits(w)
        bound = prover.key.public
        desk = await w.client_agent("desk", "alice", scope=SCOPE, confirmation=bound)
        body = {"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": prompt(DECIDE_ONE, hold, FORM)}
        bare = await w.post(
            body, desk.access_token, mcp_protocol_version=MODERN, mcp_method="prompts/get", mcp_name=DECIDE_ONE
        )
        await prover.send({**body, "method": "prompts/list"}, desk.access_token)  # says which nonce comes next
        proof = prover.proof(desk.access_token)
        asked = await prover.send(body, desk.access_token, proof)
        again = await prover.send(body, desk.access_token, proof)
        params = {**body["params"], **retry(asked.json(), YES)}
        done = await prover.send({**body, "params": params}, desk.access_token)
        (record,) = await verdicts(w)
        (signed,) = await w.store.signed([record["statement"]])
    assert bare.status_code == 401 and "input_required" in asked.text
    assert "has been used before" in again.text and "is approved" in done.text
    assert jose.read(signed).claims["proof"]["proof"] == "dpop"
