"""Row 27: what an agent holds calls with is no way to answer them, and no agent is given leave to answer any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError

from mcp_authz.agents import Agents
from mcp_authz.authorization import RegisteredClient
from mcp_authz.changing import Changes, change_agent
from mcp_authz.errors import AuthzError
from mcp_authz.principals import AgentName, Caller, Proof
from mcp_authz.rules.deciding import ClientAnswer, may_decide
from mcp_authz.rules.scope import DECIDE, parse_scopes
from mcp_authz.rules.token import read_access_token
from tests.approving import DEPLOY, DEPLOYS, FORM, LIST, SCOPE, Approver, at_client, get, retry, said, text, waits
from tests.world import LEGACY, MODERN, OPERATOR, Actor, ClientActor, World, world

YES = {"answer": "approve"}
TOLD = "does not answer for"


async def answers(w: World, agent: ClientActor, hold: str) -> str:
    """What a client is told that tries to approve."""
    asked = await get(w, agent, hold, capabilities=FORM)
    if "error" in asked:
        return text(asked)
    return text(await get(w, agent, hold, capabilities=FORM, **retry(asked, YES)))


async def test_a_client_that_holds_a_call_does_not_answer_it_and_another_of_the_same_person_does(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, approval={"destructive": {"by": ["user:alice", "user:bob"]}}) as w:
        cursor = await w.client_agent("cursor", "alice", scope=f"deploy {SCOPE}")
        held = await w.raw_call(cursor.access_token, DEPLOYS, DEPLOY)
        hold = held.json()["result"]["_meta"]["dev.mcp-authz/outcome"]["hold"]
        again = await w.client_agent("cursor", "alice", scope=SCOPE)  # another sign-in of the same program
        of_bob = await w.client_agent("cursor", "bob", scope=SCOPE)  # and the same program of somebody else
        for agent in (cursor, again, of_bob):
            assert TOLD in await answers(w, agent, hold)
            assert hold in text(await get(w, agent, None, name=LIST))
        for mode in (MODERN, LEGACY):
            async with at_client(w, cursor, mode, elicitation_callback=Approver(YES)) as client:
                with pytest.raises(MCPError, match=TOLD):
                    await said(client, "decide-held-call", hold=hold)
        assert (await w.store.hold(hold)).verdicts == ()
        assert "is approved" in await answers(w, await w.client_agent("desk", "alice", scope=SCOPE), hold)


async def test_a_client_with_the_key_of_an_agent_in_the_chain_does_not_answer_for_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder, hold = await waits(w)
        caller = await identified(w, await w.client_agent("desk", "alice", scope=SCOPE, confirmation=coder.key.public))
        with pytest.raises(AuthzError, match="has the key of an agent"):
            await w.running.approvals.hear_other_client(hold, caller, ClientAnswer(approve=True))
        assert (await w.store.hold(hold)).verdicts == ()


async def test_a_client_that_brought_an_agent_its_grant_does_not_answer_for_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.agent("coder", ceiling="deploy", owner=await w.person("alice"))
        desk = await w.client_agent("desk", "alice", scope=SCOPE)
        grant = await w.grant("alice", "coder", "deploy")
        through: RegisteredClient = next(one for one in await w.store.clients() if one.handle == "desk")
        brought = replace(grant, id="g_brought", client=through.id)  # as `requested_actor` makes it
        await w.store.add_grant(brought, (await w.records("grant"))[-1].event)
        await w.start(brought)
        hold = (await w.call(coder, DEPLOYS, **DEPLOY)).hold
        assert "came to act" in await answers(w, desk, hold)


async def identified(w: World, agent: ClientActor) -> Caller:
    """Who a token is of, once the request has shown whatever else it takes."""
    return await who(w, agent.access_token)


async def who(w: World, token: str) -> Caller:
    claims = read_access_token(
        token, keys=w.running.issuer_keys.public, issuer=w.config.public_url, audience=w.url, now=w.clock()
    )
    return await w.running.sessions.identify(claims, Proof.BEARER if claims.confirmation is None else Proof.DPOP)


async def test_leave_counts_only_where_token_link_and_grant_have_it_by_name(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        caller = await identified(w, await w.client_agent("desk", "alice", scope=f"* {SCOPE}"))
        coder = await identified_agent(w)
    assert caller.chain is not None and caller.grant is not None and caller.session is not None
    assert may_decide(caller)
    without = parse_scopes("* holds holds:*")
    (link,) = caller.chain.links
    less = (
        replace(caller, token=replace(caller.token, scope=without)),
        replace(caller, chain=replace(caller.chain, links=(replace(link, scope=without),))),
        replace(caller, grant=replace(caller.grant, scope=without)),
        replace(caller, chain=replace(caller.chain, links=(link, link))),
        replace(caller, token=replace(caller.token, subject="user:bob")),
        replace(caller, session=None),
        replace(caller, person=None),
        replace(caller, key=coder.key),
        replace(caller, agent=replace(caller.agent, client=None)),
        coder,
    )
    assert [may_decide(one) for one in less] == [False] * len(less)


async def identified_agent(w: World) -> Caller:
    """An agent with a key, as if everything that it stands on had the scope."""
    caller = await who(w, await w.token(await w.ready("coder", "deploy"), "deploy"))
    assert caller.chain is not None and caller.grant is not None
    has = frozenset([DECIDE])
    links = tuple(replace(link, scope=has) for link in caller.chain.links)
    return replace(
        caller,
        token=replace(caller.token, scope=has),
        chain=replace(caller.chain, links=links),
        grant=replace(caller.grant, scope=has),
    )


async def test_no_agent_is_given_leave_whoever_asks_for_it_and_each_is_told_why(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "*", depth=1, delegates_to={"helper"})
        await w.agent("helper", ceiling="*")
        grant, has = await w.grant("alice", "coder", "*"), frozenset([DECIDE])
        sessions, agents = w.running.sessions, Agents(w.store, w.clock)
        tries = (
            agents.add("other", owner="alice", ceiling=has, by=OPERATOR),
            change_agent(w.store, w.clock, "coder", Changes(ceiling=has), roles={}, by=OPERATOR),
            change_agent(w.store, w.clock, "coder", Changes(roles=frozenset({"r"})), roles={"r": has}, by=OPERATOR),
            sessions.grant("alice", "coder", scope=has, by=OPERATOR),
            sessions.start(grant, purpose="test", scope=has, by=OPERATOR),
            sessions.start_own("coder", purpose="test", scope=has, by=OPERATOR),
        )
        for one in tries:
            with pytest.raises(AuthzError, match="on the consent page"):
                await one
        exchanged = await exchange(w, coder, "helper")
        assert exchanged["error"] == "invalid_scope" and "on the consent page" in exchanged["error_description"]
        asked = (await w.token_answer(coder, f"deploy {SCOPE}")).json()  # what is too much is left out of these
        assert DECIDE not in asked["scope"].split()
        agent = await w.store.agent(AgentName("coder"))
        assert agent is not None and DECIDE not in agent.ceiling


async def exchange(w: World, coder: Actor, to: str) -> dict[str, Any]:
    """What a delegator is told that asks for leave for another agent."""
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": await w.token(coder, "*"),
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "requested_actor": f"agent:{to}",
    }
    told: dict[str, Any] = (await w.token_answer(coder, SCOPE, **form)).json()
    return told


async def test_a_model_gets_nothing_decided_by_a_tool_or_by_getting_the_prompt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder, hold = await waits(w)
        desk = await w.client_agent("desk", "alice", scope=f"* {SCOPE}")
        for name in ("decide-held-call", "held-calls", "authz__decide-held-call", "authz__request_session"):
            arguments = {"hold": hold, "answer": "approve", "approve": True}
            assert (await w.raw_call(desk.access_token, name, arguments)).status_code in {200, 400}
        for capabilities in (None, FORM):
            for more in ({}, {"inputResponses": {"approval": {"action": "accept", "content": YES}}}):
                await get(w, desk, hold, capabilities=capabilities, **more)
        assert (await w.store.hold(hold)).verdicts == ()
        assert (await w.call(coder, DEPLOYS, **DEPLOY)).is_held
