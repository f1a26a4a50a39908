"""Row 13: a chain that is too deep, too long or goes in a circle is refused before any of it is verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.principals import AgentName
from mcp_authz.rules import jose, link_claims
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.signed_link import TYP, parse_chain, write_chain
from tests.oauth.house import JWT, Actor, House, claims_of, expect, house, refused


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was put to the cryptography, call by call."""
    calls, verify = list[bytes](), PublicKey.verify

    def counted(self: PublicKey, message: bytes, signature: bytes) -> None:
        calls.append(message)
        verify(self, message, signature)

    monkeypatch.setattr(PublicKey, "verify", counted)
    return calls


async def _deep(h: House, links: int) -> tuple[Any, str]:
    """A chain of this many links, each from one agent to the next, and who was given the last."""
    names = [f"agent-{number}" for number in range(links)]
    actors = [
        await h.agent(name, depth=7, delegates_to=frozenset(map(AgentName, names[number + 1 :])))
        for number, name in enumerate(names)
    ]
    await h.start(actors[0])
    chain = await h.root(actors[0])
    for number in range(1, links):
        chain = h.derive(chain, actors[number - 1], actors[number], depth=7 - number)
    return actors[-1], chain


async def test_the_deepest_chain_there_may_be_is_redeemed(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        leaf, chain = await _deep(h, limits.CHAIN_LINKS)
        answer = await h.redeem(leaf, chain)
        act, agents = claims_of(answer["access_token"])["act"], 0
        while act:
            act, agents = act.get("act"), agents + 1
        assert agents == limits.CHAIN_LINKS == len(await h.store.links(answer["session"]))
        refused(await h.exchange(leaf, answer["access_token"], requested_actor="agent-0"), "access_denied")


async def test_a_deeper_one_is_refused_before_any_cryptography(tmp_path: Path, verified: list[bytes]) -> None:
    async with house(tmp_path) as h:
        leaf, chain = await _deep(h, limits.CHAIN_LINKS)
        claims = {**claims_of(parse_chain(chain)[-1]), "del_depth": limits.CHAIN_LINKS}
        deeper = chain + jose.sign(claims, typ=TYP, key=leaf.key) + "\n"
        verified.clear()
        refused(await h.exchange(leaf, deeper, JWT), "invalid_request")
        assert len(verified) == 1  # of the client's own assertion


@pytest.mark.parametrize("links", [1, 2, limits.CHAIN_LINKS, 2000])
async def test_a_megabyte_of_links_is_refused_before_any_cryptography(
    tmp_path: Path, verified: list[bytes], links: int
) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        bomb = "\n".join(["e30.e30." + "A" * (1_000_000 // links)] * links)
        refused(await h.exchange(coder, bomb, JWT), "invalid_request", 413)
        just = bomb[: limits.CHAIN_BYTES + 1]
        refused(await h.exchange(coder, just, JWT), "invalid_request")
        assert len(verified) == 1
        refused(await h.post(coder, "/revoke", token=bomb), "invalid_request", 413)
        expect(await h.post(coder, "/revoke", token=just))
        assert len(verified) == 2


async def test_a_child_without_an_account_is_not_verified_for_a_bomb(tmp_path: Path, verified: list[bytes]) -> None:
    async with house(tmp_path) as h:
        child, chain = await _deep(h, 2)
        bomb = write_chain([*parse_chain(chain)] * limits.CHAIN_LINKS)
        claims = h.assertion(child, iss="agent-0/worker-7", sub="agent-0/worker-7")
        verified.clear()
        refused(await h.exchange(child, bomb, JWT, client_assertion=claims), "invalid_client")
        assert verified == []


async def test_a_chain_that_goes_in_a_circle_is_none(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        leaf, chain = await _deep(h, 3)
        first, second, third = parse_chain(chain)
        for links in ([first, second, third, second, third], [first, second, first, second], [second, second]):
            refused(await h.exchange(leaf, write_chain(links), JWT), "invalid_request")


async def test_a_link_says_no_depth_that_is_beyond_the_bound(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family()
        *above, link = parse_chain(h.derive(await h.root(planner), planner, coder))
        for depth in (8, 10**6, 2**53 - 1, -1, 1.5, True, "1"):
            forged = jose.sign({**claims_of(link), "del_max_depth": depth}, typ=TYP, key=planner.key)
            refused(await h.exchange(coder, write_chain([*above, forged]), JWT), "invalid_request")
        assert await h.store.links(session.id) == (root,)


async def test_who_names_itself_a_child_costs_few_verifications_whatever_chain_it_brings(
    tmp_path: Path, verified: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[object]()
    async with house(tmp_path) as h:
        planner = await h.agent("planner", depth=6)
        await h.start(planner)
        root = await h.root(planner)
        stranger, named = PrivateKey.generate(), AgentName("planner/x")
        chain, tools = h.derive(root, planner, stranger, depth=5), parse_tools({"t": {}})
        for depth in (4, 3, 2):
            chain = h.derive(chain, Actor(named, stranger), stranger, tools=tools, depth=depth)
        chain = h.derive(chain, Actor(named, stranger), stranger, child="x", tools=tools)
        monkeypatch.setattr(link_claims, "parse_tools", read.append)
        for key in (PrivateKey.generate(), stranger):
            form = {"client_assertion": h.assertion(Actor(named, key))}
            verified.clear()
            refused(await h.exchange(Actor(named, key), chain, JWT, **form), "invalid_client")
            assert len(verified) == 1 and read == []


@pytest.mark.parametrize("what", ["agent", "key", "link"])
async def test_an_old_root_is_not_worth_a_verification_of_what_was_hung_below_it(
    tmp_path: Path, verified: list[bytes], what: str
) -> None:
    async with house(tmp_path) as h:
        planner, _, _, root = await h.family()
        child = Actor(AgentName("planner/x"), PrivateKey.generate())
        chain = h.derive(await h.root(planner), planner, child, child="x")
        await h.revoke(what, {"agent": "planner", "key": planner.key.public.thumbprint, "link": root.id}[what])
        verified.clear()
        answer = await h.exchange(child, chain, JWT)
        assert answer.json()["error"] in ("invalid_client", "invalid_grant")
        assert len(verified) <= 2  # the assertion, and the last link where the parent's key still counts
