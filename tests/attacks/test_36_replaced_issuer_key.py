"""Row 36: who has a key of the gateway that was replaced, or the store's file, signs nothing with it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.errors import SignatureRefused, StoreError
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.key_rotation import KeyRotation
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.token import ACCESS_TOKEN
from tests.oauth.house import OPERATOR, House, house


def forged(h: House, token: str, key: PrivateKey) -> str:
    """The token as somebody with this key would issue it just now."""
    now = int(h.clock().timestamp())
    claims = {**jose.read(token).claims, "iat": now, "exp": now + 600}
    return jose.sign(claims, typ=ACCESS_TOKEN, key=key, kid=key.public.thumbprint)


async def test_a_stolen_key_that_is_replaced_at_once_signs_nothing_whatever_the_clock_says(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, *_ = await h.family()
        stolen, token = h.keys.signing, await h.token(planner)
        h.read(forged(h, token, stolen))
        await KeyRotation(h.store, h.clock).replace("issuer", by=OPERATOR)
        await h.keys.live.refresh()
        for hours in (0, -1, -1, 5):
            h.clock.advance(hours=hours)
            with pytest.raises(SignatureRefused, match="kid"):
                h.read(forged(h, token, stolen))


async def test_a_stolen_key_that_is_rotated_signs_until_the_last_honest_token_has_ended(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, *_ = await h.family()
        stolen, token = h.keys.signing, await h.token(planner)
        await KeyRotation(h.store, h.clock).rotate("issuer", by=OPERATOR)
        await h.keys.live.refresh()
        h.clock.ahead += limits.KEY_PUBLISHED + limits.TOKEN_KEY_OVERLAP
        with pytest.raises(SignatureRefused, match="kid"):
            h.read(forged(h, token, stolen))


async def test_who_can_write_the_store_brings_back_no_key_whose_seed_is_gone_and_brings_none_along(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as h:
        planner, *_ = await h.family()
        stolen, token = h.keys.signing, await h.token(planner)
        await KeyRotation(h.store, h.clock).replace("issuer", by=OPERATOR)
        path = tmp_path / "store.db"
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE signing_keys SET status = 'active', retires_at = NULL")
        await h.keys.live.refresh()
        assert len(h.keys.roots) == 1 and h.keys.kid != stolen.public.thumbprint
        with pytest.raises(SignatureRefused, match="kid"):
            h.read(forged(h, token, stolen))
        mine = PrivateKey.generate()
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(
                "INSERT INTO signing_keys SELECT ?, purpose, seed, made_at, signs_from, retires_at, status, public"
                " FROM signing_keys WHERE seed IS NOT NULL",
                (mine.public.thumbprint,),
            )
        with pytest.raises(StoreError, match="does not open"):
            await h.keys.live.refresh()
        with pytest.raises(StoreError, match="does not open"):
            await IssuerKeys.load(h.store, clock=h.clock)
        with pytest.raises(SignatureRefused, match="kid"):
            h.read(forged(h, token, mine))
