"""Row 59: one client that two people signed in to acts for each of them by that one's own consent only."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_authz.errors import TokenRefused
from tests.oauth.house import claims_of, expect, house, refused


async def test_each_token_and_refresh_token_of_a_client_is_of_the_person_who_agreed(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        for person in ("alice", "bob"):
            said = await h.signed_in(app, person)
            for token in (said, expect(await h.refresh(app, said["refresh_token"]))):
                caller = await h.caller(token["access_token"])
                assert (caller.agent.name, token["subject"]) == (f"cursor@{person}", f"user:{person}")
                assert caller.person is not None and caller.person.name == person
                assert claims_of(token["access_token"])["act"]["sub"] == f"agent:cursor@{person}"


async def test_what_ends_for_one_person_goes_on_for_the_other(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        alice, bob = await h.signed_in(app, "alice"), await h.signed_in(app, "bob")
        await h.revoke("agent", "cursor@alice")
        with pytest.raises(TokenRefused):
            await h.caller(alice["access_token"])
        refused(await h.refresh(app, alice["refresh_token"]), "invalid_grant")
        assert (await h.caller(bob["access_token"])).session is not None
        expect(await h.refresh(app, bob["refresh_token"]))


async def test_a_session_or_a_subject_that_the_request_names_changes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        alice, code = await h.signed_in(app, "alice"), await h.agreed(app, "bob")
        form = {"session": alice["session"], "subject": "user:alice", "requested_subject": "user:alice"}
        said = expect(await h.redeem_code(app, code, **form))
        assert said["subject"] == "user:bob" and said["session"] != alice["session"]
