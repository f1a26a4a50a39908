"""Row 3: a key id in a token finds one of the gateway's keys for this very use, or nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from mcp_authz import limits
from mcp_authz.errors import AuthzError
from mcp_authz.key_rotation import KeyRotation
from mcp_authz.live_keys import LiveKeys
from mcp_authz.rules import jose, strict_json
from mcp_authz.rules.keys import PrivateKey, b64url
from mcp_authz.rules.signed_link import parse_chain, write_chain
from tests.oauth.house import JWT, OPERATOR, House, expect, house, refused


def signed(claims: dict[str, Any], header: dict[str, Any], key: PrivateKey) -> str:
    """A token with this very header, whose signature over it is right."""
    signing_input = f"{b64url(strict_json.dump(header))}.{b64url(strict_json.dump(claims))}"
    return f"{signing_input}.{b64url(key.sign(signing_input.encode()))}"


def believed(h: House, token: str) -> bool:
    try:
        h.read(token)
    except AuthzError:
        return False
    return True


async def test_a_key_id_that_is_none_of_ours_is_no_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, *_ = await h.family()
        good = jose.read(await h.token(planner))
        own, attacker = h.keys.signing, PrivateKey.generate()
        kid = h.keys.kid
        assert believed(h, signed(good.claims, good.header, own))
        other_kids = [
            attacker.public.thumbprint, planner.key.public.thumbprint, "", " ", kid.swapcase(), f"{kid} ", f"{kid}\0",
            kid[:-1], f"{kid}=", "*", "0", "../keys/issuer", "file:///etc/passwd", "https://attacker.example/jwks.json",
            "' OR '1'='1", "issuer", "public", "__class__", None, 0, True, [], [kid], {}, {"kid": kid},
        ]  # fmt: skip
        for other in other_kids:
            for signer in (own, attacker, planner.key):
                assert not believed(h, signed(good.claims, {**good.header, "kid": other}, signer)), other
        without = {name: value for name, value in good.header.items() if name != "kid"}
        for header, signer in ((without, own), (without, attacker), (good.header, attacker)):
            assert not believed(h, signed(good.claims, header, signer))


async def test_a_key_for_context_tokens_signs_neither_access_tokens_nor_chains(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, *_ = await h.family()
        context = (await LiveKeys.load(h.store, "context", clock=h.clock)).signing
        kid = context.public.thumbprint
        access, root = jose.read(await h.token(planner)), jose.read(parse_chain(await h.root(planner))[0])
        assert not believed(h, signed(access.claims, {**access.header, "kid": kid}, context))
        assert not believed(h, signed(access.claims, access.header, context))
        honest = write_chain([signed(root.claims, root.header, h.keys.signing)])
        expect(await h.exchange(planner, honest, JWT))
        for header in (root.header, {**root.header, "kid": kid}):
            forged = write_chain([signed(root.claims, header, context)])
            refused(await h.exchange(planner, forged, JWT), "invalid_request")


async def test_a_new_key_does_not_lend_its_id_to_the_one_before_nor_a_retired_one_come_back(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, *_ = await h.family(lifetime=limits.SESSION_LIFETIME)
        first = h.keys.signing
        for _ in range(2):
            await KeyRotation(h.store, h.clock).rotate("issuer", by=OPERATOR)
            await h.keys.live.refresh()
            h.clock.advance(seconds=limits.KEY_PUBLISHED.total_seconds())
            good = jose.read(await h.token(planner))
            assert not believed(h, signed(good.claims, good.header, first))
        await h.keys.live.refresh()
        h.clock.ahead += limits.ROOT_KEY_OVERLAP
        session, _ = await h.start(await h.agent("late"), lifetime=timedelta(hours=1))
        now = int(h.clock().timestamp())
        header = {**good.header, "kid": first.public.thumbprint}
        old = {**good.claims, "iat": now, "exp": now + 60, "sid": session.id}
        assert not believed(h, signed(old, header, first))
        assert first.public.thumbprint not in set(h.keys.roots) | set(h.keys.public)
        assert first.public.thumbprint not in str(h.keys.jwks)
