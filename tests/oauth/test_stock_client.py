"""The SDK's own OAuth provider, with an Ed25519 key and no code of ours, obtains what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
from mcp.client.auth.extensions.client_credentials import PrivateKeyJWTOAuthProvider, SignedJWTParameters

from tests.oauth.house import Actor, House, house


class Memory:
    """Where a stock client keeps its tokens."""

    def __init__(self) -> None:
        self.tokens: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return None

    async def set_client_info(self, client_info: Any) -> None:
        """There is nothing to register."""


def stock(h: House, actor: Actor, **claims: Any) -> httpx2.AsyncClient:
    signing = SignedJWTParameters(
        issuer=actor.name,
        subject=actor.name,
        signing_key=actor.key.to_pem(),
        signing_algorithm="EdDSA",
        additional_claims=claims or None,
    )
    auth = PrivateKeyJWTOAuthProvider(
        server_url=h.resource,
        storage=Memory(),
        client_id=actor.name,
        assertion_provider=signing.create_assertion_provider(),
        issuer=h.issuer,
    )
    return httpx2.AsyncClient(auth=auth, timeout=10)


async def test_a_stock_client_signs_in_with_its_key_after_the_challenge(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        session, link = await h.start(coder)
        async with stock(h, coder) as http:
            answer = await http.post(h.resource, json={})
        assert answer.json() == {"actor": "coder", "scope": ["mcp:connect"]}
        (caller,) = h.calls
        assert caller.session == session and caller.chain is not None and caller.chain.leaf == link


async def test_a_stock_client_steps_up_by_itself_when_a_call_needs_more(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.start(coder, "pr:write")
        async with stock(h, coder) as http:
            await http.post(h.resource, json={})
            answer = await http.post(h.resource, json={"needs": "pr:write:acme:api"})
        assert answer.json()["scope"] == ["mcp:connect", "pr:write:acme:api"]


async def test_a_stock_client_names_its_session_by_a_claim_when_it_has_several(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.person("bob")
        await h.start(coder, subject="alice")
        session, _ = await h.start(coder, subject="bob")
        async with stock(h, coder, session=session.id) as http:
            await http.post(h.resource, json={})
        (caller,) = h.calls
        assert caller.person is not None and caller.person.name == "bob"
