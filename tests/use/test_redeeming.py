"""A signed chain becomes links of the store: all of it or nothing, by the rules of every delegation, and only once."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.delegating import Delegations
from mcp_authz.errors import AuthzError, Conflict, DelegationError, SignatureRefused, TokenRefused
from mcp_authz.hop import Hop
from mcp_authz.ids import new_uuid7
from mcp_authz.model import Deny, RuleId
from mcp_authz.principals import AgentName, Chain, Link, LinkId, Proof, Session, Thumbprint
from mcp_authz.rules import jose, link_id
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import TYP, parse_chain, write_chain
from mcp_authz.store.ports import Event, Lost
from tests.oauth.house import OPERATOR, Actor, House, office

MERGE = {"acme__merge": {"repo": {"constraint_type": "one_of", "values": ["api", "web"]}}}


@dataclass
class Line:
    """planner -> coder -> tester, with a session for alice; nothing is delegated yet."""

    h: House
    planner: Actor
    coder: Actor
    tester: Actor
    session: Session
    root: Link
    chain: str  # the signed root, for the planner's key
    path: Path

    async def redeem(self, actor: Actor | PrivateKey, chain: str) -> Link:
        key = actor.key if isinstance(actor, Actor) else actor
        texts = parse_chain(chain)
        verified = self.h.chains.verify(texts, Thumbprint(key.public.thumbprint))
        _, leaf = await self.h.chains.redeem(verified, texts)
        return leaf

    async def refused(
        self, actor: Actor | PrivateKey, chain: str, error: type[AuthzError], why: str | None = None
    ) -> None:
        """The chain is refused for this reason, and what was not there before is not there now."""
        before = await self.h.store.links(self.session.id)
        with pytest.raises(error, match=why):
            await self.redeem(actor, chain)
        assert await self.h.store.links(self.session.id) == before

    async def rendered(self, link: Link, actor: Actor) -> str:
        """The link as a signed root, for its holder's key."""
        chain = [link]
        while chain[0].parent is not None:
            above = await self.h.store.link(chain[0].parent)
            assert above is not None
            chain.insert(0, above)
        key = await self.h.store.key(Thumbprint(actor.key.public.thumbprint))
        assert key is not None
        return write_chain(await self.h.chains.root(link, self.session, Chain(links=tuple(chain)), key))

    async def caller(self, actor: Actor, link: LinkId) -> Any:
        """Who uses this link, as the gateway sees it at the next call."""
        agent = await self.h.store.agent(actor.name)
        assert agent is not None
        client = self.h.client_of(agent, actor)
        found = await self.h.store.link(link)
        assert found is not None
        answer = await self.h.issuing.access_token(client, None, (self.session, found), "test")
        return await self.h.caller(answer["access_token"])

    async def let(self, actor: Actor, **changes: Any) -> None:
        agent = await self.h.store.agent(actor.name)
        assert agent is not None
        await self.h.store.update_agent(replace(agent, **changes), Event(kind="administration", at=self.h.clock()))

    def alter(self, statement: str, *values: Any) -> None:
        """Somebody with the database file changes it behind the gateway's back."""
        with closing(sqlite3.connect(self.path / "store.db")) as db:
            assert db.execute(statement, values).rowcount > 0
            db.commit()


@asynccontextmanager
async def line(path: Path, **root: Any) -> AsyncIterator[Line]:
    async with office(path) as h:
        planner = await h.agent("planner", depth=3, delegates_to=frozenset({AgentName("coder")}))
        coder = await h.agent("coder", depth=2, delegates_to=frozenset({AgentName("tester")}))
        tester = await h.agent("tester", depth=1, delegates_to=frozenset({AgentName("planner"), AgentName("coder")}))
        session, link = await h.start(planner, **root)
        made = Line(h, planner, coder, tester, session, link, "", path)
        made.chain = await made.rendered(link, planner)
        yield made


async def test_a_chain_of_two_steps_becomes_two_links_with_what_was_signed(tmp_path: Path) -> None:
    async with line(tmp_path, scope="pr", tools=parse_tools(MERGE), max_calls=9) as at:
        first = at.h.derive(at.chain, at.planner, at.coder, scope="pr:write", depth=1, max_calls=5, reason="the fix")
        second = at.h.derive(first, at.coder, at.tester, lifetime=timedelta(minutes=5))
        leaf = await at.redeem(at.tester, second)
        root, middle, last = await at.h.store.links(at.session.id)
        assert (root, last) == (at.root, leaf)
        assert [link.holder for link in (middle, last)] == ["coder", "tester"]
        assert [link.depth for link in (middle, last)] == [1, 2] and (middle.max_depth, last.max_depth) == (2, 2)
        assert (last.scope, last.tools, last.max_calls) == (parse_scopes("pr:write"), parse_tools(MERGE), 5)
        assert middle.reason == "the fix" and last.expires_at - last.issued_at == timedelta(minutes=5)
        assert (middle.signed_by, middle.holder_key) == (
            at.planner.key.public.thumbprint,
            at.coder.key.public.thumbprint,
        )
        caller = await at.caller(at.tester, leaf.id)
        assert caller.chain.agents == ("planner", "coder", "tester")
        made = [fields for fields in await at.h.events("delegation") if fields["decision"] == "permit"]
        assert [(fields["from"], fields["holder"]) for fields in made] == [
            ("agent:planner", "agent:coder"),
            ("agent:coder", "agent:tester"),
        ]


async def test_a_chain_that_grew_is_taken_up_where_it_is_known(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        first = at.h.derive(at.chain, at.planner, at.coder, depth=1)
        middle = await at.redeem(at.coder, first)
        leaf = await at.redeem(at.tester, at.h.derive(first, at.coder, at.tester))
        assert await at.h.store.links(at.session.id) == (at.root, middle, leaf) and leaf.parent == middle.id


async def test_the_same_chain_twice_and_many_times_at_once_is_one_link(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        first = at.h.derive(at.chain, at.planner, at.coder, depth=1)
        chain, found = at.h.derive(first, at.coder, at.tester), list[LinkId]()

        async def present(actor: Actor, text: str) -> None:
            found.append((await at.redeem(actor, text)).id)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(present, at.tester, chain)
                group.start_soon(present, at.coder, first)
        await present(at.tester, chain)
        assert len(set(found)) == 2 and len(await at.h.store.links(at.session.id)) == 3
        assert len([fields for fields in await at.h.events("delegation") if "statement" in fields]) == 2


async def test_two_different_links_with_one_id_are_not_both_taken(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        chain = at.h.derive(at.chain, at.planner, at.coder)
        *above, text = parse_chain(chain)
        other = jose.sign({**jose.read(text).claims, "reason": "another"}, typ=TYP, key=at.planner.key)
        await at.redeem(at.coder, chain)
        await at.refused(at.coder, write_chain([*above, other]), SignatureRefused, "something else")


async def test_two_different_links_with_one_id_at_once_are_not_both_taken(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        chain, taken = at.h.derive(at.chain, at.planner, at.coder), list[str]()
        *above, text = parse_chain(chain)
        other = jose.sign({**jose.read(text).claims, "reason": "another"}, typ=TYP, key=at.planner.key)

        async def present(one: str) -> None:
            with suppress(Conflict, SignatureRefused):
                taken.append((await at.redeem(at.coder, one)).reason)

        async with anyio.create_task_group() as group:
            for one in (chain, write_chain([*above, other])):
                group.start_soon(present, one)
        assert len(taken) == 1 and len(await at.h.store.links(at.session.id)) == 2


async def test_an_id_that_the_gateway_gave_is_no_signed_links(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        online = await at.h.link(at.root, at.session, "coder")
        *above, text = parse_chain(at.h.derive(at.chain, at.planner, at.coder))
        same = jose.sign({**jose.read(text).claims, "jti": link_id.jti(online.id)}, typ=TYP, key=at.planner.key)
        await at.refused(at.coder, write_chain([*above, same]), SignatureRefused, "something else")


async def test_a_root_that_this_gateway_signed_for_no_link_of_its_store_is_refused(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        claims = jose.read(parse_chain(at.chain)[0]).claims
        for changes in ({"jti": new_uuid7(at.h.clock())}, {"sid": "s_other"}):
            forged = jose.sign({**claims, **changes}, typ=TYP, key=at.h.keys.signing, kid=at.h.keys.kid)
            await at.refused(at.coder, at.h.derive(forged, at.planner, at.coder), SignatureRefused, "first link")


async def test_a_root_for_a_key_that_is_not_its_holders_is_refused(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        claims = jose.read(parse_chain(at.chain)[0]).claims
        for key in (at.coder.key, PrivateKey.generate()):
            other = {**claims, "cnf": {"jwk": key.public.jwk}}
            forged = jose.sign(other, typ=TYP, key=at.h.keys.signing, kid=at.h.keys.kid)
            chain = at.h.derive(forged, Actor(AgentName("planner"), key), at.coder)
            await at.refused(at.coder, chain, SignatureRefused, "not its holder's")


async def test_a_root_of_another_gateway_is_refused(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        claims, other = jose.read(parse_chain(at.chain)[0]).claims, PrivateKey.generate()
        forged = jose.sign(claims, typ=TYP, key=other, kid=at.h.keys.kid)
        await at.refused(at.coder, at.h.derive(forged, at.planner, at.coder), SignatureRefused)


async def test_a_delegate_that_is_not_on_the_delegators_list_is_refused(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        await at.refused(
            at.tester, at.h.derive(at.chain, at.planner, at.tester), DelegationError, "may not delegate to"
        )
        (denied,) = [fields for fields in await at.h.events("delegation") if fields["decision"] == "deny"]
        assert (denied["from"], denied["holder"]) == ("agent:planner", "agent:tester")


async def test_a_key_that_nobody_has_is_refused(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        key = PrivateKey.generate()
        await at.refused(key, at.h.derive(at.chain, at.planner, key), SignatureRefused, "no agent has")


async def test_a_persons_key_is_refused(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        key = PrivateKey.generate()
        await at.h.people.add_key("alice", key.public, by=OPERATOR)
        await at.refused(key, at.h.derive(at.chain, at.planner, key), SignatureRefused, "no agent's")


async def test_more_than_the_delegates_ceiling_is_refused(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        await at.let(at.coder, ceiling=parse_scopes("pr:read"))
        await at.refused(at.coder, at.h.derive(at.chain, at.planner, at.coder), DelegationError, "ceiling")
        await at.redeem(at.coder, at.h.derive(at.chain, at.planner, at.coder, scope="pr:read"))


async def test_no_link_is_deeper_than_any_agent_above_may_reach(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        first = at.h.derive(at.chain, at.planner, at.coder, depth=2)
        await at.let(at.coder, depth=0)
        await at.refused(at.tester, at.h.derive(first, at.coder, at.tester), DelegationError, "depth")
        await at.let(at.coder, depth=2)
        await at.let(at.planner, depth=1)
        await at.refused(at.tester, at.h.derive(first, at.coder, at.tester), DelegationError, "depth")


async def test_nobody_occurs_twice_in_a_chain(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        two = at.h.derive(at.h.derive(at.chain, at.planner, at.coder, depth=2), at.coder, at.tester, depth=1)
        for who in (at.planner, at.coder):
            await at.refused(who, at.h.derive(two, at.tester, who), DelegationError, "in the chain already")


async def test_a_delegate_or_a_delegator_that_is_revoked_is_refused(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        chain = at.h.derive(at.h.derive(at.chain, at.planner, at.coder, depth=1), at.coder, at.tester)
        await at.h.revoke("agent", "coder")
        await at.refused(at.tester, chain, DelegationError, "not active")
        await at.h.revoke("agent", "planner")
        await at.refused(at.tester, chain, Conflict, "planner")


@pytest.mark.parametrize("what", ["session", "grant", "person", "link"])
async def test_what_ended_above_ends_a_chain_new_or_known(tmp_path: Path, what: str) -> None:
    async with line(tmp_path) as at:
        known = at.h.derive(at.chain, at.planner, at.coder)
        await at.redeem(at.coder, known)
        new = at.h.derive(at.chain, at.planner, at.coder)
        name = {"session": at.session.id, "grant": at.session.grant, "person": "alice", "link": at.root.id}[what]
        await at.h.revoke(what, name)
        for chain in (known, new):
            await at.refused(at.coder, chain, Conflict)


async def test_a_session_that_ran_idle_ends_its_chains(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        chain = at.h.derive(at.chain, at.planner, at.coder, lifetime=timedelta(hours=3))
        at.h.clock.ahead = limits.SESSION_IDLE + timedelta(minutes=1)
        await at.refused(at.coder, chain, Conflict, "session")


async def test_a_revoked_ancestor_stops_every_chain_below_it_and_no_other(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        first = at.h.derive(at.chain, at.planner, at.coder, depth=1)
        other = at.h.derive(at.chain, at.planner, at.coder, depth=1)
        chains = [at.h.derive(above, at.coder, at.tester) for above in (first, first, other)]
        middle = await at.redeem(at.coder, first)
        known = await at.redeem(at.tester, chains[0])
        await at.h.revoke("link", middle.id)
        for chain in chains[:2]:
            await at.refused(at.tester, chain, Conflict, "revoked")
        with pytest.raises(TokenRefused):
            await at.caller(at.tester, known.id)
        await at.redeem(at.tester, chains[2])


async def test_a_policy_that_denies_one_hop_leaves_nothing_of_the_chain_behind(tmp_path: Path) -> None:
    class NoTesters:
        async def denial(self, hop: Hop) -> Deny | None:
            because = (RuleId("no-testers"),)
            return Deny(code="policy", because=because) if hop.delegate.name == "tester" else None

    async with line(tmp_path) as at:
        at.h.chains._delegations = Delegations(store=at.h.store, clock=at.h.clock, policy=NoTesters())
        worker = PrivateKey.generate()
        first = at.h.derive(at.chain, at.planner, at.coder, depth=1)
        await at.refused(at.tester, at.h.derive(first, at.coder, at.tester), DelegationError, "no-testers")
        leaf = await at.redeem(worker, at.h.derive(first, at.coder, worker, child="worker-7"))
        assert leaf.holder == "coder/worker-7"
        with closing(sqlite3.connect(at.path / "store.db")) as db:
            assert db.execute("SELECT count(*) FROM statements").fetchone() == (3,)
        (denied,) = [fields for fields in await at.h.events("delegation") if fields["decision"] == "deny"]
        assert "no-testers" in denied["detail"] and denied["holder"] == "agent:tester"


async def test_calls_below_a_signed_link_are_taken_from_every_budget_above(tmp_path: Path) -> None:
    async with line(tmp_path, max_calls=4) as at:
        first = at.h.derive(at.chain, at.planner, at.coder, depth=1, max_calls=3)
        testers = await at.redeem(at.tester, at.h.derive(first, at.coder, at.tester, max_calls=2))
        coders = await at.redeem(at.coder, first)
        sibling = await at.redeem(at.coder, at.h.derive(at.chain, at.planner, at.coder))
        last = await at.caller(at.tester, testers.id)
        assert [isinstance(await at.h.spend(last), int) for _ in range(3)] == [True, True, False]
        middle = await at.caller(at.coder, coders.id)
        assert [isinstance(await at.h.spend(middle), int) for _ in range(2)] == [True, False]
        other = await at.caller(at.coder, sibling.id)
        assert [await at.h.spend(other) == Lost(reason="budget") for _ in range(2)] == [False, True]
        counted = [link.calls_made for link in await at.h.store.links(at.session.id)]
        assert sorted(counted) == [1, 2, 3, 4]


TAMPERED = {
    "scope": """'["secret:read"]'""",
    "tools": "NULL",
    "max_depth": "7",
    "expires_at": "expires_at + 1000000",
    "issued_at": "issued_at - 1000000",
    "max_calls": "1000",
    "reason": "'another'",
    "holder": "'tester'",
    "holder_key": "(SELECT thumbprint FROM keys WHERE holder = 'agent:tester')",
    "signed_by": "(SELECT thumbprint FROM keys WHERE holder = 'agent:coder')",
    "statement": "NULL",
    "statement ": "zeroblob(32)",
}


@pytest.mark.parametrize("column", TAMPERED)
async def test_a_signed_link_that_is_altered_in_the_database_is_refused_at_its_next_use(
    tmp_path: Path, column: str
) -> None:
    async with line(tmp_path, tools=parse_tools(MERGE), max_calls=9) as at:
        leaf = await at.redeem(at.coder, at.h.derive(at.chain, at.planner, at.coder, max_calls=2))
        user = at.tester if column == "holder" else at.coder
        if column != "holder":
            assert (await at.caller(at.coder, leaf.id)).chain is not None
        at.alter(f"UPDATE links SET {column.strip()} = {TAMPERED[column]} WHERE id = ?", leaf.id)  # noqa: S608
        with pytest.raises(AuthzError):
            await at.caller(user, leaf.id)


async def test_nothing_is_redeemed_below_a_link_that_was_altered(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        first = at.h.derive(at.chain, at.planner, at.coder, scope="pr:read", depth=1)
        middle = await at.redeem(at.coder, first)
        at.alter("""UPDATE links SET scope = '["pr"]' WHERE id = ?""", middle.id)
        for actor, chain in ((at.tester, at.h.derive(first, at.coder, at.tester)), (at.coder, first)):
            await at.refused(actor, chain, Conflict, "signed")


@pytest.mark.parametrize("text", ["'a.b.c'", "NULL", "(SELECT text FROM statements WHERE above IS NULL)"])
async def test_what_was_signed_is_read_again_after_a_restart_and_must_be_what_it_was(tmp_path: Path, text: str) -> None:
    async with line(tmp_path) as at:
        leaf = await at.redeem(at.coder, at.h.derive(at.chain, at.planner, at.coder))
        at.h.chains.signatures.forget()
        assert (await at.caller(at.coder, leaf.id)).chain is not None
        at.h.chains.signatures.forget()
        if text == "NULL":
            at.alter("DELETE FROM statements WHERE above IS NOT NULL")
        else:
            at.alter(f"UPDATE statements SET text = {text} WHERE above IS NOT NULL")  # noqa: S608
        with pytest.raises(TokenRefused):
            await at.caller(at.coder, leaf.id)


async def test_a_statement_moved_under_another_root_is_refused(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        leaf = await at.redeem(at.coder, at.h.derive(at.chain, at.planner, at.coder))
        again = await at.rendered(replace(at.root, scope=parse_scopes("pr:read")), at.planner)
        await at.redeem(at.coder, at.h.derive(again, at.planner, at.coder))
        at.h.chains.signatures.forget()
        with closing(sqlite3.connect(at.path / "store.db")) as db:
            roots = [row[0] for row in db.execute("SELECT digest FROM statements WHERE above IS NULL")]
        assert leaf.statement is not None and len(roots) == 2
        for root in roots:
            at.alter("UPDATE statements SET above = ? WHERE digest = ?", root, leaf.statement)
            at.h.chains.signatures.forget()
            try:
                found = await at.caller(at.coder, leaf.id)
            except TokenRefused:
                continue
            assert found.chain.leaf == leaf  # the root that it was made under


async def test_a_link_that_the_gateway_made_is_rendered_for_every_key_of_its_holder_as_the_same_link(
    tmp_path: Path,
) -> None:
    async with line(tmp_path) as at:
        online = await at.h.link(at.root, at.session, "coder", max_depth=2)
        before = await at.rendered(online, at.coder)
        new = Actor(at.coder.name, PrivateKey.generate())
        await at.h.agents.rotate("coder", new.key.public, timedelta(hours=1), by=OPERATOR)
        after = await at.rendered(online, new)
        for holder, chain in ((at.coder, before), (new, after)):
            claims = jose.read(parse_chain(chain)[0]).claims
            assert (claims["jti"], claims["cnf"]["jwk"]) == (link_id.jti(online.id), holder.key.public.jwk)
            assert (claims["del_depth"], claims["del_max_depth"]) == (0, 1)
            assert claims["act"] == {"sub": "agent:coder", "act": {"sub": "agent:planner"}}
        leaf = await at.redeem(at.tester, at.h.derive(after, new, at.tester))
        assert (leaf.parent, leaf.depth, leaf.max_depth) == (online.id, 2, 2)


async def test_a_signed_link_is_given_back_to_its_key_as_it_was_signed_and_rendered_for_a_newer_one(
    tmp_path: Path,
) -> None:
    async with line(tmp_path) as at:
        chain = at.h.derive(at.chain, at.planner, at.coder, depth=1)
        leaf = await at.redeem(at.coder, chain)
        assert await at.rendered(leaf, at.coder) == chain
        new = Actor(at.coder.name, PrivateKey.generate())
        await at.h.agents.rotate("coder", new.key.public, timedelta(hours=1), by=OPERATOR)
        below = await at.redeem(at.tester, at.h.derive(await at.rendered(leaf, new), new, at.tester))
        assert (below.parent, below.depth) == (leaf.id, 2)
        caller = await at.caller(at.tester, below.id)
        assert caller.chain.agents == ("planner", "coder", "tester") and caller.proof is Proof.BEARER
