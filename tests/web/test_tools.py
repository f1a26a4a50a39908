"""Tools on the page: who sees them, what is said of each, and who switches one or a server off."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from tests.attacks.attacker import Spy, answer_in, spy, tool
from tests.web.authenticator import visiting
from tests.web.test_consent import words
from tests.world import World, world

ROLES: Any = {"admins": ["user:ada"], "auditors": ["group:audit"]}
WHY = {"reason": "it leaks"}
HOSTILE = "<script>alert(1)</script>\u202egnp"


def files(tmp_path: Path, *tools: Any) -> tuple[Spy, dict[str, Any]]:
    """A tool server, and what the operator says of it."""
    server = spy(tmp_path / "spy", *tools)
    said = {"read": {"hazard": "read", "scopes": ["files:read"]}, "write": {"hazard": "write", "scopes": ["files"]}}
    return server, {"files": server.config(tools=said)}


async def listed_anew(w: World) -> None:
    """The gateway knows what the server lists now."""
    await w.running.catalog.refresh(w.running.parts.downstreams["files"])


async def test_a_changed_tool_shows_what_changed_and_the_command_that_accepts_it(tmp_path: Path) -> None:
    server, servers = files(tmp_path, tool("read"), tool("write"))
    async with world(tmp_path, servers=servers, administration=ROLES) as w:
        await w.person("ann", "audit")
        server.lists(tool("read", description=f"reads\n{HOSTILE}"), tool("write"), tool("drop"))
        await listed_anew(w)
        pin = next(pin for pin in await w.store.pins() if pin.tool == "read")
        async with visiting(w, "ann") as ann:
            page = words((await ann.get("/tools")).text)
            assert "3 tools: 1 read, 1 write, 1 destructive" in page and "1 changed" in page and "2 accepted" in page
            assert "files__drop nobody classified it" in page and "Switch off" not in page
            changed = words((await ann.get("/tools?state=changed")).text)
            assert "files__read" in changed and "files__drop" not in changed
            answer = await ann.get("/tool/files__read")
            page = unescape(answer.text)
            assert "- </b>  does read" in page and "+ </b>  reads" in page
            assert r"\u{202e}" in page and "\u202e" not in page and "<script>alert" not in answer.text
            assert f"mcp-authz tools accept files__read --expect {pin.changed_digest.hex()}" in words(answer.text)
            assert "Its definition changed today" not in words(answer.text), "times are the reader's own"
            assert "/stop/" not in answer.text, "an auditor stops nothing"
            assert (await ann.get("/tool/files__nothing")).status_code == 404


async def test_only_an_administrator_switches_off_and_others_leave_no_more_than_a_record(tmp_path: Path) -> None:
    _, servers = files(tmp_path, tool("read"), tool("write"))
    async with world(tmp_path, servers=servers, administration=ROLES) as w:
        coder = await w.ready("coder", "files")
        await w.person("ann", "audit")
        await w.person("ada")
        token = await w.token(coder)
        async with visiting(w, "alice") as alice, visiting(w, "ann") as ann, visiting(w, "ada") as ada:
            assert 'href="/tools"' not in (await alice.get("/holds")).text
            assert 'href="/tools"' in (await ann.get("/holds")).text
            for path in ("/tools", "/tool/files__read", "/stop/tool/files__read", "/stop/server/files"):
                assert (await alice.get(path)).status_code == 403, path
            for them in (alice, ann):
                assert (await them.post("/stop/tool/files__read", WHY)).status_code == 403
                assert (await them.post("/stop/server/files", WHY)).status_code == 403
            refused = [it.event.fields for it in await w.records("administration") if it.event.fields.get("command")]
            tried = {(it["by"], it["command"]) for it in refused}
            assert ("user:alice", "tools list") in tried and ("user:ann", "revoke server") in tried
            assert await w.store.switched_off() == ()

            page = words((await ada.get("/stop/tool/files__read")).text)
            assert "Switch off the tool files__read?" in page and "0 held calls 0 running calls" in page
            assert (await ada.post("/stop/tool/files__read", {"reason": " "})).status_code == 400
            done = await ada.post("/stop/tool/files__read", WHY)
            page = words((await ada.get(done.json()["next"])).text)
            assert "Switched off" in page and "by ada: it leaks" in page and "tools accept files__read" in page
            reads = answer_in(await w.raw_call(token, "files__read", {}))["result"]
            assert reads["isError"] and not answer_in(await w.raw_call(token, "files__write", {}))["result"]["isError"]
            assert "Switched off already" in words((await ada.get("/stop/tool/files__read")).text)
            assert "/stop/tool/" not in (await ada.get("/tool/files__read")).text

            done = await ada.post("/stop/server/files", WHY)
            page = words((await ada.get(done.json()["next"])).text)
            assert "files off" in page and "mcp-authz tools accept --server files" in page
            assert "Its server is switched off" in words((await ada.get("/tool/files__write")).text)
            assert (await ada.post("/stop/server/none", WHY)).status_code == 404
            assert (await ada.post("/stop/tool/none", WHY)).status_code == 404


async def test_a_thousand_tools_are_a_hundred_to_the_page_and_hostile_names_are_only_text(tmp_path: Path) -> None:
    _, servers = files(tmp_path, tool(HOSTILE[:25]), *(tool(f"t{n:04}") for n in range(1000)))
    async with world(tmp_path, servers=servers, administration=ROLES) as w:
        await w.person("ada")
        async with visiting(w, "ada") as ada:
            first = await ada.get("/tools")
            assert "1001 tools: 1001 destructive" in words(first.text) and "<script>alert" not in first.text
            assert len(re.findall(r'href="/tool/', first.text)) == 100 and len(first.text) < 60_000
            (hostile,) = [it for it in re.findall(r'href="(/tool/[^"]+)"', first.text) if "script" in it]
            page = await ada.get(unescape(hostile))
            assert page.status_code == 200 and "<script>alert" not in page.text
            stop = await ada.get(unescape(hostile).replace("/tool/", "/stop/tool/"))
            assert stop.status_code == 200 and "<script>alert" not in stop.text
            (more,) = re.findall(r'href="([^"]+)" rel="next"', first.text)
            second = (await ada.get(unescape(more))).text
            assert "/tool/files__t0099" in second and "/tool/files__t0098" not in second
