"""Commands with `--at URL`: a person administers a gateway elsewhere by their own login, as far as they may."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx2

from mcp_authz.principals import SessionId
from tests.cli.test_login import COMMAND, SOON, environment, kept, run
from tests.web.asking import agree
from tests.web.authenticator import Visit, visiting
from tests.world import world

READS, STOPS = "administration:read", "administration:stop"


async def agreeing(home: Path, person: Visit, scopes: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    """The command has ended, after the person agreed to these scopes in their browser."""
    command, (ours, theirs) = [*COMMAND, "--at", person.w.url, *words], pty.openpty()
    async with await anyio.open_process(command, env=environment(home), stderr=theirs) as process:
        os.close(theirs)
        try:
            assert process.stdout is not None
            said = ""
            with anyio.fail_after(SOON):
                while (found := re.search(r"^  (http\S+)\r?$", said, re.MULTILINE)) is None:
                    said += (await anyio.to_thread.run_sync(os.read, ours, 4096)).decode()
                asked = urlsplit(found[1])
                shown = await person.get(f"{asked.path}?{asked.query}")
                assert "The gateway itself" in shown.text and all(scope in shown.text for scope in scopes), shown.text
                went = await agree(person, asked.query, scopes)
                assert went.status_code == 200, went.text
                await httpx2.AsyncClient().get(went.json()["next"])
                out = b"".join([part async for part in process.stdout]).decode()
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            os.close(ours)
    return subprocess.CompletedProcess(words, process.returncode or 0, out, said)


async def test_a_person_reads_and_stops_from_another_machine_what_is_theirs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with world(tmp_path, administration={"admins": ["user:ada"]}) as w:
        await w.ready("coder", "pr:read:acme:api")
        await w.ready("other", "pr:read:acme:api", subject="bob")
        (mine,) = [it.id for it in await w.store.sessions() if it.subject == "alice"]
        (theirs,) = [it.id for it in await w.store.sessions() if it.subject == "bob"]
        async with visiting(w, "alice") as alice:
            alone = await run(home, "--at", w.url, "agent", "list")
            assert alone.returncode == 1 and f"mcp-authz login {w.url} --scope {READS}" in alone.stderr, alone.stderr
            told = await agreeing(home, alice, [READS], "agent", "list")
            assert told.returncode == 0 and "coder" in told.stdout and "other" not in told.stdout, told.stderr
            assert len(kept(home)) == 1

            listed = await run(home, "--at", w.url, "audit", "list", "--agent", "coder", "--json")
            assert listed.returncode == 0, listed.stderr
            assert {"coder" in json.dumps(record) for record in json.loads(listed.stdout)} == {True}
            shown = await run(home, "--at", w.url, "session", "show", mine)
            assert shown.returncode == 0 and "agent:coder" in shown.stdout and "pr:read:acme:api" in shown.stdout
            assert f"session {mine}: open\n" in shown.stdout and "calls, depth 0, may" in shown.stdout
            there = await run(home, "--at", w.url, "session", "list", "--json")
            assert (mine, "open") in [(it["id"], it["state"]) for it in json.loads(there.stdout)]
            columns = (await run(home, "--at", w.url, "session", "list")).stdout.splitlines()[0].split()
            assert columns == ["SESSION", "STATE", "AGENT", "FOR", "PURPOSE", "UNTIL", "CALLS"]
            hidden = await run(home, "--at", w.url, "session", "show", theirs)
            assert hidden.returncode == 1 and hidden.stderr == f"mcp-authz: there is no session `{theirs}`\n"

            stop = ("revoke", "session", mine, "--reason", "enough")
            told = await agreeing(home, alice, [READS, STOPS], *stop)
            assert told.returncode == 0 and f"session {mine} is revoked" in told.stdout, told.stderr
            assert "stopped: agent coder" in told.stdout
            session = await w.store.session(SessionId(mine))
            assert session is not None and session.status == "revoked"
            shown = await run(home, "--at", w.url, "session", "show", mine)
            assert f"session {mine}: revoked\n" in shown.stdout and "  open\n" not in shown.stdout
            again = await run(home, "--at", w.url, *stop)
            assert again.returncode == 0 and "already" in again.stdout

            refused = await run(home, "--at", w.url, "stop-all", "--reason", "because")
            assert refused.returncode == 1 and "takes a role that you do not have" in refused.stderr
            assert not await w.store.switched_off()
            here = await run(home, "--at", w.url, "user", "sign-out", "alice")
            assert here.returncode == 1 and "leave out --at" in here.stderr
            bundle = ("audit", "explain", "c_1", "--bundle", str(tmp_path / "b.json"))
            valued = await run(home, "--at", w.url, *bundle, "--with-arguments")
            assert valued.returncode == 1 and "values of arguments" in valued.stderr
            lean = await run(home, "--at", w.url, *bundle)
            assert lean.returncode == 1 and "takes a role that you do not have" in lean.stderr
            assert not (tmp_path / "b.json").exists()
            gone = await run(home, "--at", "http://localhost:9", "audit", "list")
            assert gone.returncode == 1 and "Traceback" not in gone.stderr, gone.stderr
