"""Who sees and stops what on the pages of sessions and agents: exactly what the table of roles says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mcp_authz.rules.administration import COMMANDS, Role, permits
from tests.attacks.attacker import answer_in
from tests.web.authenticator import Visit, visiting
from tests.web.team import Team, handed_on, team
from tests.web.test_consent import words
from tests.world import World, world

ROLES: Any = {"admins": ["user:ada"], "auditors": ["group:audit"]}
WHY = {"reason": "leaked"}

# What each of them is to the session of planner for alice, and to coder's link and coder in it.
TO_SESSION = {
    "ada": {Role.ADMIN},
    "audrey": {Role.AUDITOR},
    "owen": {Role.OWNER},
    "alice": {Role.PERSON},
    "carl": set[Role](),
    "stranger": set[Role](),
}
TO_CODERS_LINK = {**TO_SESSION, "carl": {Role.OWNER}}
TO_CODER = {
    **TO_SESSION,
    "owen": set[Role](),  # he owns planner, and whoever it handed on to is carl's
    "carl": {Role.OWNER},
}


@asynccontextmanager
async def everybody(tmp_path: Path) -> AsyncIterator[tuple[World, Team, dict[str, Visit]]]:
    """The team, and all who look at it."""
    async with world(tmp_path, administration=ROLES) as w, AsyncExitStack() as stack:
        made = await team(w)
        await w.person("ada")
        await w.person("audrey", "audit")
        await w.person("stranger")
        yield w, made, {name: await stack.enter_async_context(visiting(w, name)) for name in TO_SESSION}


async def who_gets(visits: dict[str, Visit], path: str) -> dict[str, int]:
    return {name: (await them.get(path)).status_code for name, them in visits.items()}


def as_the_table_says(command: str, roles: dict[str, set[Role]]) -> dict[str, int]:
    return {name: 200 if permits(command, has) else 404 for name, has in roles.items()}


async def test_everybody_sees_what_the_table_says_and_has_buttons_for_no_more(tmp_path: Path) -> None:
    async with everybody(tmp_path) as (_, made, visits):
        session, coder = f"/sessions/{made.session.id}", made.links["coder"].id
        for path in (session, f"{session}/picture.svg"):
            assert await who_gets(visits, path) == as_the_table_says("session show", TO_SESSION)
        assert await who_gets(visits, "/agent/coder") == as_the_table_says("agent show", TO_CODER)
        assert await who_gets(visits, f"/stop/link/{coder}") == as_the_table_says("revoke link", TO_CODERS_LINK)
        assert await who_gets(visits, f"/stop/session/{made.session.id}") == as_the_table_says(
            "revoke session", TO_SESSION
        )
        assert await who_gets(visits, "/stop/agent/coder") == as_the_table_says("revoke agent", TO_CODER)
        key = made.actors["coder"].key.public.thumbprint
        to_key = {**TO_CODER, "alice": set[Role]()}  # the key is coder's, and nothing of hers
        assert await who_gets(visits, f"/stop/key/{key}") == as_the_table_says("revoke key", to_key)

        for name, them in visits.items():
            listed = words((await them.get("/sessions")).text)
            assert ("planner for alice" in listed) == permits("session list", TO_SESSION[name]), name
            agents = words((await them.get("/agents")).text)
            assert ("coder" in agents) == permits("agent list", TO_CODER[name]), name
            for path in (session, "/agent/coder", "/sessions"):
                for button in set(re.findall(r'href="(/stop/[^"]+)"', (await them.get(path)).text)):
                    assert (await them.get(button)).status_code == 200, (name, button)
        assert "/stop/" not in (await visits["audrey"].get(session)).text
        assert "/stop/" in (await visits["alice"].get(session)).text


async def test_who_may_not_stop_a_thing_stops_nothing_and_learns_nothing(tmp_path: Path) -> None:
    async with everybody(tmp_path) as (w, made, visits):
        things = {
            f"link/{made.links['coder'].id}": ("revoke link", TO_CODERS_LINK),
            f"session/{made.session.id}": ("revoke session", TO_SESSION),
            "agent/coder": ("revoke agent", TO_CODER),
            f"key/{made.actors['coder'].key.public.thumbprint}": ("revoke key", {**TO_CODER, "alice": set[Role]()}),
        }
        for thing, (command, roles) in things.items():
            for name, has in roles.items():
                if permits(command, has):
                    continue
                refused = await visits[name].post(f"/stop/{thing}", WHY)
                kind, _, id_ = thing.partition("/")
                missing = await visits[name].post(f"/stop/{kind}/none", WHY)
                assert refused.status_code == missing.status_code == 404, (name, thing)
                assert refused.text.replace(id_, "none") == missing.text, (name, thing)
        for path in ("/stop/hold/h_x", "/stop/approval/x", "/stop/nothing/x"):
            assert (await visits["ada"].post(path, WHY)).status_code == 404, "pages stop no more than they show"
        assert await w.records("revocation") == ()


async def test_whoever_may_stops_it_and_is_on_record_with_why(tmp_path: Path) -> None:
    async with everybody(tmp_path) as (w, made, visits):
        planner = made.links["planner"]
        for name, roles in TO_CODERS_LINK.items():
            if not permits("revoke link", roles):
                continue
            link = await handed_on(w, made.links["coder"] if name == "carl" else planner, "tester")
            them = visits[name]
            assert (await them.post(f"/stop/link/{link.id}", {"reason": " "})).status_code == 400
            assert (await w.store.link(link.id)).status == "active"
            done = await them.post(f"/stop/link/{link.id}", {"reason": f"by {name}"})
            assert done.status_code == 200 and (await them.get(done.json()["next"])).status_code == 200, name
            assert (await w.store.link(link.id)).status == "revoked"
            said = (await w.records("revocation"))[-1].event.fields
            assert (said["by"], said["reason"], said["name"]) == (f"user:{name}", f"by {name}", link.id)
        page = words((await visits["alice"].get(f"/sessions/{made.session.id}")).text)
        assert "Revoked by owen" in page and "“by owen”" in page

        assert (await visits["carl"].post("/stop/agent/coder", WHY)).json()["next"] == "/agent/coder"
        assert "agent coder was revoked" in words((await visits["alice"].get(f"/sessions/{made.session.id}")).text)
        await visits["alice"].post(f"/stop/session/{made.session.id}", {"reason": "done for today"})
        page = words((await visits["alice"].get(f"/sessions/{made.session.id}")).text)
        assert "Over: the session was revoked" in page and "done for today" in page


async def test_what_would_stop_is_said_by_name_and_number_before_it_is(tmp_path: Path) -> None:
    async with everybody(tmp_path) as (w, made, visits):
        deploy = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}
        held = await w.call(made.actors["planner"], "acme__deploy", **deploy)
        page = words((await visits["alice"].get(f"/stop/session/{made.session.id}")).text)
        assert "End the session of planner for alice?" in page
        assert "4 delegations" in page and "1 held call: planner's acme__deploy" in page and "0 running calls" in page
        page = words((await visits["alice"].get(f"/stop/link/{made.links['coder'].id}")).text)
        assert "2 delegations: coder for alice" in page and "tester for alice" in page and "0 held calls" in page
        assert (await w.store.hold(held.hold)).state == "pending", "looking changes nothing"


async def test_only_an_administrator_stops_all_calls_and_lets_them_go_on_after_a_fresh_sign_in(tmp_path: Path) -> None:
    async with everybody(tmp_path) as (w, made, visits):
        ada = visits["ada"]
        for name, them in visits.items():
            may = permits("stop-all", TO_SESSION[name] & {Role.ADMIN, Role.AUDITOR})
            assert ("/stop/calls" in (await them.get("/sessions")).text) == may
            assert (await them.get("/stop/calls")).status_code == (200 if may else 403)
            if not may:
                assert (await them.post("/stop/calls", WHY)).status_code == 403
                assert (await them.post("/stop/calls/over", {})).status_code == 403
        refused = {it.event.fields["by"] for it in await w.records("administration") if it.event.fields.get("command")}
        assert refused == {f"user:{name}" for name in visits} - {"user:ada"}

        assert (await ada.post("/stop/calls", {})).status_code == 400
        assert (await ada.post("/stop/calls", WHY)).status_code == 200
        planner, repo = made.actors["planner"], {"owner": "acme", "repo": "api"}
        assert (await w.call(planner, "acme__list_pull_requests", **repo)).envelope["reason"] == "stopped"
        for path in ("/sessions", f"/sessions/{made.session.id}", "/agents", "/agent/coder"):
            assert "All calls are stopped" in words((await ada.get(path)).text)
            assert "All calls are stopped" not in words((await visits["alice"].get(path)).text)

        w.clock.advance(timedelta(minutes=20))
        stale = await ada.post("/stop/calls/over", {})
        assert stale.status_code == 401 and stale.json()["again"]
        assert (await ada.get("/stop/calls/over")).status_code == 401
        await ada.sign_in()
        assert (await ada.post("/stop/calls/over", {})).status_code == 200
        token = await w.token(planner)
        assert not answer_in(await w.raw_call(token, "acme__list_pull_requests", repo))["result"].get("isError")


async def test_the_picture_alone_is_an_image_under_a_policy_that_lets_nothing_run(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        made = await team(w)
        async with visiting(w, "alice") as alice:
            answer = await alice.get(f"/sessions/{made.session.id}/picture.svg")
            assert answer.headers["content-type"] == "image/svg+xml"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
            assert "script-src" not in answer.headers["content-security-policy"]
            assert "sandbox" in answer.headers["content-security-policy"]
            picture = ElementTree.fromstring(answer.content)  # noqa: S314 - our own
            told = picture.findtext("{http://www.w3.org/2000/svg}desc") or ""
            for who in ("planner from alice", "tester from coder", "writer from planner"):
                said = f"{who}, may use deploy:production pr, open"
                assert said in told


async def test_a_page_has_room_for_so_much_and_says_what_it_leaves_out(tmp_path: Path, monkeypatch: Any) -> None:
    async with world(tmp_path) as w:
        made = await team(w)
        for name, most in (("TREE_SHOWN", 3), ("SESSIONS_SHOWN", 1), ("AGENTS_SHOWN", 2)):
            monkeypatch.setattr(f"mcp_authz.limits.{name}", most)
        grant = await w.store.grant(made.session.grant)
        w.clock.advance(timedelta(seconds=2))
        await w.start(grant, purpose="a later one")
        async with visiting(w, "alice") as alice:
            page = words((await alice.get(f"/sessions/{made.session.id}")).text)
            assert "1 more delegation is left out" in page and "planner" in page and "the part for tester" not in page
            first = (await alice.get("/sessions")).text
            (older,) = re.findall(r'href="(/sessions\?open_before=[^"]+)"', first)
            assert "a later one" in first and "fix issue 41" not in first
            assert "fix issue 41" in (await alice.get(older)).text
            agents = (await alice.get("/agents")).text
            assert "/agent/coder" in agents and "/agent/tester" not in agents
            assert "/agent/tester" in (await alice.get("/agents?after=planner")).text


async def test_what_an_agent_does_for_somebody_else_is_not_on_its_page(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        made = await team(w)
        await w.person("bob")
        await w.start(await w.grant("bob", "planner", "pr"), purpose="bob's secret plan")
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob, visiting(w, "owen") as owen:
            hers, his = [words((await them.get("/agent/planner")).text) for them in (alice, bob)]
            assert "fix issue 41" in hers and "secret plan" not in hers and "bob" not in hers
            assert (
                "secret plan" in his
                and "fix issue 41" not in his
                and "writer" not in his.partition("Its delegations")[2]
            )
            both = words((await owen.get("/agent/planner")).text)
            assert "fix issue 41" in both and "secret plan" in both
        assert made.session.id


def test_the_documentation_has_the_table_as_it_is() -> None:
    rows = _rows((Path(__file__).parents[2] / "docs" / "roles.md").read_text().splitlines())
    assert rows == {command: {role.value for role in roles} for command, roles in COMMANDS.items()}
    assert list(rows) == list(COMMANDS)


def _rows(lines: Iterable[str]) -> dict[str, set[str]]:
    told: dict[str, set[str]] = {}
    head: list[str] = []
    for line in lines:
        first, *cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if first == "command":
            head = cells
        elif head and first.startswith("`"):
            assert set(cells) <= {"yes", ""}, line
            told[first.strip("`")] = {role for role, cell in zip(head, cells, strict=True) if cell == "yes"}
    return told
