"""The administration API: who reads and stops what, by which token, and how the table of roles is kept to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_authz.principals import AgentName, Grant, Session
from mcp_authz.rules.administration import COMMANDS, Role, permits
from tests.world import Actor, World, world

BOTH = "administration:read administration:stop"
ROLES = {"admins": ["user:ada"], "auditors": ["group:audit"]}
PEOPLE = {"ada": Role.ADMIN, "ann": Role.AUDITOR, "olga": Role.OWNER, "alice": Role.PERSON, "eve": None}


@asynccontextmanager
async def api(w: World, person: str, scope: str = BOTH) -> AsyncIterator[httpx2.AsyncClient]:
    """The person's own client."""
    by = await w.client_agent(f"{person}-cli", person, scope=scope)
    headers = {"authorization": f"Bearer {by.access_token}"}
    async with httpx2.AsyncClient(base_url=f"{w.config.public_url}/administration", headers=headers) as http:
        yield http


async def stop(http: httpx2.AsyncClient, kind: str, name: str, **more: Any) -> httpx2.Response:
    return await http.post("/revoke", json={"kind": kind, "name": name, "reason": "test", **more})


async def people(w: World) -> Actor:
    """An agent of olga's that works for alice, and everybody who may ask."""
    for name in PEOPLE:
        await w.person(name, *(["audit"] if name == "ann" else []))
    coder = await w.agent("coder", ceiling="deploy:production", owner="olga")
    await w.start(await w.grant("alice", "coder", "deploy:production"))
    return coder


async def of_coder(w: World) -> tuple[Session, Grant]:
    (session,) = [it for it in await w.store.sessions() if it.agent == "coder"]
    (grant,) = [it for it in await w.store.grants() if it.agent == "coder"]
    return session, grant


async def test_each_role_stops_what_the_table_says(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        coder = await people(w)
        session, grant = await of_coder(w)
        (key,) = await w.store.keys_of("agent:coder")
        (link,) = await w.store.links(session.id)
        deploy = {"owner": "acme", "repo": "api", "environment": "production", "version": "1"}
        held = await w.call(coder, "acme__deploy", **deploy)
        names = {
            "link": link.id,
            "session": session.id,
            "grant": grant.id,
            "agent": "coder",
            "key": key.thumbprint,
            "hold": held.hold,
            "person": "alice",
        }
        for person, role in PEOPLE.items():
            async with api(w, person) as http:
                for kind, name in names.items():
                    answer = await stop(http, kind, name, dry_run=True)
                    roles = set() if role is None else {role}
                    roles -= {Role.PERSON} if kind in {"agent", "key"} else set()  # those are olga's
                    allowed = permits(f"revoke {kind}", roles)
                    assert (answer.status_code == 200) is allowed, (person, kind, answer.text)
                    assert allowed or answer.status_code in {403, 404}
                    missing = await stop(http, kind, "nothing-like-it", dry_run=True)
                    assert missing.status_code == (404 if allowed or answer.status_code == 404 else 403)
                    if answer.status_code == 404:  # what is not theirs reads as what is not there
                        assert answer.text.replace(name, "nothing-like-it") == missing.text
        assert (await w.store.agent(AgentName("coder"))).status == "active", "dry runs change nothing"


async def test_reading_is_of_what_is_theirs_and_stopping_is_on_record(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await people(w)
        session, _ = await of_coder(w)
        for person, role in PEOPLE.items():
            async with api(w, person) as http:
                sessions = [it["id"] for it in (await http.get("/sessions")).json()["sessions"]]
                agents = [it["name"] for it in (await http.get("/agents")).json()["agents"]]
                assert (session.id in sessions) is (role is not None), person
                assert ("coder" in agents) is (role is not None), person
                one = await http.get(f"/sessions/{session.id}")
                assert one.status_code == (404 if role is None else 200)
                text = (await http.get("/records", params={"agent": "coder"})).text
                assert ("coder" in text) is (role is not None), (person, text)
        async with api(w, "eve") as eve:
            assert (await eve.post("/stop-all", json={"reason": "because"})).status_code == 403
            assert not await w.store.switched_off()
        tried = (await w.records("administration"))[-1].event.fields
        assert tried["by"] == "user:eve" and tried["command"] == "stop-all" and tried["decision"] == "deny"
        async with api(w, "ada") as ada:
            assert (await ada.post("/stop-all", json={"reason": "fire"})).json()["stopped"] is True
            assert (await ada.post("/start-all", json={})).json() == {"started": True}
        async with api(w, "alice") as alice:
            told = (await stop(alice, "session", session.id)).json()
            assert [link["holder"] for link in told["links"]] == ["coder"] and not told["already_revoked"]
            assert (await stop(alice, "session", session.id)).json()["already_revoked"]
        assert (await w.records("revocation"))[-1].event.fields["by"] == "user:alice"


@pytest.mark.parametrize("scope", ["deploy:production", "administration:read", "administration:stop"])
async def test_a_token_does_what_its_person_let_the_client_do_and_no_more(tmp_path: Path, scope: str) -> None:
    async with world(tmp_path, administration={"admins": ["user:alice"]}) as w:
        coder = await w.ready("coder", "deploy:production")
        async with api(w, "alice", scope) as http:
            reads, stops = await http.get("/records"), await http.post("/stop-all", json={"reason": "x"})
            assert (reads.status_code == 200) is (scope == "administration:read")
            assert (stops.status_code == 200) is (scope == "administration:stop")
            for refused in (reads, stops):
                if refused.status_code == 403:
                    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
        # An agent with a key has no such leave, whatever its person is.
        token = await w.token(coder, "deploy:production")
        async with httpx2.AsyncClient(base_url=f"{w.config.public_url}/administration") as http:
            for headers, status in (({}, 401), ({"authorization": f"Bearer {token}"}, 403)):
                answer = await http.get("/records", headers=headers)
                assert answer.status_code == status and "www-authenticate" in answer.headers
            page = {"origin": "https://evil.example", "authorization": f"Bearer {token}"}
            assert (await http.get("/records", headers=page)).status_code == 403


async def test_what_is_not_a_question_is_said_to_be_none(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await people(w)
        async with api(w, "ada") as http:
            for query in ("decision=maybe", "since=soon", "limit=-1", "nonsense=1", "agent=" + "a" * 300):
                assert (await http.get(f"/records?{query}")).status_code == 400, query
            for body in (
                {},
                {"kind": "link"},
                {"kind": "all", "name": "x", "reason": "y"},
                {"kind": "link", "name": 1, "reason": "y"},
            ):
                assert (await http.post("/revoke", json=body)).status_code == 400, body
            long = await http.post("/stop-all", content=b"x" * 40_000, headers={"content-type": "application/json"})
            assert long.status_code == 400
            assert (await http.post("/stop-all", content=b"reason=x")).status_code == 400
            assert (await http.get("/calls/c_nothing")).status_code == 404


def test_the_table_has_no_command_twice_and_roles_that_are_somebody() -> None:
    assert all(COMMANDS.values()) and all(roles <= set(Role) for roles in COMMANDS.values())
    assert not permits("no such command", set(Role))
