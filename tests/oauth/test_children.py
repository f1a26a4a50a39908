"""Children: a parent's link names one and gives it a key; it lives as long as its links, and below its parent only."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.errors import TokenRefused
from mcp_authz.principals import Agent, AgentName, Proof
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import TYP, parse_chain, write_chain
from mcp_authz.store.ports import Event
from tests.oauth.house import JWT, OPERATOR, TOKEN, Actor, House, claims_of, expect, house, refused

WORKER = AgentName("planner/worker-7")


def worker(name: str = WORKER) -> Actor:
    """A child's name with a key that nobody has seen."""
    return Actor(AgentName(name), PrivateKey.generate())


async def _agent(h: House, name: str) -> Agent:
    agent = await h.store.agent(AgentName(name))
    assert agent is not None
    return agent


async def _let(h: House, name: str, **changes: object) -> None:
    changed = replace(await _agent(h, name), **changes)  # type: ignore[arg-type]
    await h.store.update_agent(changed, Event(kind="administration", at=h.clock()))


async def test_a_parents_link_enrols_its_child_which_then_acts_below_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, session, root = await h.family()
        await _let(h, "planner", labels={"team": "a"})
        child = worker()
        chain = h.derive(await h.root(planner), planner, child.key, child="worker-7", scope="pr:read")
        answer = await h.redeem(child, chain)
        said = claims_of(answer["access_token"])
        assert (said["client_id"], said["sub"], answer["subject"]) == (WORKER, "user:alice", "user:alice")
        assert (said["act"]["sub"], said["act"]["act"]["sub"]) == ("agent:planner/worker-7", "agent:planner")
        caller = await h.caller(answer["access_token"])
        assert caller.chain is not None and caller.chain.links[0] == root and caller.session == session
        made, parent = await _agent(h, WORKER), await _agent(h, "planner")
        assert (made.owner, made.labels, made.ceiling) == (parent.owner, {"team": "a"}, parent.ceiling)
        assert (made.parent, made.depth, made.ends_at) == ("planner", 0, caller.chain.leaf.expires_at)
        (enrolled,) = [fields for fields in await h.events("enrolment") if fields["agent"] == f"agent:{WORKER}"]
        assert (enrolled["by"], enrolled["key"]) == ("agent:planner", child.key.public.thumbprint)


async def test_an_enrolled_child_signs_in_with_its_key_while_it_lives(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        child = worker()
        chain = h.derive(await h.root(planner), planner, child.key, child="worker-7", lifetime=timedelta(minutes=5))
        await h.redeem(child, chain)
        assert (await h.sign_in(child))["subject"] == "user:alice"
        h.clock.advance(minutes=5)
        form = {"grant_type": "client_credentials"}
        refused(await h.post(child, **form), "invalid_client")
        refused(await h.exchange(child, chain, JWT), "invalid_grant")


async def test_a_child_has_no_token_in_its_own_name(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        child, root = worker(), await h.root(planner)
        first = await h.redeem(child, h.derive(root, planner, child.key, child="worker-7"))
        second = await h.redeem(child, h.derive(root, planner, child.key, lifetime=timedelta(minutes=90)))
        refused(await h.post(child, grant_type="client_credentials"), "invalid_grant")
        assert (await h.sign_in(child, claims={"delegation": second["link"]}))["link"] == second["link"]
        await h.revoke("link", first["link"])
        assert (await h.sign_in(child))["link"] == second["link"]
        await h.revoke("link", second["link"])
        refused(await h.post(child, grant_type="client_credentials"), "invalid_grant")


async def test_a_later_link_lengthens_the_childs_life(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        child, root = worker(), await h.root(planner)
        await h.redeem(child, h.derive(root, planner, child.key, child="worker-7", lifetime=timedelta(minutes=5)))
        await h.redeem(child, h.derive(root, planner, child.key, lifetime=timedelta(minutes=30)))
        h.clock.advance(minutes=6)
        assert (await h.sign_in(child))["subject"] == "user:alice"


@pytest.mark.parametrize(("kind", "name"), [("agent", "planner"), ("agent", WORKER), ("person", "alice")])
async def test_a_child_ends_with_its_parent_its_name_or_its_person(tmp_path: Path, kind: str, name: str) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        child = worker()
        chain = h.derive(await h.root(planner), planner, child.key, child="worker-7")
        token = (await h.redeem(child, chain))["access_token"]
        await h.revoke(kind, name)
        with pytest.raises(TokenRefused):
            await h.caller(token)
        answers = [await h.post(child, grant_type="client_credentials"), await h.exchange(child, chain, JWT)]
        assert [answer.status_code for answer in answers] == [400, 400]
        again = h.derive(chain.splitlines()[0], planner, worker().key, child="worker-7")
        refused(await h.exchange(worker(), again, JWT), "invalid_client")


async def test_a_child_ends_with_its_parents_link_or_session(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, root = await h.family()
        child = worker()
        token = await h.redeem(child, h.derive(await h.root(planner), planner, child.key, child="worker-7"))
        await h.revoke("link", root.id)
        with pytest.raises(TokenRefused):
            await h.caller(token["access_token"])
        refused(await h.post(child, grant_type="client_credentials"), "invalid_grant")


async def test_a_new_key_for_the_same_child_takes_the_place_of_the_older_one(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        old, new, root = worker(), worker(), await h.root(planner)
        chains = [h.derive(root, planner, old.key, child="worker-7")]
        before = (await h.redeem(old, chains[0]))["access_token"]
        h.clock.advance(seconds=2)
        chains.append(h.derive(root, planner, new.key, child="worker-7"))
        after = (await h.redeem(new, chains[1]))["access_token"]
        with pytest.raises(TokenRefused):
            await h.caller(before)
        assert (await h.caller(after)).agent.name == WORKER
        refused(await h.post(old, grant_type="client_credentials"), "invalid_client")
        refused(await h.exchange(old, chains[0], JWT), "invalid_grant")
        assert (await h.caller(after)).agent.name == WORKER


async def test_an_older_link_that_was_never_shown_does_not_bring_back_an_older_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        old, new, root = worker(), worker(), await h.root(planner)
        stale = h.derive(root, planner, old.key, child="worker-7")
        h.clock.advance(seconds=2)
        token = (await h.redeem(new, h.derive(root, planner, new.key, child="worker-7")))["access_token"]
        refused(await h.exchange(old, stale, JWT), "invalid_grant")
        assert (await h.caller(token)).key == new.key.public.thumbprint


async def test_nobody_but_the_parent_names_its_child(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        await _let(h, "coder", depth=1)
        named = worker("planner/worker-7")
        first = h.derive(await h.root(planner), planner, coder, depth=1)
        coders = h.derive(first, coder, named.key, child="worker-7")
        refused(await h.exchange(named, coders, JWT), "invalid_client")
        assert await h.store.agent(WORKER) is None
        answer = await h.redeem(Actor(AgentName("coder/worker-7"), named.key), coders)
        assert claims_of(answer["access_token"])["client_id"] == "coder/worker-7"


async def test_a_child_is_who_its_link_names_and_has_the_key_that_it_gives(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, session, root = await h.family()
        child, chain_root = worker(), await h.root(planner)
        chain = h.derive(chain_root, planner, child.key, child="worker-7")
        for name in ("planner/worker-8", "planner/", "planner", "coder/worker-7", "planner/worker-7/x", "/worker-7"):
            refused(await h.exchange(Actor(AgentName(name), child.key), chain, JWT), "invalid_client")
        refused(await h.exchange(worker(), chain, JWT), "invalid_client")
        unnamed = h.derive(chain_root, planner, child.key)
        refused(await h.exchange(child, unnamed, JWT), "invalid_client")
        refused(await h.exchange(child, chain_root, JWT), "invalid_client")
        for form in ({"grant_type": "client_credentials"}, {"path": "/revoke", "token": chain}):
            refused(await h.post(child, **form), "invalid_client")
        refused(await h.exchange(child, chain, TOKEN), "invalid_client")
        assert await h.store.links(session.id) == (root,) and await h.store.agent(WORKER) is None


async def test_a_strangers_attempts_are_counted_and_leave_nothing_in_the_store(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        chain = h.derive(await h.root(planner), planner, worker().key, child="worker-7")
        before = len(await h.store.records(limit=10_000))
        for _ in range(3):
            refused(await h.exchange(worker(), chain, JWT), "invalid_client")
        assert len(await h.store.records(limit=10_000)) == before and sum(h.refusals.values()) == 3


@pytest.mark.parametrize("name", ["Worker", "worker/8", "-worker", "wörker", "a" * 64, ""])
async def test_a_childs_name_follows_the_rule_of_names(tmp_path: Path, name: str) -> None:
    async with house(tmp_path) as h:
        planner, _, session, root = await h.family()
        key = PrivateKey.generate()
        *above, text = parse_chain(h.derive(await h.root(planner), planner, key, child="worker-7"))
        claims = {**jose.read(text).claims, "child": name}
        chain = write_chain([*above, jose.sign(claims, typ=TYP, key=planner.key)])
        refused(await h.exchange(Actor(AgentName(f"planner/{name}"), key), chain, JWT), "invalid_client")
        assert await h.store.links(session.id) == (root,)


async def test_a_child_delegates_nothing_and_names_no_children(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, _ = await h.family()
        child, grandchild = worker(), worker("planner/worker-7/x")
        chain = h.derive(await h.root(planner), planner, child.key, child="worker-7", depth=2)
        token = (await h.redeem(child, chain))["access_token"]
        links = await h.store.links(session.id)
        for form in ({"requested_actor": "coder"}, {"requested_token_type": JWT}):
            refused(await h.exchange(child, token, **form), "unauthorized_client")
        refused(await h.exchange(coder, h.derive(chain, child, coder), JWT), "access_denied")
        below = h.derive(chain, child, grandchild.key, child="x")
        for name in ("planner/worker-7/x", "worker-7/x", "planner/x"):
            refused(await h.exchange(Actor(AgentName(name), grandchild.key), below, JWT), "invalid_client")
        assert await h.store.links(session.id) == links


async def test_a_childs_part_of_a_chain_is_not_redeemed_by_who_stands_below_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family()
        child = worker()
        chain = h.derive(await h.root(planner), planner, child.key, child="worker-7", depth=1)
        refused(await h.exchange(coder, h.derive(chain, child, coder), JWT), "invalid_request")
        assert await h.store.links(session.id) == (root,) and await h.store.agent(WORKER) is None


async def test_what_the_parent_may_no_more_its_children_may_no_more(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        child = worker()
        await h.redeem(child, h.derive(await h.root(planner), planner, child.key, child="worker-7"))
        await _let(h, "planner", ceiling=parse_scopes("pr:read"), labels={"environment": "staging"})
        made = await _agent(h, WORKER)
        assert (made.ceiling, made.labels) == (parse_scopes("pr:read"), {"environment": "staging"})
        assert (await h.sign_in(child))["scope"] == "mcp:connect pr:read"


async def test_a_grant_of_a_child_is_worth_nothing_without_its_parent(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        child = worker()
        await h.redeem(child, h.derive(await h.root(planner), planner, child.key, child="worker-7"))
        _, link = await h.start(child)
        token = await h.token(child, claims={"delegation": link.id})
        with pytest.raises(TokenRefused, match="child"):
            await h.caller(token)


async def test_a_child_is_bound_to_the_proof_that_it_shows(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        child = worker()
        chain = h.derive(await h.root(planner), planner, child.key, child="worker-7")
        answer = expect(await h.exchange(child, chain, JWT, headers=h.proof(child.key)))
        assert answer["token_type"] == "DPoP"
        assert (await h.caller(answer["access_token"], Proof.DPOP)).agent.name == WORKER


async def _replaced(h: House, overlap: timedelta) -> tuple[Actor, Actor, Actor, str]:
    """A planner before and after its key was replaced, a child of today, and the root for the key of before."""
    planner, _, _, _ = await h.family()
    old, now, child = await h.root(planner), Actor(planner.name, PrivateKey.generate()), worker()
    h.clock.advance(seconds=2)
    await h.agents.rotate("planner", now.key.public, overlap, by=OPERATOR)
    await h.redeem(child, h.derive(await h.root(now), now, child, child="worker-7"))
    return planner, now, child, old


async def test_a_key_that_was_taken_from_the_parent_lets_nobody_in_as_its_child(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, child, old = await _replaced(h, timedelta(0))
        await h.revoke("key", planner.key.public.thumbprint)
        thief, link = worker(), (await h.sign_in(child))["link"]
        forged = h.derive(old, planner, thief, child="worker-7")
        named = {"subject_token": forged, "subject_token_type": JWT}
        refused(await h.exchange(thief, forged, JWT), "invalid_client")
        refused(await h.post(thief, grant_type="client_credentials", **named), "invalid_client")
        refused(await h.post(thief, "/revoke", token=link, **named), "invalid_client")
        refused(await h.post(thief, "/agents/planner/key", **named), "invalid_client")
        assert (await h.sign_in(child))["link"] == link


async def test_a_key_that_the_parent_replaced_names_no_child_from_then_on(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, old = await _replaced(h, timedelta(hours=1))
        h.clock.advance(minutes=5)
        late = worker("planner/worker-8")
        refused(await h.exchange(late, h.derive(old, planner, late, child="worker-8"), JWT), "invalid_client")


async def test_a_good_chain_lets_a_child_in_where_it_is_exchanged_and_nowhere_else(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, root = await h.family()
        child = worker()
        chain = h.derive(await h.root(planner), planner, child, child="worker-7")
        named = {"subject_token": chain, "subject_token_type": JWT}
        refused(await h.post(child, grant_type="client_credentials", **named), "invalid_client")
        refused(await h.post(child, "/revoke", token=root.id, **named), "invalid_client")
        await h.redeem(child, chain)


async def test_a_childs_replaced_key_ends_nothing_of_its_successor(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        root, one, two = await h.root(planner), worker(), worker()
        first = h.derive(root, planner, one, child="worker-7")
        await h.redeem(one, first)
        h.clock.advance(seconds=2)
        link = (await h.redeem(two, h.derive(root, planner, two, child="worker-7")))["link"]
        named = {"subject_token": first, "subject_token_type": JWT}
        refused(await h.post(one, "/revoke", token=link, **named), "invalid_client")
        refused(await h.exchange(one, first, JWT), "invalid_grant")
        assert (await h.sign_in(two))["link"] == link


async def test_a_key_that_is_another_agents_is_no_new_child(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        chain = h.derive(await h.root(planner), planner, coder, child="worker-7")
        refused(await h.exchange(Actor(WORKER, coder.key), chain, JWT), "invalid_client")
