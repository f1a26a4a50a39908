"""A client renews its access token: each refresh token once, never more than the person agreed to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.errors import TokenRefused
from mcp_authz.model import ToolName
from mcp_authz.principals import AgentName, SessionId
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import Scope
from mcp_authz.step_ups import StepUp
from tests.oauth.house import App, House, claims_of, expect, house, refused


async def renewed(h: House, app: App, said: dict[str, Any], **form: Any) -> dict[str, Any]:
    """The answer to a refresh that is well."""
    return expect(await h.refresh(app, said["refresh_token"], **form))


@pytest.mark.parametrize("method", ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"])
async def test_a_refresh_token_gives_an_access_token_of_the_same_session_and_the_next_one(
    tmp_path: Path, method: Any
) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method=method)
        first = await h.signed_in(app, scope="pr issue:read")
        second = await renewed(h, app, first)
        assert second["session"] == first["session"] and second["scope"] == first["scope"]
        assert second["refresh_token"] != first["refresh_token"]
        assert (await h.caller(second["access_token"])).session is not None
        third = await renewed(h, app, second)
        assert (await h.caller(third["access_token"])).agent.name == "cursor@alice"
        assert [event["summary"] for event in await h.events("sign-in")] == [
            "cursor@alice signed in for alice",
            "cursor@alice renewed its sign-in for alice",
            "cursor@alice renewed its sign-in for alice",
        ]


async def test_a_refresh_token_that_comes_twice_ends_what_the_person_agreed_to_on_record(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        first = await h.signed_in(app)
        second = await renewed(h, app, first)
        refused(await h.refresh(app, first["refresh_token"]), "invalid_grant")
        with pytest.raises(TokenRefused, match="grant"):
            await h.caller(second["access_token"])
        refused(await h.refresh(app, second["refresh_token"]), "invalid_grant")
        (revoked,) = await h.events("revocation")
        assert revoked["summary"] == (
            "cursor@alice used the same refresh token twice, so somebody else may have it: "
            "what alice agreed to has ended"
        )


async def test_another_consent_of_the_same_client_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        first, other = await h.signed_in(app), await h.signed_in(app)
        await renewed(h, app, first)
        refused(await h.refresh(app, first["refresh_token"]), "invalid_grant")
        assert (await h.caller(other["access_token"])).session is not None
        await renewed(h, app, other)


async def test_nobody_else_can_use_a_refresh_token_or_end_anything_by_trying(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, other = await h.client(), await h.client("other", "client_secret_post")
        coder = await h.agent("coder")
        first = await h.signed_in(app)
        second = await renewed(h, app, first)
        for token in (first["refresh_token"], second["refresh_token"], "unknown", "x" * 300):
            refused(await h.refresh(other, token), "invalid_grant")
            refused(await h.post(coder, grant_type="refresh_token", refresh_token=token), "unauthorized_client")
        assert await h.events("revocation") == []
        await renewed(h, app, second)


async def test_the_client_authenticates_again_each_time(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_post")
        first = await h.signed_in(app)
        for wrong in ({"client_secret": None}, {"client_secret": "guess"}):
            refused(await h.refresh(app, first["refresh_token"], **wrong), "invalid_client")
        await renewed(h, app, first)


async def test_the_scope_may_be_narrowed_and_comes_back_and_is_never_widened(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        first = await h.signed_in(app, scope="pr issue:read", ceiling="pr issue:read deploy")
        refused(await h.refresh(app, first["refresh_token"], scope="pr deploy"), "invalid_scope")
        second = await renewed(h, app, first, scope="pr")
        assert second["scope"] == "mcp:connect pr"
        assert (await renewed(h, app, second))["scope"] == "issue:read mcp:connect pr"


async def test_a_public_clients_key_binds_both_tokens_and_stays(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, key = await h.client(), PrivateKey.generate()
        first = expect(await h.redeem_code(app, await h.agreed(app), headers=h.proof(key)))
        refused(await h.refresh(app, first["refresh_token"]), "invalid_grant")
        refused(await h.refresh(app, first["refresh_token"], headers=h.proof(PrivateKey.generate())), "invalid_grant")
        second = await renewed(h, app, first, headers=h.proof(key))
        assert claims_of(second["access_token"])["cnf"] == {"jkt": key.public.thumbprint}
        refused(await h.refresh(app, second["refresh_token"]), "invalid_grant")
        await renewed(h, app, second, headers=h.proof(key))


async def test_whoever_lacks_the_key_cannot_end_the_grant_with_a_used_token(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, key = await h.client(), PrivateKey.generate()
        first = expect(await h.redeem_code(app, await h.agreed(app), headers=h.proof(key)))
        second = await renewed(h, app, first, headers=h.proof(key))
        refused(await h.refresh(app, first["refresh_token"]), "invalid_grant")
        await renewed(h, app, second, headers=h.proof(key))


async def test_a_client_that_proves_itself_may_change_its_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_post")
        first = expect(await h.redeem_code(app, await h.agreed(app), headers=h.proof(PrivateKey.generate())))
        key = PrivateKey.generate()
        second = await renewed(h, app, first, headers=h.proof(key))
        assert claims_of(second["access_token"])["cnf"] == {"jkt": key.public.thumbprint}


async def test_a_session_that_was_idle_too_long_is_followed_by_another(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        first = await h.signed_in(app)
        h.clock.advance(hours=3)
        second = await renewed(h, app, first)
        assert second["session"] != first["session"]
        assert (await h.caller(second["access_token"])).session is not None
        assert (await renewed(h, app, second))["session"] == second["session"]


async def test_nothing_follows_a_session_that_somebody_ended(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        first = await h.signed_in(app)
        await h.revoke("session", first["session"])
        refused(await h.refresh(app, first["refresh_token"]), "invalid_grant")
        h.clock.advance(hours=13)
        refused(await h.refresh(app, first["refresh_token"]), "invalid_grant")


async def test_a_refresh_token_ends_with_the_grant_and_unused_after_thirty_days(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        short, long = await h.signed_in(app, days=1), await h.signed_in(app, days=60)
        h.clock.advance(days=2)
        refused(await h.refresh(app, short["refresh_token"]), "invalid_grant")
        h.clock.advance(days=29)
        refused(await h.refresh(app, long["refresh_token"]), "invalid_grant")
        assert await h.events("revocation") == []


@pytest.mark.parametrize("what", ["grant", "agent", "person", "client", "link"])
async def test_a_refresh_token_gives_nothing_once_what_it_stands_on_was_revoked(tmp_path: Path, what: str) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app)
        caller = await h.caller(said["access_token"])
        assert caller.grant is not None
        named = {
            "grant": caller.grant.id,
            "agent": "cursor@alice",
            "person": "alice",
            "client": app.id,
            "link": said["link"],
        }[what]
        await h.revoke(what, named)
        refused(await h.refresh(app, said["refresh_token"]), "invalid_client" if what == "client" else "invalid_grant")


async def test_of_ten_rotations_at_once_one_at_most_gives_a_token_and_the_family_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said, given = await h.signed_in(app), list[str]()

        async def refresh() -> None:
            answer = await h.refresh(app, said["refresh_token"])
            if answer.status_code == 200:
                given.append(answer.json()["refresh_token"])
            else:
                refused(answer, "invalid_grant")

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(refresh)
        assert len(given) == 1 and len(await h.events("revocation")) == 1
        refused(await h.refresh(app, given[0]), "invalid_grant")


async def test_a_refresh_asks_for_our_resource_and_for_no_other(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app)
        refused(await h.refresh(app, said["refresh_token"], resource="https://other.example/mcp"), "invalid_target")
        refused(await h.ask(app, grant_type="refresh_token"), "invalid_request")
        await renewed(h, app, said, resource=h.resource)


async def test_a_client_that_was_just_sent_back_for_a_fresh_sign_in_does_not_renew_the_old_one(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        first, other = await h.signed_in(app), await h.signed_in(app)
        stale = StepUp(
            agent=AgentName("cursor@alice"),
            session=SessionId(first["session"]),
            tool=ToolName("acme__deploy"),
            max_age=timedelta(seconds=300),
            at=h.clock(),
        )
        assert h.step_ups.note(stale)
        refused(await h.refresh(app, first["refresh_token"]), "invalid_grant")
        await renewed(h, app, other)
        h.clock.ahead += limits.STEP_UP_ONCE
        second = await renewed(h, app, first)  # nothing was lost: a person who does nothing keeps what they agreed to
        assert h.step_ups.note(replace(stale, max_age=None, scopes=(Scope("deploy"),), at=h.clock()))
        await renewed(h, app, second)
