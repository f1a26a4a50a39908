"""Client agents: what a stock client may ask its person for is listed, challenged with all scopes, and not for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_authz import limits
from mcp_authz.audit import sentence
from mcp_authz.model import Deny, RuleId
from mcp_authz.outcome import Refused
from mcp_authz.principals import AccessToken, AgentName
from mcp_authz.protocol.answers import Error, Places, Result, answer, in_stream
from mcp_authz.revocation import Revocation
from mcp_authz.rules.message import Message
from mcp_authz.rules.scope import Scope
from mcp_authz.rules.session_request import NAME
from tests.road.places import BOTH
from tests.road.test_observe import observed
from tests.road.wire import wire
from tests.world import MODERN, OPERATOR, ClientActor, World, world

PULL = {"owner": "acme", "repo": "api"}
NEEDED = "pr:read:acme:api"
TOOL = "acme__list_pull_requests"


async def call(w: World, agent: ClientActor, tool: str = TOOL, **arguments: Any) -> httpx2.Response:
    """One raw call with the agent's token."""
    return await w.raw_call(agent.access_token, tool, arguments or PULL)


def reason(answer: httpx2.Response) -> str:
    """The reason code of a denial that is a tool result."""
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"]["_meta"]["dev.mcp-authz/outcome"]["reason"])


@BOTH
async def test_what_the_person_did_not_agree_to_yet_is_challenged_with_everything_that_is_needed(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path) as w:
        cursor = await w.client_agent("cursor", "alice", scope="deploy:read")
        async with wire(w, cursor, mode) as client:
            refused = await client.call(TOOL, PULL)
            error = (await refused.end())["error"]
        asked = w.running.step_ups.of(cursor.name)
        wider = await w.client_agent("cursor", "alice", scope=f"deploy:read {NEEDED}")
        async with wire(w, wider, mode) as client:
            done = await (await client.call(TOOL, PULL)).result()
        decided = [(f["decision"], f.get("missing"), f["actor"]) for f in await w.decisions()]
    assert refused.status == 403 and error["code"] == 40300
    assert f'Bearer error="insufficient_scope", scope="deploy:read mcp:connect {NEEDED}"' in refused.challenge
    assert (asked.tool, asked.scopes, asked.session) == (TOOL, (NEEDED,), cursor.session)
    assert not done.get("isError")
    assert decided == [
        ("deny", ["deploy:read", "mcp:connect", NEEDED], "agent:cursor@alice"),
        ("permit", None, "agent:cursor@alice"),
    ]


async def test_a_client_agent_sees_what_its_person_could_agree_to_and_nothing_beyond(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cursor = await w.client_agent("cursor", "alice", scope="deploy:read", ceiling="deploy:read pr:read")
        async with wire(w, cursor, "2026-07-28") as client:
            listed = (await (await client.ask("tools/list")).result())["tools"]
        refused = await call(w, cursor, "acme__read_secret", environment="staging")
    assert {TOOL, "acme__list_deployments"} <= {tool["name"] for tool in listed}
    assert not {"acme__read_secret", "acme__open_pull_request"} & {tool["name"] for tool in listed}
    assert refused.status_code == 400 and "Unknown tool" in refused.text


async def test_what_nobody_could_agree_to_is_denied_and_nobody_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cursor = await w.client_agent("cursor", "alice", scope="deploy:read", ceiling="deploy:read pr:read:acme:web")
        refused = await call(w, cursor)
        assert w.running.step_ups.of(cursor.name) is None
    assert reason(refused) == "insufficient_scope"


async def test_an_agent_with_a_key_sends_nobody_to_a_page(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        token = await w.token(coder, "mcp:connect")
        answers = [(await w.raw_call(token, TOOL, PULL)).status_code for _ in range(limits.STEP_UPS_PER_HOUR + 1)]
        assert w.running.step_ups.of(coder.name) is None
    assert set(answers) == {403}


async def test_a_client_that_asks_too_often_is_told_to_go_on_without(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cursor = await w.client_agent("cursor", "alice", scope="deploy:read")
        for n in range(limits.STEP_UPS_PER_HOUR):
            assert (await call(w, cursor, owner="acme", repo=f"api-{n}")).status_code == 403
        denied = await call(w, cursor, owner="acme", repo="one-more")
        asked = w.running.step_ups.of(cursor.name)
        *_, last = await w.records("decision")
    assert reason(denied) == "step_up_limit" and "go on without" in denied.text
    assert asked.scopes == (f"pr:read:acme:api-{limits.STEP_UPS_PER_HOUR - 1}",)
    assert last.event.fields["reason"] == "step_up_limit" and "denied (step_up_limit" in sentence(last.event)


async def test_a_client_agent_that_is_only_observed_is_sent_back_all_the_same(tmp_path: Path) -> None:
    async with world(tmp_path, servers=observed(tmp_path)) as w:
        cursor = await w.client_agent("cursor", "alice", scope="deploy:read")
        assert (await call(w, cursor)).status_code == 403


async def test_ended_consent_is_no_step_up(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cursor = await w.client_agent("cursor", "alice", scope="deploy:read")
        await Revocation(w.store, w.clock).revoke("grant", cursor.grant, reason="test", by=OPERATOR)
        refused = await call(w, cursor)
        assert refused.status_code == 401 and w.running.step_ups.of(cursor.name) is None


async def test_a_client_agent_asks_for_no_session_and_is_not_shown_how(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cursor = await w.client_agent("cursor", "alice", scope="deploy:read")
        async with wire(w, cursor, MODERN) as client:
            listed = {tool["name"] for tool in (await (await client.ask("tools/list")).result())["tools"]}
        asked = await call(w, cursor, NAME, purpose="more", minutes=5)
        assert await w.store.holds() == ()
    assert NAME not in listed and reason(asked) == "client" and "in their browser" in asked.text


async def test_a_client_agent_whose_session_was_ended_is_not_told_to_ask_for_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        cursor = await w.client_agent("cursor", "alice", scope="pr")
        await Revocation(w.store, w.clock).revoke("session", cursor.session, reason="test", by=OPERATOR)
        denied = await call(w, cursor)
    assert reason(denied) == "consent_over" and NAME not in denied.text


STALE = Deny(code="stale_sign_in", because=(RuleId("fresh"),), max_age=timedelta(seconds=300))
MISSING = Deny(code="insufficient_scope", because=(RuleId("token"),), missing=(Scope("mcp:connect"), Scope("pr")))
PLACES = Places(resource="r", resource_metadata="m", holds="h")


@pytest.mark.parametrize(("deny", "code"), [(MISSING, 40300), (STALE, 40100)], ids=["scope", "sign-in"])
def test_where_no_status_can_be_said_any_more_the_same_is_said_in_the_stream(deny: Deny, code: int) -> None:
    token = AccessToken(
        id="t",
        client_id="c",
        actor=AgentName("cursor@alice"),
        key=None,
        subject="user:alice",
        session=None,
        link=None,
        scope=frozenset({Scope("mcp:connect"), Scope("pr")}),
        issued_at=datetime.now(UTC),
        expires_at=datetime.now(UTC),
    )
    tool, read = (
        Message(id=1, method=method, params={"name": "x"}, body={}) for method in ("tools/call", "resources/read")
    )
    refused = Refused(call_id="c_1", deny=deny)
    said, error = (in_stream(answer(refused, one, token, places=PLACES), one) for one in (tool, read))
    assert isinstance(said, Result) and isinstance(error, Error)
    envelope = said.result["_meta"]["dev.mcp-authz/outcome"]
    assert said.result["isError"] and "Make exactly the same call again" in said.result["content"][0]["text"]
    assert error.code == code and error.data == envelope
    assert envelope["scope"] == "mcp:connect pr" and envelope["reason"] == deny.code
