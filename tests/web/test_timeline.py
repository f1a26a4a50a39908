"""The audit log as a page: who reads what, what the filters find, and one call's story."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.store.ports import Event
from mcp_authz.web import timeline
from tests.web.authenticator import visit, visiting
from tests.web.test_consent import words
from tests.world import world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}
ROLES = {"admins": ["user:ada"], "auditors": ["group:audit"]}


async def test_everybody_reads_what_they_had_a_part_in_and_auditors_everything(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        coder = await w.ready("coder", "deploy:production pr:merge:acme:api")
        other = await w.ready("other", "pr:merge:acme:web", subject="bob")
        _, _, held = [await w.call(coder, "acme__deploy", **DEPLOY) for _ in range(3)]
        await w.answer(held.hold, by="alice")
        await w.call(coder, "acme__deploy", **DEPLOY)
        await w.call(other, "acme__merge_pull_request", owner="acme", repo="web", number=1)
        for name, *groups in (("ada",), ("ann", "audit"), ("eve",)):
            await w.person(name, *groups)
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob, visiting(w, "eve") as eve:
            page = words((await alice.get("/audit")).text)
            assert "coder for alice asked for deploy.create" in page and "What you, and agents of yours" in page
            assert "acme.web" not in page.replace("/", ".") and "for bob" not in page
            page = words((await bob.get("/audit")).text)
            assert "for bob" in page and "for alice" not in page and "coder" not in page
            page = words((await eve.get("/audit")).text)
            assert "coder" not in page and "bob" not in page and "alice" not in page

            decided = [it.event for it in await w.records("decision")]
            call = next(it.call for it in decided if it.fields["decision"] == "hold")
            told = words((await alice.get(f"/audit/calls/{call}")).text)
            assert "coder, for alice, asked for deploy.create" in told
            assert "held, approved by alice" in told and ", done in " in told
            for them, of in ((bob, call), (eve, call), (bob, held.hold), (bob, "c_"), (eve, "h_"), (eve, "%")):
                answer = await them.get(f"/audit/calls/{of}")
                assert "coder" not in answer.text and "alice" not in answer.text, of
                assert answer.status_code == (400 if them is bob and of == "c_" else 404)
        async with visiting(w, "ada") as ada, visiting(w, "ann") as ann, visit(w) as nobody:
            for them in (ada, ann):
                page = words((await them.get("/audit")).text)
                assert "for bob" in page and "for alice" in page and "Everything that is on record" in page
                told = words((await them.get(f"/audit/calls/{held.hold}")).text)
                assert told.count(": held for") == 1 and "; asked again 2 times, until 20" in told
                assert page.count(": held for") == 4, "the log has them all, and one of other's"
            assert (await nobody.get("/audit")).status_code == 401
            assert "coder" not in (await nobody.get(f"/audit/calls/{call}")).text


async def test_filters_find_and_pages_follow_each_other_to_the_first_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, administration={"admins": ["user:alice"]}) as w:
        coder = await w.ready("coder", "pr:merge:acme:api")
        for number in range(3):
            await w.call(coder, "acme__merge_pull_request", owner="acme", repo="api", number=number)
        await w.call(coder, "acme__merge_pull_request", owner="acme", repo="web", number=9)
        strange = {"summary": "<script>alert(1)</script> \u202eevil", "by": "user:alice"}
        await w.store.append(Event(kind="administration", at=w.clock(), fields=strange))
        async with visiting(w, "alice") as alice:
            raw = (await alice.get("/audit?kind=administration")).text
            assert "<script>alert" not in raw and "\u202e" not in raw and "&lt;script&gt;alert(1)" in raw
            page = words((await alice.get("/audit?decision=deny&agent=agent:coder")).text)
            assert "acme/web" in page and "permitted" not in page
            assert "No record is like that." in words((await alice.get("/audit?text=nowhere-to-be-found")).text)
            today = w.clock().date().isoformat()
            assert "coder" in words((await alice.get(f"/audit?since={today}&until={today}&kind=decision")).text)
            assert "No record" in words((await alice.get("/audit?until=2020-01-31&kind=decision")).text)
            for wrong in (
                "decision=maybe",
                "kind=everything",
                "since=soon",
                "until=9999-12-31",
                "before=-1",
                "agent=" + "a" * 300,
            ):
                answer = await alice.get(f"/audit?{wrong}")
                assert answer.status_code == 400 and "Traceback" not in answer.text, wrong

            monkeypatch.setattr(timeline, "SHOWN", 4)
            last, _ = await w.store.head()
            seen, path = list[int](), "/audit?"
            while path:
                text = (await alice.get(path)).text
                seen += [int(part.split('"')[0]) for part in text.split('id="r')[1:]]
                older = text.split('rel="next"')[0].rsplit('href="', 1)[1] if 'rel="next"' in text else ""
                path = older.split('"')[0].replace("&amp;", "&")
            assert seen == list(range(last, 0, -1)), "each once, newest first"

            monkeypatch.setattr(limits, "RECORDS_LOOKED_AT", 5)
            page = words((await alice.get("/audit?text=nowhere-to-be-found")).text)
            assert f"back to record {last - 4}" in page and "Older" in page
