"""Row 44, as an operator runs it: a gateway of its own process, with debug logging; all it printed and left is read."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio

from mcp_authz.installation import open_installation
from mcp_authz.model import HoldId
from tests.attacks.attacker import Spy, serving, spy, tool
from tests.attacks.canaries import Canaries
from tests.cli.desk import Desk
from tests.site import SOON, Site, outcome_of, site

PLACES = "env env_file web_header web_file field name cookie custom bearer path surrounding meta token_name"
TOOLS = ("look", "drop", "complain", "refuse", "die")
LOUD = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from mcp_authz.cli.main import main
main()
"""
COMMANDS = (
    "doctor --json",
    "status --json",
    "audit list --json",
    "audit export --format jsonl",
    "agent list --json",
    "policy explain CALL",
    "policy explain CALL --json",
    "audit explain CALL --json",
    "backup copy.db",
)


def kept(directory: Path, name: str, secret: str) -> str:
    file = directory / name
    file.write_text(f"{secret}\n")
    file.chmod(0o600)
    return str(file)


def servers(directory: Path, c: Canaries, web: str) -> tuple[Spy, dict[str, Any]]:
    tools = {name: {"hazard": "destructive" if name == "drop" else "read", "scopes": ["use"]} for name in TOOLS}
    server = spy(directory / "spy", *(tool(name) for name in TOOLS))
    files = {"TOKEN": kept(directory, "env_secret", c["env_file"])}
    headers = {"X-Team": c["web_header"]}
    header_files = {"Authorization": kept(directory, "web_secret", f"Bearer {c['web_file']}")}
    at = {"url": web, "headers": headers, "header_files": header_files, "tools": tools}
    return server, {"spy": server.config(tools=tools, env={"PLAIN": c["env"]}, env_files=files), "web": at}


async def work(s: Site, c: Canaries) -> None:
    """Calls of every fate, and requests of strangers."""
    async with s.at() as http:
        await s.up(http)
        token = c.add("access token", await s.token(http))
        sent = {"password": c["field"], f"{c['name']}": 1, "path": "/srv"}
        meta = {"com.example/note": c["meta"], "progressToken": c["token_name"]}
        for server in ("spy", "web"):
            for name in ("look", "complain", "refuse"):
                await s.answer(http, f"{server}__{name}", sent, token=token, meta=meta)
        await s.answer(http, "spy__die", sent, token=token)
        await s.answer(http, f"spy__{c['unknown']}", sent, token=token)
        held = HoldId(outcome_of(await s.call(http, "web__drop", sent, token=token))["hold"])
        async with open_installation(s.config) as here:
            await s.approve(here, held)
        assert "ran drop" in str(await s.call(http, "web__drop", sent, token=token))
        wrong = {"authorization": f"Bearer {c['bearer']}", "x-secret": c["custom"], "cookie": f"a={c['cookie']}"}
        for path in (f"/{c['path']}", "/mcp", "/holds", "/metrics", "/healthz", "/administration/records"):
            at = path.replace(c["path"], "?")
            c.look(f"GET {at}", (await http.get(path, headers=wrong)).content)
            c.look(f"POST {at}", (await http.post(path, headers=wrong, json={"a": c["bearer"]})).content)


async def test_a_process_under_traffic_leaves_no_secret_and_says_when_it_came_and_went(tmp_path: Path) -> None:
    c = Canaries(PLACES, "unknown")
    (tmp_path / "web").mkdir()
    web = spy(tmp_path / "web", *(tool(name) for name in TOOLS))
    with serving(web) as url:
        server, entries = servers(tmp_path, c, url)
        async with site(tmp_path, entries, "use") as s:
            printed = await _run(s, c)
    desk = Desk(tmp_path)
    for line in printed:
        c.look("what it printed", line)
    assert any(b"DEBUG" in line for line in printed) and any(b"Ctrl-C" in line for line in printed)
    assert c["env"].encode() in server.heard and c["web_file"].encode() in web.heard  # they went where they had to go
    records = desk.json("audit", "list", "--kind", "configuration")
    begun, ended = (it["fields"] for it in records)
    assert begun["instance"] == ended["instance"] and ended["running"] == 0 and "stopped" in ended["summary"]
    (call,) = {it["call"] for it in desk.json("audit", "list", "--tool", "web__drop", "--decision", "permit")}
    for words in COMMANDS:
        done = desk.run(*words.replace("CALL", call).split())
        assert "Traceback" not in done.err and (done.out or done.err), (words, done)
        c.look(words, done.out + done.err)
    master = (tmp_path / "data" / "master.key").read_bytes()
    assert master not in (tmp_path / "copy.db").read_bytes() and master.hex().encode() not in b"".join(printed)
    c.look("the backup", (tmp_path / "copy.db").read_bytes())
    c.look_below(tmp_path / "data")
    assert c.found == [], "\n".join(c.found)


async def _run(s: Site, c: Canaries) -> list[bytes]:
    """What the process printed, once it was told to stop and has."""
    process = _started(s, c)
    try:
        await work(s, c)
        _require_no_core(process.pid)
        process.send_signal(signal.SIGTERM)
        assert await anyio.to_thread.run_sync(process.wait, SOON) == 0
    finally:
        process.kill()
        process.wait()
    return [line for name in ("out", "err") for line in s.file.with_name(name).read_bytes().splitlines()]


def _started(s: Site, c: Canaries) -> subprocess.Popen[bytes]:
    """The process, which could leave a core file if it let itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    out, err = s.file.with_name("out"), s.file.with_name("err")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        with out.open("wb") as to, err.open("wb") as too:
            command = [sys.executable, "-c", LOUD, "--config", str(s.file), "serve"]
            environment = {"PATH": "/usr/bin:/bin", "HOME": str(s.file.parent), "SOME_SECRET": c["surrounding"]}
            return subprocess.Popen(command, stdout=to, stderr=too, env=environment, cwd=s.file.parent)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def _require_no_core(process: int) -> None:
    """Its memory has the master key."""
    if (limits := Path(f"/proc/{process}/limits")).exists():
        (most,) = [it for it in limits.read_text().splitlines() if it.startswith("Max core file size")]
        assert most.split()[4] == "0", most
