"""What the administration API stops for everybody, and the lists that it has, are for whom the table gives them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz import limits
from mcp_authz.audit_reading import look_ahead
from mcp_authz.principals import PersonName
from mcp_authz.rules.administration import COMMANDS, permits
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.log import timestamp
from mcp_authz.running import running_calls
from mcp_authz.store.ports import Event
from tests.attacks.test_34_revoked_while_held import SCOPE
from tests.attacks.test_34_revoked_while_running import permitted, plain
from tests.road.test_administration_api import PEOPLE, ROLES, api, people, stop
from tests.world import world

LISTS = {"users": "user list", "clients": "client list", "grants": "grant list", "tools": "tools list"}
LISTS |= {"keys": "keys list", "export": "audit export", "audit-keys": "audit keys"}
OFF = {"tool": "acme__deploy", "server": "acme"}


async def sweep(http: httpx2.AsyncClient, of: Any, before: Any = "now", **more: Any) -> httpx2.Response:
    said = {"kind": "everything", "of": of, "before": before, "reason": "test"}
    return await http.post("/revoke", json={**said, **more})


async def test_only_administrators_stop_what_is_everybodys_and_only_auditors_too_read_lists(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await people(w)
        for person, role in PEOPLE.items():
            async with api(w, person) as http:
                for kind, name in OFF.items():
                    allowed = role is not None and permits(f"revoke {kind}", {role})
                    for one in (name, "nothing-like-it"):
                        answer = await stop(http, kind, one, dry_run=True)
                        expected = 403 if not allowed else 200 if one == name else 404
                        assert answer.status_code == expected, (person, kind, one, answer.text)
                for subject in ("user:alice", "user:nobody"):  # who may not does not learn who is there
                    answer = await sweep(http, subject, dry_run=True)
                    expected = 403 if person != "ada" else 200 if subject == "user:alice" else 404
                    assert answer.status_code == expected, (person, subject, answer.text)
                assert (await http.post("/stop-all", json={"dry_run": True})).status_code == (
                    200 if person == "ada" else 403
                )
                for path, command in LISTS.items():
                    allowed = role is not None and role in COMMANDS[command] and permits(command, {role})
                    answer = await http.get(f"/{path}")
                    assert (answer.status_code == 200) is allowed, (person, path, answer.text)
                    assert allowed or answer.json()["error"] == "forbidden"
                    if not allowed:
                        assert (await http.get(f"/{path}?limit=nonsense")).status_code in {400, 403}
        denied = [it.event.fields for it in await w.records("administration") if "command" in it.event.fields]
        tried = {(it["by"], it["command"]) for it in denied if it.get("decision") == "deny"}
        assert tried >= {("user:alice", "revoke tool"), ("user:eve", "audit export"), ("user:ann", "revoke everything")}
        assert not await w.store.switched_off() and not await w.records("revocation"), "dry runs change nothing"


async def test_what_is_swept_from_elsewhere_is_named_with_a_time_that_is_over(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await people(w)
        soon, ago = timestamp(w.clock() + timedelta(minutes=1)), timestamp(w.clock() - timedelta(days=1))
        async with api(w, "ada") as ada:
            for of, before in (
                ("user:alice", soon),
                ("user:alice", "9999-12-31T23:59:59-23:59"),
                ("user:alice", "2026-01-31"),
                ("user:alice", "2026-01-31T12:00:00"),
                ("user:alice", "2h"),
                ("user:alice", ""),
                ("user:alice", 7),
                ("alice", "now"),
                ("group:audit", "now"),
                ("user:", "now"),
                ("*", "now"),
                (["user:alice"], "now"),
            ):
                answer = await sweep(ada, of, before)
                assert answer.status_code == 400, (of, before, answer.text)
            assert (await sweep(ada, "client:c_none")).status_code == 404
            for more in ({"name": "x"}, {"dry_run": "yes"}, {"dry_run": 1}, {"kind": "all"}, {"since": ago}):
                assert (await sweep(ada, "user:alice", **more)).status_code == 400, more
            body = {"kind": "tool", "name": "acme__deploy", "reason": "x"}
            for more in ({"before": "now"}, {"of": "user:alice"}, {"dry_run": None}, {"reason": ""}):
                assert (await ada.post("/revoke", json={**body, **more})).status_code == 400, more
            huge = {**body, "name": "x" * 20_000}
            assert (await ada.post("/revoke", json=huge)).status_code == 400
            page = {"origin": w.config.public_url}
            assert (await ada.post("/revoke", json=body, headers=page)).status_code == 403
            assert not await w.store.switched_off() and not await w.records("revocation")

            nothing = (await sweep(ada, "user:alice", ago)).json()
            assert nothing["already_revoked"] and not any(nothing["ids"].values())
            # Who sweeps themselves has no session any more, and so no token.
            assert (await sweep(ada, "user:ada")).status_code == 200
            assert (await ada.get("/agents")).status_code == 401
        async with api(w, "ada", "administration:read") as reads:
            assert (await sweep(reads, "user:alice")).status_code == 403
            assert (await stop(reads, "tool", "acme__deploy")).status_code == 403
        async with api(w, "ada", "administration:stop") as stops:
            for path in (*LISTS, "agents/coder"):
                assert (await stops.get(f"/{path}")).json()["error"] == "insufficient_scope", path
        assert not await w.store.switched_off()


async def test_whoever_stops_something_is_told_which_calls_ran(tmp_path: Path) -> None:
    ended: list[Any] = []
    async with world(tmp_path, servers={"plain": plain("read")}, administration=ROLES) as w:
        await w.person("ada")
        coder = await w.ready("coder", SCOPE)
        token = await w.token(coder)
        (session,) = [it.id for it in await w.store.sessions() if it.subject == PersonName("alice")]

        async def call() -> None:
            ended.append(await w.raw_call(token, "plain__wait", {"tag": "x", "version": "1"}))

        async with api(w, "ada") as ada, api(w, "alice") as alice, anyio.create_task_group() as group:
            group.start_soon(call)
            await permitted(w, 1)
            (running,) = await running_calls(w.store)
            for http, kind, name in (
                (alice, "session", session),
                (alice, "agent", "coder"),
                (ada, "tool", "plain__wait"),
                (ada, "server", "plain"),
            ):
                told = (await stop(http, kind, name, dry_run=True)).json()
                assert [it["call"] for it in told["running"]] == [running.call], (kind, told)
                assert told["running"][0]["tool"] == "plain__wait" and told["running"][0]["actor"] == "agent:coder"
            assert (await stop(ada, "tool", "plain__cancelled", dry_run=True)).json()["running"] == []
            told = (await sweep(ada, "user:alice", dry_run=True)).json()
            assert [it["call"] for it in told["running"]] == [running.call] and told["ids"]["session"]
            told = (await ada.post("/stop-all", json={"reason": "x", "dry_run": True})).json()
            assert [it["call"] for it in told["running"]] == [running.call] and not ended
            told = (await stop(ada, "tool", "plain__wait")).json()
            assert [it["call"] for it in told["running"]] == [running.call] and not told["already_revoked"]
            (pin,) = [pin for pin in await w.store.pins() if pin.tool == "wait"]
            assert told["digest"] == pin.digest.hex()
        assert len(ended) == 1 and await running_calls(w.store) == ()


async def test_lists_come_a_page_at_a_time_and_exports_with_no_record_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await people(w)
        async with api(w, "ann") as ann:
            whole = [it["name"] for it in (await ann.get("/users")).json()["users"]]
            found, after = [], ""
            while after is not None:
                told = (await ann.get("/users", params={"limit": 2, "after": after})).json()
                found += [it["name"] for it in told["users"]]
                after = told["next"]
            assert found == whole and len(whole) >= len(PEOPLE)
            assert (await ann.get("/users?after=nobody")).status_code == 400
            assert (await ann.get("/tools?nonsense=1")).status_code == 400
            assert (await ann.get("/keys?limit=1&limit=2")).status_code == 400

            monkeypatch.setattr(limits, "RECORDS_LOOKED_AT", 3)
            told = (await ann.get("/export?kind=pin&limit=1")).json()
            assert told["reached"] == 3 or told["records"], "no more is looked at for one answer"
            for query in ("after=x", "before=-1", "after=1&after=2", "nonsense=1", "form=chain", "limit=1e3"):
                assert (await ann.get(f"/export?{query}")).status_code == 400, query
            beyond = (await ann.get("/export?after=999999999")).json()
            assert beyond["records"] == [] and beyond["first"] == 1


async def test_the_log_is_read_ahead_in_order_whatever_is_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        for number in range(23):
            kind = "policy" if number % 5 == 0 else "administration"
            await w.store.append(Event(kind=kind, at=w.clock(), fields={"summary": str(number)}))
        head, hash_ = await w.store.head()
        for wanted in (Filter(), Filter(kind="policy"), Filter(text="nowhere")):
            every = [it.sequence for it in await w.store.search(wanted, limit=1000)]
            for limit, at_most in ((1, 1), (3, 7), (7, 3), (1000, 1000)):
                found, reached = [], 0
                while reached < head:
                    ahead = await look_ahead(w.store, wanted, limit, after=reached, before=head + 1, at_most=at_most)
                    assert reached < ahead.reached <= min(head, reached + at_most) and len(ahead.records) <= limit
                    found += [it.sequence for it in ahead.records]
                    reached = ahead.reached
                assert found == every and (ahead.head, ahead.hash) == (head, hash_)
