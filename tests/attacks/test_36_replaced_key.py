"""Row 36: a replaced key stands behind what it signed before, for as long as its overlap; a revoked one for nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.client.delegation import delegate
from mcp_authz.errors import TokenRefused
from mcp_authz.principals import AgentName
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import Lost
from tests.oauth.elsewhere import elsewhere
from tests.oauth.house import JWT, OPERATOR, Actor, House, expect, house, refused

OVERLAP = timedelta(minutes=10)


async def _line(h: House) -> tuple[Actor, Actor, Actor, str]:
    planner = await h.agent("planner", depth=3, delegates_to=frozenset({AgentName("coder")}))
    coder = await h.agent("coder", depth=2, delegates_to=frozenset({AgentName("tester")}))
    tester = await h.agent("tester")
    await h.start(planner, lifetime=timedelta(hours=2))
    return planner, coder, tester, await h.root(planner)


async def _rotate(h: House, actor: Actor) -> Actor:
    """The same agent with its new key; a second passes, since what is signed counts seconds."""
    h.clock.advance(seconds=1)
    new = Actor(actor.name, PrivateKey.generate())
    await h.agents.rotate(actor.name, new.key.public, OVERLAP, by=OPERATOR)
    h.clock.advance(seconds=1)
    return new


async def test_what_the_key_signed_before_is_redeemed_until_the_overlap_is_over(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _line(h)
        chains = [h.derive(root, planner, coder) for _ in range(2)]
        await _rotate(h, planner)
        expect(await h.exchange(coder, chains[0], JWT))
        h.clock.advance(minutes=10)
        refused(await h.exchange(coder, chains[1], JWT), "invalid_request")


async def test_what_was_redeemed_in_time_counts_until_its_link_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _line(h)
        chain = h.derive(root, planner, coder, lifetime=timedelta(minutes=30))
        link = (await h.redeem(coder, chain))["link"]
        await _rotate(h, planner)
        h.clock.advance(minutes=20)
        for answer in (await h.redeem(coder, chain), await h.sign_in(coder)):
            caller = await h.caller(answer["access_token"])
            assert caller.chain is not None and caller.chain.leaf.id == link
            assert isinstance(await h.spend(caller), int)
        h.clock.advance(minutes=11)
        refused(await h.exchange(coder, chain, JWT), "invalid_request")


async def test_a_replaced_key_signs_nothing_new_although_its_overlap_lasts(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _line(h)
        new = await _rotate(h, planner)
        refused(await h.exchange(coder, h.derive(root, planner, coder), JWT), "invalid_request")
        refused(await h.post(planner, grant_type="client_credentials"), "invalid_client")
        expect(await h.exchange(coder, h.derive(await h.root(new), new, coder), JWT))


async def test_what_was_signed_before_the_first_of_two_rotations_is_not_what_came_between_them(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _line(h)
        before = h.derive(root, planner, coder)
        first = await _rotate(h, planner)
        between = h.derive(root, planner, coder)
        await h.revoke("key", first.key.public.thumbprint)
        await _rotate(h, planner)
        refused(await h.exchange(coder, between, JWT), "invalid_request")
        expect(await h.exchange(coder, before, JWT))


async def test_a_link_given_to_a_key_that_was_replaced_is_not_redeemed_by_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester, root = await _line(h)
        first = h.derive(root, planner, coder, depth=1)
        below = h.derive(first, coder, tester)
        new = await _rotate(h, coder)
        refused(await h.exchange(coder, first, JWT), "invalid_client")
        refused(await h.exchange(new, first, JWT), "invalid_request")
        expect(await h.exchange(tester, below, JWT))  # signed before, and the overlap lasts
        h.clock.advance(minutes=10)
        answer = await h.sign_in(new)  # the link is the agent's, and it is registered
        assert answer["subject"] == "user:alice"


@pytest.mark.parametrize("whose", ["planner", "coder"])
async def test_a_revoked_key_ends_what_it_signed_and_what_it_was_given_and_all_below_at_once(
    tmp_path: Path, whose: str
) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester, root = await _line(h)
        first = h.derive(root, planner, coder, depth=1)
        second = h.derive(first, coder, tester)
        tokens = [(await h.redeem(coder, first))["access_token"], (await h.redeem(tester, second))["access_token"]]
        callers = [await h.caller(token) for token in tokens]
        other = await h.delegated(planner, coder)
        key = {"planner": planner, "coder": coder}[whose].key.public.thumbprint
        await h.revoke("key", key)
        for token, caller in zip(tokens, callers, strict=True):
            with pytest.raises(TokenRefused):
                await h.caller(token)
            assert await h.spend(caller) == Lost(reason="revoked")
        refused(await h.exchange(tester, second, JWT), "invalid_grant")
        assert await h.store.open_links(tester.name, h.clock()) == ()
        with pytest.raises(TokenRefused):  # what the key asked the gateway for, or signed in with
            await h.caller(other)


async def test_a_new_key_of_a_delegator_does_not_bring_back_what_a_revoked_one_signed(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _line(h)
        known, unknown = h.derive(root, planner, coder), h.derive(root, planner, coder)
        token = (await h.redeem(coder, known))["access_token"]
        new = await _rotate(h, planner)
        await h.revoke("key", planner.key.public.thumbprint)
        with pytest.raises(TokenRefused):
            await h.caller(token)
        refused(await h.exchange(coder, known, JWT), "invalid_grant")
        refused(await h.exchange(coder, unknown, JWT), "invalid_request")
        expect(await h.exchange(coder, h.derive(await h.root(new), new, coder), JWT))


async def test_who_has_a_replaced_key_gains_little_by_writing_an_earlier_time_into_a_link(tmp_path: Path) -> None:
    """Times in a link are its signer's choice, so that only the gateway's own clock can end what the old key signs."""
    async with house(tmp_path) as h:
        planner, coder, _, root = await _line(h)
        link = (await h.redeem(coder, h.derive(root, planner, coder)))["link"]
        h.clock.advance(minutes=5)
        earlier = h.clock() - timedelta(minutes=1)
        await h.agents.rotate(planner.name, PrivateKey.generate().public, timedelta(hours=12), by=OPERATOR)
        h.clock.advance(seconds=limits.LINK_OVERLAP.total_seconds())
        forged = delegate(root, planner.key, to=coder.key.public, at=earlier, lifetime=timedelta(hours=1))
        refused(await h.exchange(coder, forged, JWT), "invalid_request")
        assert (await h.sign_in(coder))["link"] == link  # what was redeemed in time counts on


async def test_links_of_a_replaced_key_are_redeemed_for_a_short_while_however_long_its_overlap(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _line(h)
        chain = h.derive(root, planner, coder, lifetime=timedelta(hours=1))
        h.clock.advance(seconds=1)
        await h.agents.rotate(planner.name, PrivateKey.generate().public, timedelta(hours=12), by=OPERATOR)
        h.clock.advance(seconds=limits.LINK_OVERLAP.total_seconds() - 1)
        expect(await h.exchange(coder, chain, JWT))


async def test_a_key_that_left_its_document_signs_no_link_from_the_next_reading_on(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder, planner = await h.agent("coder"), Actor(AgentName("planner"), PrivateKey.generate())
        url = host.declare(planner.key.public)
        await h.agents.add(
            planner.name,
            owner="alice",
            ceiling=parse_scopes("pr"),
            depth=2,
            delegates_to=frozenset({coder.name}),
            metadata_url=url,
            by=OPERATOR,
        )
        await h.start(planner)
        root = await h.root(planner)
        expect(await h.exchange(coder, h.derive(root, planner, coder), JWT))
        host.declare(PrivateKey.generate().public)  # it was stolen, says the host
        early = h.derive(root, planner, coder)
        h.clock.advance(seconds=limits.METADATA_FRESH.total_seconds())
        for chain in (early, h.derive(root, planner, coder)):
            refused(await h.exchange(coder, chain, JWT), "invalid_request")


async def test_a_revoked_key_ends_what_it_asked_the_gateway_for_too(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, *_ = await h.family()
        token = await h.delegated(planner, coder)
        again = await _rotate(h, planner)
        later = await h.delegated(again, coder)
        await h.caller(token)  # what was asked for before a rotation goes on
        await h.revoke("key", planner.key.public.thumbprint)
        with pytest.raises(TokenRefused, match="key"):
            await h.caller(token)
        await h.caller(later)
