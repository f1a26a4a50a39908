"""Tokens that are bound to a key: what the token endpoint asks for, remembers and says (RFC 9449 sections 5 and 8)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_authz import limits
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.house import ASSERTION_TYPE, EXCHANGE, TOKEN, Actor, House, claims_of, expect, house, refused
from tests.proofs import AnyKey, EcKey, proof, thumbprint_of


def shown(h: House, key: AnyKey, **said: Any) -> str:
    """A proof for the token endpoint."""
    return proof(key, **{"url": f"{h.issuer}/token", "at": h.clock(), **said})


async def post(h: House, actor: Actor, *proofs: str, path: str = "/token", **form: str) -> httpx2.Response:
    """One authenticated request with these `DPoP` headers; a sign-in unless the form says otherwise."""
    base = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": h.assertion(actor),
    }
    headers = [("DPoP", one) for one in proofs]
    return await h.http.post(f"{h.issuer}{path}", data={**base, **form}, headers=headers)


@pytest.mark.parametrize("key", [PrivateKey.generate(), EcKey()], ids=["Ed25519", "P-256"])
async def test_a_proof_binds_the_token_to_its_key_and_not_to_the_agents(tmp_path: Path, key: AnyKey) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.start(coder)
        said = expect(await post(h, coder, shown(h, key)))
        assert said["token_type"] == "DPoP"
        assert claims_of(said["access_token"])["cnf"] == {"jkt": thumbprint_of(key)}
        token = h.read(said["access_token"])
        assert (token.confirmation, token.key) == (thumbprint_of(key), coder.key.public.thumbprint)
        (recorded,) = await h.events("sign-in")
        assert recorded["confirmation"] == thumbprint_of(key)


async def test_without_a_proof_nothing_changes(tmp_path: Path) -> None:
    async with house(tmp_path, demand_nonce=True) as h:
        coder = await h.agent("coder")
        answer = await post(h, coder)
        said = expect(answer)
        assert said["token_type"] == "Bearer" and "cnf" not in claims_of(said["access_token"])
        assert "dpop-nonce" not in answer.headers


@pytest.mark.parametrize(
    "said",
    [
        {"method": "GET"},
        {"url": "https://evil.example/token"},
        {"jti": ""},
        {"iat": 0},
        {"header": {"typ": "JWT"}},
        {"header": {"alg": "none"}},
    ],
    ids=str,
)
async def test_a_proof_that_is_not_right_gives_no_token_and_no_hint_of_the_agent(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        refused(await post(h, coder, shown(h, coder.key, **said)), "invalid_dpop_proof")
        assert await h.events("sign-in") == []
        assert any(reason.startswith("invalid_dpop_proof") for reason in h.refusals)


async def test_two_proofs_are_refused_together_and_joined(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, key = await h.agent("coder"), EcKey()
        refused(await post(h, coder, shown(h, key), shown(h, key)), "invalid_dpop_proof")
        refused(await post(h, coder, f"{shown(h, key)}, {shown(h, key)}"), "invalid_dpop_proof")
        refused(await post(h, coder, ""), "invalid_dpop_proof")


async def test_a_proof_counts_once_and_only_with_an_agent_that_proves_itself(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, stranger, key = await h.agent("coder"), PrivateKey.generate(), EcKey()
        one = shown(h, key)
        refused(await post(h, Actor(coder.name, stranger), one), "invalid_client", 400)
        assert expect(await post(h, coder, one))["token_type"] == "DPoP"  # the stranger did not spend it
        refused(await post(h, coder, one), "invalid_dpop_proof")
        (recorded,) = [fields for fields in await h.events("sign-in") if fields["decision"] == "deny"]
        assert recorded["actor"] == "agent:coder" and "used before" in recorded["reason"]


async def test_two_keys_may_use_the_same_id(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        for key in (EcKey(), EcKey()):
            expect(await post(h, coder, shown(h, key, jti="same")))


async def test_a_nonce_is_asked_for_before_the_assertion_is_spent(tmp_path: Path) -> None:
    async with house(tmp_path, demand_nonce=True) as h:
        coder, key = await h.agent("coder"), EcKey()
        form = {"client_assertion": h.assertion(coder)}
        answer = await post(h, coder, shown(h, key), **form)
        refused(answer, "use_dpop_nonce")
        assert not h.refusals and await h.events("sign-in") == []  # it is how every sign-in begins
        again = await post(h, coder, shown(h, key, nonce=answer.headers["dpop-nonce"]), **form)
        assert expect(again)["token_type"] == "DPoP"
        assert again.headers["dpop-nonce"] == answer.headers["dpop-nonce"]


@pytest.mark.parametrize("demanded", [True, False])
async def test_a_nonce_that_is_stale_or_made_up_is_refused_with_the_one_that_counts(
    tmp_path: Path, demanded: bool
) -> None:
    async with house(tmp_path, demand_nonce=demanded) as h:
        coder, key = await h.agent("coder"), EcKey()
        first = (await post(h, coder, shown(h, key, nonce="made-up"))).headers["dpop-nonce"]
        expect(await post(h, coder, shown(h, key, nonce=first)))
        h.clock.advance(seconds=2 * limits.DPOP_NONCE / timedelta(seconds=1))
        answer = await post(h, coder, shown(h, key, nonce=first))
        refused(answer, "use_dpop_nonce")
        assert answer.headers["dpop-nonce"] != first
        expect(await post(h, coder, shown(h, key, nonce=answer.headers["dpop-nonce"])))


async def test_where_no_nonce_is_demanded_none_is_given_out(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        answer = await post(h, await h.agent("coder"), shown(h, EcKey()))
        assert expect(answer)["token_type"] == "DPoP" and "dpop-nonce" not in answer.headers


async def test_a_bound_token_is_exchanged_only_by_who_proves_its_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        key, thief = EcKey(), EcKey()
        token = expect(await post(h, planner, shown(h, key)))["access_token"]
        form = {"grant_type": EXCHANGE, "subject_token_type": TOKEN, "requested_actor": f"agent:{coder.name}"}
        form["subject_token"] = token
        for proofs in ((), (shown(h, thief),)):
            refused(await post(h, planner, *proofs, **form), "invalid_dpop_proof")
        expect(await post(h, planner, shown(h, key), **form))


async def test_a_bound_actor_token_counts_only_with_its_key_too(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        key, thief = EcKey(), EcKey()
        bound = expect(await post(h, planner, shown(h, key)))["access_token"]
        form = {"grant_type": EXCHANGE, "subject_token_type": TOKEN, "requested_actor": f"agent:{coder.name}"}
        form |= {"subject_token": await h.token(planner), "actor_token": bound, "actor_token_type": TOKEN}
        for proofs in ((), (shown(h, thief),)):
            refused(await post(h, planner, *proofs, **form), "invalid_dpop_proof")
        expect(await post(h, planner, shown(h, key), **form))
