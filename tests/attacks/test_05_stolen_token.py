"""Row 5: an access token that is bound to a key is worth nothing to who has it without the key."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from mcp_authz.rules.keys import PrivateKey
from tests.attacks.attacker import LEGACY_VERSION
from tests.proofs import CALL, LIST, AnyKey, EcKey, Prover, is_error
from tests.world import world


@pytest.mark.parametrize("own", [PrivateKey.generate(), EcKey()], ids=["Ed25519", "P-256"])
async def test_a_stolen_bound_token_is_refused_however_the_thief_shows_it(tmp_path: Path, own: AnyKey) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        owner, thief = Prover(w, own), Prover(w, EcKey())
        token = await owner.token(coder, "pr:read")
        thief.nonce = owner.nonce  # nonces are no secret
        for body in (LIST, CALL):
            assert is_error(await thief.send_raw(body, token, scheme="Bearer"), "invalid_token")
            assert is_error(await thief.send_raw(body, token, thief.proof(token), scheme="Bearer"), "invalid_token")
            assert is_error(await thief.send_raw(body, token, thief.proof(token)), "invalid_token")
            assert is_error(await thief.send_raw(body, token), "invalid_dpop_proof")
            shown_as_owner = thief.proof(token, header={"jwk": owner_jwk(owner)})
            assert is_error(await thief.send_raw(body, token, shown_as_owner), "invalid_dpop_proof")
        assert await w.decisions() == []
        assert (await owner.send(CALL, token)).status_code == 200


async def test_a_captured_proof_is_worth_nothing_after_its_own_request(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        owner = Prover(w, EcKey())
        token = await owner.token(coder, "pr:read")
        for captured_at in (LIST, CALL):
            captured = owner.proof(token)
            first = await owner.send(captured_at, token, captured)
            assert first.status_code == 200 and "result" in first.text
            for body in (LIST, CALL):
                replayed = await owner.send_raw(body, token, captured)
                assert replayed.status_code == 401 or "used before" in replayed.text or "replayed" in replayed.text
        assert [fields["decision"] for fields in await w.decisions()].count("permit") == 1


async def test_a_proof_captured_at_the_token_endpoint_is_none_for_the_gateway_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        owner = Prover(w, EcKey())
        token = await owner.token(coder, "pr:read")
        at_token, at_gateway = owner.proof(path="/token"), owner.proof(token)
        assert is_error(await owner.send_raw(LIST, token, at_token), "invalid_dpop_proof")
        answer = await owner.sign_in(coder, at_gateway)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


async def test_a_token_that_is_bound_to_no_key_does_not_pass_for_a_bound_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        thief = Prover(w, EcKey())
        token = await w.token(coder, "pr:read")
        await thief.token(coder)  # for the nonce
        assert is_error(await thief.send_raw(CALL, token, thief.proof(token)), "invalid_token")
        assert await w.decisions() == []


async def test_a_stolen_bound_token_opens_and_ends_no_stream(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        owner, thief = Prover(w, EcKey()), Prover(w, EcKey())
        token = await owner.token(coder)
        thief.nonce = owner.nonce
        initialize = {
            "jsonrpc": "2.0",
            "id": 0,
            "method": "initialize",
            "params": {
                "protocolVersion": LEGACY_VERSION,
                "capabilities": {},
                "clientInfo": {"name": "owner", "version": "1"},
            },
        }
        begun = await owner.send(initialize, token, mcp_protocol_version=LEGACY_VERSION)
        session = begun.headers["mcp-session-id"]
        base = {"accept": "text/event-stream", "mcp-session-id": session, "mcp-protocol-version": LEGACY_VERSION}
        captured = owner.proof(token, method="POST")
        async with httpx2.AsyncClient() as http:
            for method in ("GET", "DELETE"):
                for shown in (
                    {"authorization": f"Bearer {token}"},
                    {"authorization": f"DPoP {token}", "dpop": thief.proof(token, method=method)},
                    {"authorization": f"DPoP {token}", "dpop": captured},
                ):
                    assert (await http.request(method, w.url, headers={**base, **shown})).status_code == 401
            shown = {"authorization": f"DPoP {token}", "dpop": owner.proof(token, method="DELETE")}
            assert (await http.request("DELETE", w.url, headers={**base, **shown})).status_code == 200
            assert (await http.request("DELETE", w.url, headers={**base, **shown})).status_code == 401


def owner_jwk(owner: Prover) -> dict[str, str]:
    """The public key of the owner, which every proof of theirs shows."""
    return owner.key.jwk if isinstance(owner.key, EcKey) else owner.key.public.jwk
