"""The page of who may act for a person, and the buttons that end it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from mcp_authz.revocation import Revocation
from tests.web.asking import agree, asks, client, grants
from tests.web.authenticator import visiting
from tests.web.test_consent import words
from tests.world import OPERATOR, world

READ, MERGE = "pr:read:*:*", "pr:merge:*:*"


async def test_a_person_sees_what_they_agreed_to_and_nobody_elses(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.ready("coder", "deploy:production")
        await w.ready("other", "secret:read", subject="bob")
        by = await client(w)
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob:
            await agree(alice, asks(by), [READ])
            page = words((await alice.get("/access")).text)
            for part in ("Cursor as cursor@alice, from cursor.example", "list_pull_requests", "coder", "deploy"):
                assert part in page, page
            assert "other" not in page and "read_secret" not in page
            page = words((await bob.get("/access")).text)
            assert "other" in page and "Cursor" not in page and "coder" not in page
            w.clock.advance(timedelta(days=31))
            await alice.sign_in()
            assert "Cursor" not in words((await alice.get("/access")).text), "its time is up"


async def test_stopping_one_ends_it_and_nothing_else(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.ready("coder", "deploy:production")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            w.clock.advance(timedelta(seconds=2))
            await agree(alice, asks(by), [READ])
            w.clock.advance(timedelta(seconds=2))
            await agree(alice, asks(by), [MERGE])
            _, first, second = await grants(w)
            went = await alice.post(f"/access/{first.id}/stop", {})
            assert went.json() == {"next": "/access"}
            assert [grant.status for grant in await grants(w)] == ["active", "revoked", "active"]
            (record,) = await w.records("revocation")
            assert record.event.fields["by"] == "user:alice" and record.event.fields["name"] == first.id

            assert (await alice.post(f"/access/{first.id}/stop", {})).status_code == 200, "once more is no trouble"
            assert (await alice.post(f"/access/{second.id}/stop-all", {})).status_code == 200
            assert [grant.status for grant in await grants(w)] == ["active", "revoked", "revoked"]
            assert "Cursor" not in words((await alice.get("/access")).text)


@pytest.mark.parametrize("what", ["agent", "client"])
async def test_whom_an_operator_stopped_is_not_shown_as_somebody_who_may_act(
    tmp_path: Path, what: Literal["agent", "client"]
) -> None:
    async with world(tmp_path) as w:
        await w.ready("coder", "deploy:production")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            await agree(alice, asks(by), [READ])
            assert "Cursor" in words((await alice.get("/access")).text)
            name = by.id if what == "client" else "cursor@alice"
            await Revocation(w.store, w.clock).revoke(what, name, reason="enough", by=OPERATOR)
            page = words((await alice.get("/access")).text)
            assert "Cursor" not in page and "coder" in page


async def test_nobody_stops_what_another_person_agreed_to(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.ready("coder", "deploy:production")
        await w.person("bob")
        (grant,) = await grants(w)
        async with visiting(w, "bob") as bob:
            for path in (f"/access/{grant.id}/stop", f"/access/{grant.id}/stop-all", "/access/g_none/stop"):
                answer = await bob.post(path, {})
                assert answer.status_code == 404 and "alice" not in answer.text and "coder" not in answer.text
        assert (await grants(w))[0].status == "active"
