"""What a client learns of a token, and how it gives one back: only of its own, and nothing is an oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz.errors import TokenRefused
from tests.oauth.house import App, House, expect, house, refused

INACTIVE = {"active": False}


async def told(h: House, app: App, token: str) -> dict[str, Any]:
    return expect(await h.ask(app, "/introspect", token=token))


async def test_a_client_learns_what_its_tokens_stand_for(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_basic")
        said = await h.signed_in(app)
        access = await told(h, app, said["access_token"])
        assert (access["active"], access["scope"], access["sub"]) == (True, "mcp:connect pr", "user:alice")
        assert (access["client_id"], access["iss"], access["aud"]) == (app.id, h.issuer, h.resource)
        assert (access["session"], access["token_type"]) == (said["session"], "Bearer")
        refresh = await told(h, app, said["refresh_token"])
        assert (refresh["active"], refresh["client_id"]) == (True, app.id)


async def test_an_agent_learns_what_its_own_token_stands_for(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.start(coder)
        token = await h.token(coder)
        assert expect(await h.post(coder, "/introspect", token=token))["scope"] == "mcp:connect pr"
        other = await h.agent("other")
        assert expect(await h.post(other, "/introspect", token=token)) == INACTIVE


async def test_of_anybody_elses_tokens_and_of_nonsense_it_is_told_the_same(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, other = await h.client(method="client_secret_post"), await h.client("other", "client_secret_post")
        coder = await h.agent("coder")
        said = await h.signed_in(app)
        for token in (said["access_token"], said["refresh_token"], "nonsense", said["link"], app.secret):
            assert await told(h, other, token) == INACTIVE
            assert expect(await h.post(coder, "/introspect", token=token)) == INACTIVE
        assert await told(h, app, await h.token(coder)) == INACTIVE


async def test_a_client_that_proves_nothing_learns_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app)
        refused(await h.ask(app, "/introspect", token=said["access_token"]), "invalid_client")
        refused(await h.http.post(f"{h.issuer}/introspect", data={"token": said["access_token"]}), "invalid_client")


async def test_standing_counts_and_not_the_signature_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_post")
        said = await h.signed_in(app)
        await h.revoke("session", said["session"])
        assert await told(h, app, said["access_token"]) == INACTIVE
        assert await told(h, app, said["refresh_token"]) == INACTIVE
        used = await h.signed_in(app)
        expect(await h.refresh(app, used["refresh_token"]))
        assert await told(h, app, used["refresh_token"]) == INACTIVE
        assert (await told(h, app, used["access_token"]))["active"] is True
        h.clock.advance(minutes=11)
        assert await told(h, app, used["access_token"]) == INACTIVE


@pytest.mark.parametrize("how", ["grant", "person", "agent", "time"])
async def test_a_refresh_token_is_active_only_while_it_could_be_used(tmp_path: Path, how: str) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_post")
        said = await h.signed_in(app, days=60)
        caller = await h.caller(said["access_token"])
        assert caller.grant is not None
        assert (await told(h, app, said["refresh_token"]))["active"] is True
        if how == "time":
            h.clock.advance(days=30)
        else:
            await h.revoke(how, {"grant": caller.grant.id, "person": "alice", "agent": "cursor@alice"}[how])
        assert await told(h, app, said["refresh_token"]) == INACTIVE


@pytest.mark.parametrize("method", ["none", "client_secret_post", "private_key_jwt"])
@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_giving_a_token_back_ends_what_the_person_agreed_to(tmp_path: Path, method: Any, kind: str) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method=method)
        said, other = await h.signed_in(app), await h.signed_in(app)
        assert expect(await h.ask(app, "/revoke", token=said[kind])) == {}
        with pytest.raises(TokenRefused):
            await h.caller(said["access_token"])
        refused(await h.refresh(app, said["refresh_token"]), "invalid_grant")
        (revoked,) = await h.events("revocation")
        assert revoked["summary"] == "cursor@alice signed out: what alice agreed to has ended"
        assert (await h.caller(other["access_token"])).session is not None


async def test_nobody_gives_back_what_is_not_theirs(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, other = await h.client(), await h.client("other")
        planner, coder, _, root = await h.family()
        said = await h.signed_in(app)
        for token in (said["access_token"], said["refresh_token"], root.id, await h.token(planner), "nonsense"):
            assert expect(await h.ask(other, "/revoke", token=token)) == {}
        for token in (said["access_token"], said["refresh_token"], said["link"]):
            assert expect(await h.post(coder, "/revoke", token=token)) == {}
        assert await h.events("revocation") == []
        assert (await h.caller(said["access_token"])).session is not None


async def test_a_client_without_its_secret_gives_nothing_back(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_post")
        said = await h.signed_in(app)
        answer = await h.ask(app, "/revoke", token=said["access_token"], client_secret="guess")
        refused(answer, "invalid_client")
        assert (await h.caller(said["access_token"])).session is not None
