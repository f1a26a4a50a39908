"""The SDK's own OAuth provider, with an Ed25519 key and no code of ours, obtains what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import PrivateKeyJWTOAuthProvider, SignedJWTParameters
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata

from tests.oauth.house import CALLBACK, Actor, App, House, house


class Memory:
    """Where a stock client keeps its tokens."""

    def __init__(self, client_info: Any = None) -> None:
        self.tokens: Any = None
        self.client_info = client_info

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client_info

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


class Browser:
    """Alice's browser: where the client sends her she agrees, as the page would write it down."""

    def __init__(self, h: House, app: App) -> None:
        self._house, self._app = h, app
        self.asked: list[dict[str, str]] = []

    async def open(self, url: str) -> None:
        self.asked.append(dict(parse_qsl(urlsplit(url).query)))

    async def answer(self) -> AuthorizationCodeResult:
        asked = self.asked[-1]
        scope = "pr:read" if asked["scope"] == "mcp:connect" else asked["scope"].replace("mcp:connect", "").strip()
        bound = {"challenge": asked["code_challenge"], "redirect_uri": asked["redirect_uri"]}
        code = await self._house.agreed(self._app, scope=scope, **bound)
        return AuthorizationCodeResult(code=code, state=asked["state"], iss=self._house.issuer)


def provider(h: House, app: App, browser: Browser) -> OAuthClientProvider:
    """The SDK's own provider, with a client that was registered beforehand."""
    said = {"redirect_uris": [CALLBACK], "client_name": "Cursor", "token_endpoint_auth_method": app.registered.method}
    secret = None if app.registered.is_public else app.secret
    info = OAuthClientInformationFull(client_id=app.id, client_secret=secret, issuer=h.issuer, **said)
    return OAuthClientProvider(
        server_url=h.resource,
        client_metadata=OAuthClientMetadata(**said),
        storage=Memory(info),
        redirect_handler=browser.open,
        callback_handler=browser.answer,
    )


@pytest.mark.parametrize("method", ["none", "client_secret_basic", "client_secret_post"])
async def test_a_stock_client_signs_a_person_in_renews_and_steps_up(tmp_path: Path, method: Any) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method=method)
        browser = Browser(h, app)
        auth = provider(h, app, browser)
        async with httpx2.AsyncClient(auth=auth, timeout=10) as http:
            first = await http.post(h.resource, json={"needs": "pr:read"})
            assert first.json() == {"actor": "cursor@alice", "scope": ["mcp:connect", "pr:read"]}
            auth.context.token_expiry_time = 1.0  # the SDK's own clock says that it has expired
            assert (await http.post(h.resource, json={})).status_code == 200
            assert [event["summary"] for event in await h.events("sign-in")] == [
                "cursor@alice signed in for alice",
                "cursor@alice renewed its sign-in for alice",
            ]
            assert len(browser.asked) == 1
            more = await http.post(h.resource, json={"needs": "pr:write"})
            assert more.json()["scope"] == ["mcp:connect", "pr:read", "pr:write"]
        assert len(browser.asked) == 2 and browser.asked[1]["resource"] == h.resource
