"""The administration API tells nobody of what is not theirs, however they ask, and one person's asking costs a turn."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest

from mcp_authz import audit_reading, limits
from mcp_authz.errors import StoreError
from mcp_authz.principals import AgentName, Authentication, PersonName
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.store.ports import Event, RevocableKind
from tests.proofs import LIST, Prover
from tests.road.test_administration_api import BOTH, ROLES, api, people, stop
from tests.store.test_in_doubt import after_the_commit
from tests.world import world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}


async def test_the_beginning_of_an_id_opens_no_call_of_somebody_else(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        holds = {}
        for name, person in (("coder", "alice"), ("other", "bob")):
            agent = await w.ready(name, "deploy:production", subject=person)
            holds[person] = str((await w.call(agent, "acme__deploy", **DEPLOY)).hold)
            await w.answer(holds[person], by=person)
            await w.call(agent, "acme__deploy", **DEPLOY)
        # What is on record of alice's hold and of no call names it in words alone.
        await w.store.append(Event(kind="administration", at=w.clock(), fields={"summary": f"coder: {holds['alice']}"}))
        calls = {
            str(it.event.fields["subject"]).removeprefix("user:"): str(it.event.call)
            for it in await w.records("decision")
            if it.event.fields["decision"] == "hold"
        }
        async with api(w, "eve") as eve, api(w, "bob") as bob:
            never = (await eve.get("/calls/c_never")).text
            for start in ("c", "c_", "h", "h_", "%", "_", "*", "..%2frecords", "%00", "c" * 256):
                for them in (eve, bob):
                    answer = await them.get(f"/calls/{start}")
                    assert "coder" not in answer.text, (start, answer.text)
                    alone = them is bob and start in {"h", "h_"}  # he has one
                    assert (answer.status_code == 200) is alone and answer.status_code < 500, (start, answer.text)
            for known in (calls["alice"], calls["alice"][:9], holds["alice"], holds["alice"][:9]):
                for them in (eve, bob):
                    answer = await them.get(f"/calls/{known}")
                    assert answer.status_code == 404 and answer.text.replace(known, "c_never") == never, known
            for known in (calls["bob"], calls["bob"][:9], holds["bob"], holds["bob"][:9]):
                told = (await bob.get(f"/calls/{known}")).json()
                assert "other, for bob, asked for deploy.create" in told["story"], known
                assert "held, approved by bob" in told["story"] and told["story"].count("asked for") == 1
                assert "coder" not in str(told)


async def test_a_call_is_looked_for_in_a_bounded_part_of_the_log_and_a_person_has_one_turn_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await people(w)
        looked = []
        search = w.store.search
        busy: list[int] = []

        async def counted(wanted: Any, **bounds: Any) -> Any:
            looked.append(bounds["before"] - bounds["after"] - 1)
            busy.append(1)
            assert len(busy) == 1, "two searches of one person at a time"
            await anyio.lowlevel.checkpoint()
            busy.clear()
            return await search(wanted, **bounds)

        async with api(w, "eve") as eve:
            for _ in range(60):
                await w.store.append(Event(kind="administration", at=w.clock(), fields={"summary": "x"}))
            monkeypatch.setattr(limits, "RECORDS_LOOKED_AT", 20)
            monkeypatch.setattr(audit_reading, "STRETCH", 5)
            monkeypatch.setattr(type(w.store), "search", lambda _, wanted, **bounds: counted(wanted, **bounds))
            for path in ("/calls/c_nothing", "/calls/h_nothing", "/records?text=nothing"):
                looked.clear()
                await eve.get(path)
                assert 0 < sum(looked) <= 20, path
            codes = []

            async def ask() -> None:
                codes.append((await eve.get("/records?text=nothing")).status_code)

            async with anyio.create_task_group() as group:
                for _ in range(4 * limits.READERS_WAITING):
                    group.start_soon(ask)
            assert set(codes) <= {200, 429} and codes.count(200) >= limits.READERS_WAITING


async def test_a_flood_of_refused_attempts_is_a_number_on_record(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await w.person("eve")
        async with api(w, "eve") as eve:
            for _ in range(2 * limits.ATTEMPTS_BURST):
                assert (await eve.post("/stop-all", json={"reason": "x"})).status_code == 403
            tried = [it for it in await w.records("administration") if it.event.fields.get("command") == "stop-all"]
            assert len(tried) == limits.ATTEMPTS_BURST
            w.clock.advance(timedelta(minutes=1))
            await stop(eve, "person", "alice")
            last = (await w.records("administration"))[-1].event.fields
            assert last["untold"] == limits.ATTEMPTS_BURST and "20 attempts before" in last["summary"]


async def test_lists_come_a_page_at_a_time_and_each_parameter_once(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await people(w)
        for number in range(5):
            await w.ready(f"a{number}", "pr", subject="bob")
        async with api(w, "bob") as bob, api(w, "ada") as ada:
            for path, key, more in (("/agents", "name", "after"), ("/sessions", "id", "before")):
                found: list[str] = []
                behind: str | None = None
                for _ in range(9):
                    page = (await bob.get(path, params={"limit": 2, **({more: behind} if behind else {})})).json()
                    rows = page[path[1:]]
                    assert len(rows) <= 2
                    found += [row[key] for row in rows]
                    if (behind := page["next"]) is None:
                        break
                assert len(found) == len(set(found)) == 6, (path, found)  # with the client that asks
                assert len((await ada.get(path, params={"limit": 10**9})).json()[path[1:]]) > 6
            for wrong in ("limit=1&limit=2", "limit=x", "nonsense=1", "state=ended", "&".join(["a=1"] * 1000)):
                assert (await bob.get(f"/sessions?{wrong}")).status_code == 400, wrong
            assert (await bob.get("/records?agent=a1&agent=coder")).status_code == 400
            over = (await bob.get("/sessions?state=over")).json()
            assert over == {"sessions": [], "next": None}


async def test_who_has_no_part_in_a_thing_can_neither_see_nor_stop_it(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        planner = await w.ready("planner", "pr", subject="alice", depth=2, delegates_to={"writer"})
        await w.person("sub")
        await w.agent("writer", ceiling="pr", owner="sub")
        await w.delegate(planner, "writer", "pr:read")
        await w.person("bob")
        await w.start(await w.grant("bob", "planner", "pr"), purpose="bob's secret plan")
        sessions = {it.subject: it for it in await w.store.sessions()}
        links = await w.store.links(sessions[PersonName("alice")].id)
        by_holder = {link.holder: link.id for link in links}
        grants = {it.subject: it.id for it in await w.store.grants()}
        (key,) = await w.store.keys_of("agent:planner")
        async with api(w, "sub") as sub, api(w, "bob") as bob:
            # The owner of an agent below sees and prunes its own link, and nothing above.
            assert (await sub.get(f"/sessions/{sessions[PersonName('alice')].id}")).status_code == 404
            assert (await stop(sub, "link", by_holder[AgentName("writer")], dry_run=True)).status_code == 200
            for kind, name in (
                ("link", by_holder[AgentName("planner")]),
                ("session", sessions[PersonName("alice")].id),
                ("grant", grants[PersonName("alice")]),
                ("agent", "planner"),
                ("key", key.thumbprint),
                ("link", "%"),
                ("agent", "*"),
                ("session", sessions[PersonName("alice")].id[:8]),
                ("agent", "planner "),
                ("agent", "writer/../planner"),
            ):
                for them in (sub, bob):
                    assert (await stop(them, kind, name)).status_code == 404, (kind, name)
            # An agent of several people: each sees what is for them.
            assert "alice" not in (await bob.get("/sessions")).text
            told = (await bob.get("/records")).text
            assert "user:alice" not in told.replace('"owner":"user:alice"', "")
        # Who is in no group any more, or is revoked, has no role any more.
        await w.person("ann", "audit")
        async with api(w, "ann") as ann:
            assert "planner" in (await ann.get("/agents")).text
            left = Event(kind="administration", at=w.clock(), fields={})
            await w.store.set_groups(PersonName("ann"), frozenset(), left)
            assert "planner" not in (await ann.get("/agents")).text
            async with api(w, "ada") as ada:
                assert (await stop(ada, "person", "ann")).status_code == 200
            assert (await ann.get("/agents")).status_code == 401


async def test_what_a_stranger_calls_things_puts_no_record_before_somebody_else(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        mallory = await w.ready("mallory", "pr", subject="mal")
        for name in ("user:eve", "agent:eve"):
            await w.raw_call(await w.token(mallory, "pr"), name, {"user:eve": "user:eve"})
        async with api(w, "mal") as mal:
            await stop(mal, "session", "s_none")
            (grant,) = [it for it in await w.store.grants() if it.agent == "mallory"]
            assert (
                await mal.post("/revoke", json={"kind": "grant", "name": grant.id, "reason": "user:eve"})
            ).status_code == 200
        async with api(w, "eve") as eve:
            told = (await eve.get("/records")).json()["records"]
            assert not [it for it in told if "mallory" in str(it)], told


async def test_nothing_but_that_leave_by_its_name_lets_a_token_administer(tmp_path: Path) -> None:
    async with world(tmp_path, administration={"admins": ["user:alice"]}) as w:
        coder = await w.ready("coder", "pr", depth=2, delegates_to={"writer"})
        for scope in ("*", "administration", "* administration:*", "*:*", "administration:read:all", "holds:decide"):
            async with api(w, "alice", scope) as http:
                assert (await http.get("/records")).status_code == 403, scope
                assert (await http.post("/stop-all", json={"reason": "x"})).status_code == 403, scope
        for form in ({}, {"scope": "administration:read"}, {"scope": "pr administration:stop"}):
            answer = await w.token_answer(coder, **form)
            if answer.status_code == 200:
                async with httpx2.AsyncClient(
                    headers={"authorization": f"Bearer {answer.json()['access_token']}"}
                ) as http:
                    assert (await http.get(f"{w.config.public_url}/administration/records")).status_code == 403
                assert "administration" not in answer.json()["scope"]
        cli = await w.client_agent("cli", "alice", scope=f"pr {BOTH}")
        await w.agent("writer", ceiling="pr", owner="alice")
        exchange = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": cli.access_token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }
        for scope in ("administration:read", None):
            answer = await w.token_answer(coder, scope, **exchange)
            assert "administration" not in answer.json().get("scope", "") and answer.status_code in {200, 400}, (
                answer.text
            )


async def test_a_proof_is_for_one_request_here_and_a_cookie_for_none(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        p = Prover(w, PrivateKey.generate())
        cli = await w.client_agent("cli", "alice", scope=BOTH, confirmation=p.key.public)
        token, here = cli.access_token, "/administration/records"

        async def get(*proofs: str, path: str = here, method: str = "GET", **headers: str) -> httpx2.Response:
            lines = [("authorization", f"DPoP {token}"), *(("dpop", one) for one in proofs), *headers.items()]
            async with httpx2.AsyncClient() as http:
                answer = await http.request(method, f"{w.config.public_url}{path}", headers=lines)
            p.nonce = answer.headers.get("dpop-nonce", p.nonce)
            return answer

        await get(p.proof(token, path=here, method="GET"))  # learns the nonce
        one = p.proof(token, path=here, method="GET")
        assert (await get(one)).status_code == 200
        assert (await get(one)).status_code == 401, "used twice"
        for wrong in (
            p.proof(token, path="/mcp", method="GET"),
            p.proof(token, path="/administration/agents", method="GET"),
            p.proof(token, path=here, method="POST"),
            p.proof(token, path="/administration/../administration/records", method="GET", jti="x") + "x",
            p.proof(path=here, method="GET"),
        ):
            assert (await get(wrong)).status_code == 401
        assert (await get()).status_code == 401
        assert (
            await get(p.proof(token, path=here, method="GET"), p.proof(token, path=here, method="GET"))
        ).status_code == 401
        spent = p.proof(token, method="POST")
        await p.send(LIST, token, spent)
        assert (await get(spent, path="/mcp", method="POST")).status_code in {400, 401, 415}
        async with httpx2.AsyncClient() as http:
            as_bearer = await http.get(f"{w.config.public_url}{here}", headers={"authorization": f"Bearer {token}"})
            assert as_bearer.status_code == 401
        by = await w.client_agent("cli2", "alice", scope=BOTH)
        url = f"{w.config.public_url}/administration"
        auth = {"authorization": f"Bearer {by.access_token}"}
        async with httpx2.AsyncClient() as http:
            assert (await http.get(f"{url}/records", headers={"cookie": "s=1"})).status_code == 401
            for method, path, headers in (
                ("GET", "/records", [*auth.items(), *auth.items()]),
                ("GET", "/records", [*auth.items(), ("host", "evil.example")]),
                ("GET", "/records", [*auth.items(), ("origin", w.config.public_url)]),
                ("GET", "/records", [*auth.items(), ("origin", "null")]),
                ("GET", "/stop-all", [*auth.items()]),
                ("GET", "/stop-all", [*auth.items(), ("x-http-method-override", "POST")]),
                ("POST", "/records", [*auth.items(), ("x-http-method-override", "GET")]),
                ("DELETE", "/agents", [*auth.items()]),
                ("GET", "/records/", [*auth.items()]),
                ("GET", "/../mcp", [*auth.items()]),
                ("GET", f"/records?access_token={by.access_token}", []),
            ):
                answer = await http.request(method, f"{url}{path}", headers=headers)
                assert 300 < answer.status_code < 500, (method, path, answer.status_code)
            head = await http.head(f"{url}/records", headers=auth)
            assert head.status_code == 200 and not head.content
            for body in (
                b'{"kind":"link","name":"\\ud800","reason":"x"}',
                b'{"kind":"link","kind":"agent","name":"x","reason":"y"}',
                b'{"kind":"agent","name":"x","reason":"\\u0000"}',
                b'{"kind":["agent"],"name":"x","reason":"y"}',
                b'{"kind":{},"name":"x","reason":"y"}',
                b"[" * 16000,
                b"\xff\xfe",
                b"",
            ):
                posted = await http.post(
                    f"{url}/revoke", content=body, headers={**auth, "content-type": "application/json"}
                )
                assert posted.status_code in {400, 404}, (body[:40], posted.status_code, posted.text)
            for query in (
                "since=0001-01-01T00:00:00%2B23:59",
                "until=9999-12-31T23:59:59-23:59",
                "since=0001-01-01",
                "until=9999-12-31",
                "before=999999999999999",
                "before=0",
                "limit=0",
                "text=%00",
                "text=%ed%a0%80",
                "session=%25",
                "tool=" + "*" * 200,
                "until=2026-W01",
            ):
                answer = await http.get(f"{url}/records?{query}", headers=auth)
                assert answer.status_code in {200, 400}, (query, answer.status_code, answer.text)


async def test_calls_go_on_again_only_by_who_signed_in_lately_and_strangers_lock_nobody_out(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        long_ago = Authentication(at=w.clock() - limits.APPROVAL_SIGN_IN - timedelta(seconds=1), amr=("swk", "user"))
        await w.person("ada")
        for shown, status in ((long_ago, 401), ("unknown", 401), ("minute", 200)):
            cli = await w.client_agent("cli", "ada", scope=BOTH, authentication=shown)
            auth = {"authorization": f"Bearer {cli.access_token}"}
            async with httpx2.AsyncClient(base_url=f"{w.config.public_url}/administration") as http:
                assert (await http.post("/stop-all", json={"reason": "fire"}, headers=auth)).status_code == 200
                answer = await http.post("/start-all", json={}, headers=auth)
                assert answer.status_code == status, answer.text
                if status == 401:
                    assert 'error="insufficient_user_authentication"' in answer.headers["www-authenticate"]
                    assert 'max_age="900"' in answer.headers["www-authenticate"] and await w.store.switched_off()
        async with httpx2.AsyncClient(base_url=f"{w.config.public_url}/administration") as http:
            wrong = {"authorization": "Bearer nonsense"}
            codes = [(await http.get("/agents", headers=wrong)).status_code for _ in range(limits.SOURCE_BURST + 150)]
            assert codes[0] == 401 and 429 in codes
            assert (await http.get("/agents", headers=auth)).status_code == 200


async def test_what_is_wrong_with_the_store_is_not_told_to_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await w.person("ada")

        async def broken(*_: Any, **__: Any) -> Any:
            raise StoreError("`/srv/secret/store.db` cannot be read")

        async with api(w, "ada") as ada:
            monkeypatch.setattr(type(w.store), "search", broken)
            answer = await ada.get("/records")
            assert answer.status_code == 503 and "secret" not in answer.text


async def test_who_stops_all_by_a_commit_that_failed_is_not_told_that_nothing_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await w.person("ada")
        async with api(w, "ada") as ada:
            assert (await ada.get("/agents")).status_code == 200
            after_the_commit(w.store, monkeypatch)
            answer = await ada.post("/stop-all", json={"reason": "fire"})
            assert answer.status_code == 503 and await w.store.switched_off()
            assert "cannot be said" in answer.json()["error_description"] and "nothing was" not in answer.text


async def test_who_stops_something_is_told_of_that_and_not_of_what_ended_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await w.ready("coder", "pr")
        await w.ready("other", "pr", subject="bob")
        sessions = {it.subject: it.id for it in await w.store.sessions()}
        revoke = w.store.revoke

        async def with_another(kind: RevocableKind, name: str, event: Event) -> Any:
            await revoke("session", sessions[PersonName("bob")], event)
            return await revoke(kind, name, event)

        async with api(w, "alice") as alice:
            monkeypatch.setattr(type(w.store), "revoke", lambda _, *given: with_another(*given))
            told = (await stop(alice, "session", sessions[PersonName("alice")])).json()
            assert [link["holder"] for link in told["links"]] == ["coder"], told


async def test_a_revocation_is_read_by_whom_it_concerns_and_tells_nobody_of_others(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await people(w)  # coder is olga's, and works for alice
        await w.person("bob")
        await w.start(await w.grant("bob", "coder", "deploy:production"))
        whose = {it.subject: it.id for it in await w.store.sessions()}
        async with api(w, "ada") as ada, api(w, "alice") as alice, api(w, "bob") as bob, api(w, "olga") as olga:
            kinds = {"kind": "revocation"}
            (link,) = await w.store.links(whose[PersonName("alice")])
            assert (await stop(ada, "link", link.id)).status_code == 200
            (told,) = (await alice.get("/records", params=kinds)).json()["records"]
            assert told["fields"]["sessions"] == [whose[PersonName("alice")]] and told["fields"]["by"] == "user:ada"
            found = await alice.get("/records", params={"session": whose[PersonName("alice")], **kinds})
            assert [record["hash"] for record in found.json()["records"]] == [told["hash"]]
            assert (await bob.get("/records", params=kinds)).json()["records"] == []

            await w.start(await w.grant("alice", "coder", "deploy:production"))
            assert (await stop(ada, "agent", "coder")).status_code == 200
            for them, other in ((alice, "bob"), (bob, "alice")):
                text = (await them.get("/records", params=kinds)).text
                assert f"user:{other}" not in text and whose[PersonName(other)] not in text
            assert "agent coder revoked" in (await olga.get("/records", params=kinds)).text
