"""Another issuer key while clients work: what the one before signed counts as long as it can live, and no longer."""

from __future__ import annotations

from dataclasses import replace as replace_fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import SignatureRefused, TokenRefused
from mcp_authz.key_rotation import KeyRotation
from mcp_authz.principals import Proof
from mcp_authz.rules import jose
from mcp_authz.signing_key import SigningKey
from tests.oauth.house import JWT, OPERATOR, House, expect, house, refused


def kid_of(token: str) -> str | None:
    return jose.read(token).kid


async def published(h: House) -> set[str]:
    answer = await h.http.get(f"{h.issuer}/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    keys: list[dict[str, Any]] = answer.json()["keys"]
    assert all(key.keys() == {"kty", "crv", "x", "kid", "use", "alg"} for key in keys)
    return {key["kid"] for key in keys}


async def rotate(h: House) -> SigningKey:
    """Another key; the gateway has seen it."""
    new = await KeyRotation(h.store, h.clock).rotate("issuer", by=OPERATOR, reason="once a year")
    await h.keys.live.refresh()
    return new


async def replace(h: House) -> SigningKey:
    """Another key at once; the gateway has seen it."""
    new = await KeyRotation(h.store, h.clock).replace("issuer", by=OPERATOR, reason="leaked")
    await h.keys.live.refresh()
    return new


async def test_the_new_key_is_published_before_it_signs_and_the_old_one_until_nothing_of_it_lives(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as h:
        planner, *_ = await h.family()
        old, new = h.keys.kid, (await rotate(h)).kid
        assert await published(h) == {old, new} and kid_of(await h.token(planner)) == old
        h.clock.advance(seconds=limits.KEY_PUBLISHED.total_seconds())
        assert await published(h) == {old, new} and kid_of(await h.token(planner)) == new
        h.clock.advance(seconds=limits.ROOT_KEY_OVERLAP.total_seconds())
        assert await published(h) == {new} == set(h.keys.roots)


async def test_access_tokens_from_before_count_until_their_end_and_new_ones_of_the_old_key_do_not(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as h:
        planner, *_ = await h.family()
        stolen, old = h.keys.signing, h.keys.kid
        await rotate(h)
        h.clock.advance(seconds=limits.KEY_PUBLISHED.total_seconds() - 1)
        last = await h.token(planner)
        assert kid_of(last) == old
        h.clock.advance(seconds=limits.ACCESS_TOKEN_LIFETIME.total_seconds() - 1)
        assert (await h.caller(last)).agent.name == "planner"
        h.clock.advance(minutes=2)
        now, claims = int(h.clock().timestamp()), jose.read(last).claims
        forged = jose.sign({**claims, "iat": now, "exp": now + 600}, typ="at+jwt", key=stolen, kid=old)
        with pytest.raises(SignatureRefused, match="not one of our keys"):
            h.read(forged)
        assert old in await published(h)  # chains of it count on


async def test_a_chain_from_before_is_redeemed_after_and_counts_until_it_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, *_ = await h.family(lifetime=limits.SESSION_LIFETIME)
        root, old = await h.root(planner), h.keys.kid
        await rotate(h)
        h.clock.advance(hours=1)
        assert kid_of(root.split("\n")[0]) == old != h.keys.kid
        link = (await h.redeem(coder, h.derive(root, planner, coder, lifetime=timedelta(hours=2))))["link"]
        h.chains.signatures.forget()  # as after a restart
        assert (await h.caller((await h.sign_in(coder))["access_token"])).token.link == link
        assert kid_of((await h.root(planner)).split("\n")[0]) == h.keys.kid


async def test_a_key_that_is_replaced_at_once_ends_tokens_and_chains_and_no_session(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, _ = await h.family()
        root = await h.root(planner)
        chain, unredeemed = h.derive(root, planner, coder), h.derive(root, planner, coder)
        token = (await h.redeem(coder, chain))["access_token"]
        claims, old = h.read(token), h.keys.kid
        await h.sessions.identify(claims, Proof.BEARER)
        new = await replace(h)
        assert await published(h) == {new.kid} and old not in h.keys.public and old not in h.keys.roots
        with pytest.raises(SignatureRefused, match="not one of our keys"):
            h.read(token)
        with pytest.raises(TokenRefused, match="the key that signed the token was withdrawn"):
            await h.sessions.identify(claims, Proof.BEARER)  # what was verified before is not remembered
        with pytest.raises(TokenRefused, match="not signed by a key of this gateway"):  # nor what the chain began with
            await h.sessions.identify(replace_fields(claims, signed_by=new.kid), Proof.BEARER)
        refused(await h.exchange(coder, unredeemed, JWT), "invalid_request")
        fresh = await h.sign_in(planner)
        assert fresh["session"] == session.id and kid_of(fresh["access_token"]) == new.kid
        again = h.derive(await h.root(planner), planner, coder)
        expect(await h.exchange(coder, again, JWT))


async def test_who_rotates_and_why_is_on_record_and_no_seed_is(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        first, second = h.keys.kid, await rotate(h)
        third = await replace(h)
        rotated, replaced = [record.event.fields for record in await h.store.records(kind="administration")][-2:]
        assert (rotated["by"], rotated["reason"], rotated["key"]) == (OPERATOR, "once a year", second.kid)
        assert rotated["replaces"] == [first] and replaced["replaces"] == [first, second.kid]
        assert (replaced["key"], replaced["reason"]) == (third.kid, "leaked")
