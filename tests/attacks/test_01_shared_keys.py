"""Row 1: a key belongs to one agent, or to one person, for good."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.enrolment import Codes
from mcp_authz.errors import Conflict
from mcp_authz.hosted import HostedAgents
from mcp_authz.principals import AgentName, Thumbprint
from mcp_authz.rules.key_proof import enrolment_url, prove_key, rotation_url
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from tests.oauth.elsewhere import Elsewhere, elsewhere
from tests.oauth.house import JWT, OPERATOR, Actor, House, expect, house, office, refused


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


async def _hosted(h: House, host: Elsewhere, name: str) -> Actor:
    """An agent that signs in with the key that its document declares."""
    actor = Actor(AgentName(name), PrivateKey.generate())
    url = host.declare(actor.key.public, path=f"/{name}")
    await h.agents.add(name, owner="alice", metadata_url=url, ceiling=parse_scopes("pr"), by=OPERATOR)
    await h.sign_in(actor)
    return actor


async def _squat(h: House, host: Elsewhere, bad: Actor, key: PrivateKey) -> None:
    """The document of an agent declares a key that it does not have, and the gateway has read that."""
    host.declare(bad.key.public, key.public, path=f"/{bad.name}")
    await h.hosted.refresh(bad.name, by=OPERATOR)
    assert (await h.store.key(Thumbprint(key.public.thumbprint))) is not None


async def test_a_document_does_not_take_the_key_that_another_one_announces(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        await h.person("alice")
        good, bad, new = await _hosted(h, host, "good"), await _hosted(h, host, "bad"), PrivateKey.generate()
        host.declare(good.key.public, new.public, path="/good")  # public before it is used
        await _squat(h, host, bad, new)
        h.clock.advance(seconds=limits.METADATA_FRESH.total_seconds())
        await h.sign_in(Actor(good.name, new))
        with pytest.raises(Conflict, match="somebody already"):
            await h.hosted.refresh("bad", by=OPERATOR)
        refused(await h.post(Actor(bad.name, new), grant_type="client_credentials"), "invalid_client")


@pytest.mark.parametrize("way", ["code", "rotation", "command", "child"])
async def test_a_document_does_not_keep_a_key_from_who_has_it(tmp_path: Path, way: str) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        await h.person("alice")
        bad, new, name = await _hosted(h, host, "bad"), PrivateKey.generate(), AgentName("coder")
        await _squat(h, host, bad, new)
        if way == "code":
            await h.agents.add(name, owner="alice", by=OPERATOR)
            code = (await Codes(h.store, h.clock).make(name, by=OPERATOR)).text
            proof = prove_key(new, agent=name, audience=enrolment_url(h.issuer, name), id="k", at=h.clock())
            expect(await h.http.post(f"{h.issuer}/agents/{name}/enrol", data={"code": code, "proof": proof}))
        elif way == "rotation":
            proof = prove_key(new, agent=name, audience=rotation_url(h.issuer, name), id="k", at=h.clock())
            expect(await h.post(await h.agent(name), f"/agents/{name}/key", proof=proof))
        elif way == "command":
            await h.agents.add(name, owner="alice", key=new.public, by=OPERATOR)
        else:
            parent, name = await h.agent("planner", depth=2), AgentName("planner/worker")
            await h.start(parent)
            born = Actor(name, new)
            chain = h.derive(await h.root(parent), parent, born, child="worker")
            expect(await h.exchange(born, chain, JWT))
        await h.sign_in(Actor(name, new))
        held = await h.store.key(Thumbprint(new.public.thumbprint))
        assert held is not None and held.holder == f"agent:{name}"


async def test_a_link_that_is_given_to_a_key_never_becomes_that_of_an_agent_that_only_declares_it(
    tmp_path: Path,
) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        planner, tester = await h.agent("planner", depth=3), await h.agent("tester")
        bad, new = await _hosted(h, host, "bad"), PrivateKey.generate()
        await h.start(planner)
        await _squat(h, host, bad, new)
        between = Actor(AgentName("good"), new)  # it has not signed in with its new key yet
        first = h.derive(await h.root(planner), planner, between, depth=1)
        refused(await h.exchange(tester, h.derive(first, between, tester), JWT), "invalid_request")
        assert await h.store.open_links(bad.name, h.clock()) == ()
