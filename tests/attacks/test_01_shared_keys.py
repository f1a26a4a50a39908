"""Row 1: a key belongs to one agent, or to one person, for good."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from mcp_authz.enrolment import Codes
from mcp_authz.errors import Conflict
from mcp_authz.hosted import HostedAgents
from mcp_authz.model import AgentName
from mcp_authz.rules.key_proof import enrolment_url, prove_key, rotation_url
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.elsewhere import elsewhere
from tests.oauth.house import OPERATOR, house, office


async def test_a_second_agent_with_the_same_key_is_not_enrolled(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        with pytest.raises(Conflict):
            await h.agents.add("twin", owner="alice", key=coder.key.public, by=OPERATOR)
        assert [agent.name for agent in await h.agents.list()] == ["coder"]


async def test_an_agent_does_not_rotate_to_a_key_that_somebody_has(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder, planner = await h.agent("coder"), await h.agent("planner")
        for taken in (coder, planner):
            with pytest.raises(Conflict):
                await h.agents.rotate("coder", taken.key.public, timedelta(0), by=OPERATOR)
        (key,) = (await h.agents.show("coder")).keys
        assert key.retires_at is None


async def test_an_approver_does_not_sign_with_the_key_of_an_agent(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        with pytest.raises(Conflict):
            await h.people.add_key("alice", coder.key.public, by=OPERATOR)


async def test_an_agent_does_not_log_in_with_the_key_of_an_approver(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.person("alice")
        key = PrivateKey.generate().public
        await h.people.add_key("alice", key, by=OPERATOR)
        with pytest.raises(Conflict):
            await h.agents.add("coder", owner="alice", key=key, by=OPERATOR)


@pytest.mark.parametrize("kind", ["agent", "key"])
async def test_a_key_is_not_given_on_when_its_holder_or_it_is_revoked(tmp_path: Path, kind: str) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        await h.revoke(kind, {"agent": "coder", "key": coder.key.public.thumbprint}[kind])
        with pytest.raises(Conflict):
            await h.agents.add("heir", owner="alice", key=coder.key.public, by=OPERATOR)


async def test_of_twenty_agents_that_enrol_one_key_at_once_one_has_it(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.person("alice")
        key, refused = PrivateKey.generate().public, list[str]()

        async def enrol(name: str) -> None:
            try:
                await h.agents.add(name, owner="alice", key=key, by=OPERATOR)
            except Conflict:
                refused.append(name)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(enrol, f"agent-{number}")
        assert len(refused) == 19 and len(await h.agents.list()) == 1


async def test_a_code_does_not_enrol_a_key_that_somebody_has(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner = await h.agent("planner")
        await h.agents.add("coder", owner="alice", by=OPERATOR)
        code = (await Codes(h.store, h.clock).make(AgentName("coder"), by=OPERATOR)).text
        where = enrolment_url(h.issuer, "coder")
        proof = prove_key(planner.key, agent="coder", audience=where, id="k", at=h.clock())
        answer = await h.http.post(where, data={"code": code, "proof": proof})
        assert answer.status_code == 409 and (await h.agents.show("coder")).keys == ()


async def test_an_agent_does_not_take_another_agents_key_over_by_itself(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, planner = await h.agent("coder"), await h.agent("planner")
        where = rotation_url(h.issuer, "coder")
        proof = prove_key(planner.key, agent="coder", audience=where, id="k", at=h.clock())
        answer = await h.post(coder, "/agents/coder/key", proof=proof)
        assert answer.status_code == 409 and len((await h.agents.show("coder")).keys) == 1


async def test_a_document_elsewhere_does_not_declare_a_key_that_somebody_has(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, office(tmp_path) as h:
        planner, own = await h.agent("planner"), PrivateKey.generate().public
        url = host.declare(planner.key.public)
        await h.agents.add("coder", owner="alice", key=own, metadata_url=url, by=OPERATOR)
        with pytest.raises(Conflict):
            await HostedAgents(h.store, h.clock, host.fetcher()).refresh("coder", by=OPERATOR)
        assert [key.thumbprint for key in (await h.agents.show("coder")).keys] == [own.thumbprint]
