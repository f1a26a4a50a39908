"""A person's consent becomes a client's token: the authorization code, for its client, with its verifier, once."""

from __future__ import annotations

from pathlib import Path

from mcp_authz.principals import Mode
from tests.oauth.house import (
    SIGNED_IN,
    claims_of,
    house,
)


async def test_a_code_and_its_verifier_give_a_token_of_the_client_agent_for_the_person(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app, scope="pr issue:read")
        assert said["token_type"] == "Bearer" and said["subject"] == "user:alice" and said["refresh_token"]
        assert 0 < said["expires_in"] <= 600
        assert said["scope"] == "issue:read mcp:connect pr"
        claims = claims_of(said["access_token"])
        assert claims["client_id"] == app.id and claims["sub"] == "user:alice" and "akt" not in claims
        assert claims["act"]["sub"] == "agent:cursor@alice" and claims["mode"] == "delegated"
        assert claims["auth_time"] == int(SIGNED_IN.at.timestamp()) and claims["amr"] == ["swk", "user"]
        caller = await h.caller(said["access_token"])
        assert caller.session is not None and caller.session.mode is Mode.DELEGATED
        assert caller.session.purpose == "signed in through Cursor"
        assert (caller.agent.name, caller.key) == ("cursor@alice", None)


async def test_the_record_of_a_sign_in_names_person_client_and_grant(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app)
        (recorded,) = await h.events("sign-in")
        caller = await h.caller(said["access_token"])
        assert caller.grant is not None
        assert recorded["summary"] == "cursor@alice signed in for alice"
        assert (recorded["client"], recorded["grant"], recorded["subject"]) == (app.id, caller.grant.id, "user:alice")
