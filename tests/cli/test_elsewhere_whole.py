"""A command with `--at URL` says what the same command says where the gateway runs, as far as the roles reach."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import tomlkit
from click.testing import Result
from typer.testing import CliRunner

from mcp_authz import limits
from mcp_authz.administration import Administration, at_the_store
from mcp_authz.audit_proofs import Proofs
from mcp_authz.cli import elsewhere_log
from mcp_authz.cli.main import app
from mcp_authz.client.administering import Elsewhere
from mcp_authz.store.ports import Event
from mcp_authz.turns import SlowDown
from tests.cli.desk import Desk
from tests.cli.test_audit_bundle import a_signed_deployment
from tests.cli.test_audit_evidence import checkpoint
from tests.road.test_administration_api import api
from tests.world import ROOT, World, incident_server, world

BOTH = "administration:read administration:stop"
ROLES = {"admins": ["user:ada"], "auditors": ["user:ann"]}
FORMS = ("chain", "jsonl", "csv", "ocsf")
LISTS = (["user"], ["client"], ["grant"], ["tools"], ["keys"], ["agent"])


class Desks:
    """The command line on the machine of the gateway, and on those of people."""

    def __init__(self, w: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.w = w
        self.before_each = anyio.lowlevel.checkpoint  # what happens there before each question
        self._patch = monkeypatch
        self._config = w.directory / "gateway.toml"
        servers = {"acme": incident_server(w.directory)}
        values = {"public_url": w.config.public_url, "data_dir": str(w.directory / "data"), "servers": servers}
        self._config.write_text(tomlkit.dumps({**values, "administration": ROLES}))

    async def here(self, *words: str) -> Result:
        return await anyio.to_thread.run_sync(CliRunner().invoke, app, ["--config", str(self._config), *words])

    async def of(self, person: str, *words: str) -> Result:
        """What the person's own command line says, by their own token."""
        by = await self.w.client_agent(f"{person}-cli", person, scope=BOTH)
        desks = self

        class Asked(Elsewhere):
            async def read(self, path: str, **query: str | int | None) -> dict[str, Any]:
                await desks.before_each()
                return await super().read(path, **query)

        @asynccontextmanager
        async def there(url: str, _: httpx2.Auth) -> AsyncIterator[Elsewhere]:
            async with httpx2.AsyncClient(headers={"authorization": f"Bearer {by.access_token}"}) as http:
                yield Asked(url, http)

        self._patch.setattr("mcp_authz.cli.elsewhere.administering", there)
        return await anyio.to_thread.run_sync(CliRunner().invoke, app, ["--at", self.w.url, *words])


def told(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(result: Result) -> str:
    assert result.exit_code != 0
    return str(result.exception) + result.output


async def settled(w: World) -> None:
    """A log with calls of two people's agents."""
    coder = await w.ready("coder", "pr:read:acme:api")
    for person in ("ada", "ann", "eve"):
        await w.person(person)
    for repo in ("api", "web"):
        await w.call(coder, "acme__list_pull_requests", owner="acme", repo=repo)
    fields = {"summary": "=1+1 \u2028 \u00e9 \U0001f600", "by": "user:alice", "numbers": [1, 2.5, -1e-7, None, True]}
    await w.store.append(Event(kind="administration", at=w.clock(), fields=fields))


async def test_an_export_elsewhere_is_byte_by_byte_that_of_the_store_whatever_comes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere_log, "_PAGE", 7)
    async with world(tmp_path, administration=ROLES) as w:
        await settled(w)
        desks, asked = Desks(w, monkeypatch), [0]

        async def append() -> None:
            asked[0] += 1
            await w.store.append(Event(kind="administration", at=w.clock(), fields={"summary": "meanwhile"}))

        desks.before_each = append
        ways = [[form] for form in FORMS] + [["csv", "--agent", "coder"], ["jsonl", "--text", "EANWHILE"]]
        for form, *filters in ways:
            out, asked[0] = tmp_path / "out", 0
            elsewhere = await desks.of("ann", "audit", "export", "--format", form, "--out", str(out), *filters)
            assert elsewhere.exit_code == 0, (elsewhere.output, elsewhere.exception)
            assert asked[0] > 2 or filters, "in several answers"
            here = await desks.here("audit", "export", "--format", form, "--out", str(tmp_path / "here"), *filters)
            assert here.exit_code == 0, here.output
            written, kept = out.read_bytes(), (tmp_path / "here").read_bytes()
            assert out.stat().st_mode & 0o777 == 0o600
            # What came while it was read is not in it, and nothing is missing before that.
            head = int(elsewhere.stderr.split("up to record ")[1].split(",")[0])
            later = (await w.store.head())[0] - head
            assert later > 0 and kept.startswith(written), form
            if form == "chain":
                assert written.count(b"\n") == head
                hash_ = (await w.store.record_hashes(after=head - 1, until=head))[0]
                assert f"hash {hash_.hex()}" in elsewhere.stderr
                verify = [sys.executable, str(ROOT / "examples" / "verify_audit.py"), str(out)]
                done = await anyio.run_process(verify, check=False, stderr=subprocess.DEVNULL)
                assert done.returncode == 0
            if not filters:
                assert len(kept.splitlines()) - len(written.splitlines()) == later
        desks.before_each = anyio.lowlevel.checkpoint
        told(await desks.of("ann", "audit", "export", "--format", "jsonl", "--out", str(tmp_path / "one")))
        monkeypatch.setattr(limits, "EXPORTED_BYTES", 600)  # about one record in an answer
        told(await desks.of("ann", "audit", "export", "--format", "jsonl", "--out", str(tmp_path / "many")))
        assert (tmp_path / "many").read_bytes().startswith((tmp_path / "one").read_bytes())

        for person in ("eve", "alice"):
            gone = tmp_path / "none"
            assert "takes a role" in refused(
                await desks.of(person, "audit", "export", "--format", "jsonl", "--out", str(gone))
            )
            assert not gone.exists()
        tried = (await w.records("administration"))[-1].event.fields
        assert tried["command"] == "audit export" and tried["by"] == "user:alice" and tried["decision"] == "deny"
        administered = [record.event.fields for record in await w.records("administration")]
        exports = [(it["by"], it["command"]) for it in administered if "head" in it]
        assert exports == [("user:ann", "audit export")], "once, however often"
        both = await desks.of("ann", "audit", "export", "--format", "csv", "--store", str(gone))
        assert "not both" in refused(both)
        assert "leave the filters out" in refused(
            await desks.of("ann", "audit", "export", "--format", "chain", "--kind", "pin")
        )
        verifying = refused(await desks.of("ann", "audit", "verify"))
        assert "leave out --at" in verifying and "audit export --format chain" in verifying


async def test_a_bundle_from_elsewhere_is_that_of_the_store_and_verifies_where_there_is_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ("here", "there", "keys", "none")}
    async with world(tmp_path, administration=ROLES) as w:
        for person in ("ada", "ann", "eve", "alice"):
            await w.person(person)
        await checkpoint(w, tmp_path / "checkpoints.txt")  # one for the enrolments, and one for the call
        hold, desks = await a_signed_deployment(w), Desks(w, monkeypatch)
        await desks.of("ann", "agent", "list")  # so that what makes her client is in the log
        await checkpoint(w, tmp_path / "checkpoints.txt")
        explain = ("audit", "explain", hold, "--bundle")
        there = told(await desks.of("ann", *explain, str(files["there"])))
        assert "mcp-authz audit verify --excerpt" in there and f"mcp-authz --at {w.url} audit keys" in there
        told(await desks.here(*explain, str(files["here"])))
        assert files["there"].read_bytes() == files["here"].read_bytes(), "who took one is no part of the next"
        assert files["there"].stat().st_mode & 0o777 == 0o600
        keys = told(await desks.of("ann", "audit", "keys"))
        assert keys == told(await desks.here("audit", "keys"))
        files["keys"].write_text(keys)

        taken = (await w.records("administration"))[-1].event.fields
        call = (await w.records("decision"))[0].event.call
        assert (taken["by"], taken["command"], taken["bundle"]) == ("user:ann", "audit explain --bundle", call)
        assert "is there already" in refused(await desks.of("ada", *explain, str(files["here"])))
        for person in ("alice", "eve"):  # it is alice's own call, whose story she may read
            for words in ((*explain, str(files["none"])), ("audit", "keys")):
                assert "takes a role" in refused(await desks.of(person, *words))
                tried = (await w.records("administration"))[-1].event.fields
                assert (tried["by"], tried["decision"]) == (f"user:{person}", "deny")
                assert tried["command"] == ("audit keys" if words[-1] == "keys" else "audit explain --bundle")
        valued = await desks.of("ann", *explain, str(files["none"]), "--with-arguments")
        assert "values of arguments" in refused(valued)
        assert "no record is of" in refused(await desks.of("ann", "audit", "explain", "c_0", *explain[3:], "none.json"))
        async with api(w, "ann") as http:
            for path in (f"/calls/{hold}/bundle", "/audit-keys"):
                assert (await http.get(path, params={"with_arguments": "true"})).status_code == 400
        for name, most in (("BUNDLE_BYTES", 1000), ("BUNDLE_RECORDS", 1), ("BUNDLE_WITHIN", timedelta(0))):
            with monkeypatch.context() as patched:
                patched.setattr(limits, name, most)
                too_much = refused(await desks.of("ann", *explain, str(files["none"])))
                assert "on the machine of the gateway" in too_much, name
        assert not files["none"].exists()
        assert len([it for it in await w.records("administration") if "bundle" in it.event.fields]) == 1

        monkeypatch.setattr(limits, "BUNDLES_BURST", 1)
        proofs = Proofs(Administration(w.store, w.clock), w.store, w.clock, gateway=w.url)
        assert await proofs.bundle(at_the_store("user:x"), hold)
        with pytest.raises(SlowDown, match="each has a record"):
            await proofs.bundle(at_the_store("user:x"), hold)

    (tmp_path / "far").mkdir()
    verify = ("audit", "verify", "--excerpt", str(files["there"]), "--keys", str(files["keys"]))
    done = await anyio.to_thread.run_sync(lambda: Desk(directory=tmp_path / "far").run(*verify, global_options=()))
    assert done.code == 0 and "alice's own key signed that they approved exactly this" in done.out, done


async def test_lists_elsewhere_are_those_of_the_store_for_whom_the_table_gives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await settled(w)
        desks = Desks(w, monkeypatch)
        await desks.of("ann", "agent", "list")  # so that her client is there
        for words in (*([*each, "list"] for each in LISTS), ["agent", "show", "coder"], ["user", "show", "alice"]):
            there = json.loads(told(await desks.of("ann", *words, "--json")))
            assert there == json.loads(told(await desks.here(*words, "--json"))), words
            assert there and told(await desks.of("ann", *words)).strip(), words
            if words[0] == "agent" or words[1] == "show":
                continue
            assert "takes a role" in refused(await desks.of("eve", *words)), words
            tried = (await w.records("administration"))[-1].event.fields
            assert tried["command"] == " ".join(words) and tried["by"] == "user:eve"
        assert "there is no agent `coder`" in refused(await desks.of("eve", "agent", "show", "coder"))
        assert "there is no agent `nobody`" in refused(await desks.of("eve", "agent", "show", "nobody"))
        assert "key 1" in told(await desks.of("alice", "agent", "show", "coder"))
        for name in ("alice", "nobody"):
            assert f"there is no person `{name}`" in refused(await desks.of("eve", "user", "show", name))
        assert told(await desks.of("eve", "user", "show", "eve")).startswith("person     eve")


async def test_an_administrator_stops_tools_servers_and_all_of_a_subject_by_name_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await settled(w)
        desks = Desks(w, monkeypatch)
        why = ("--reason", "leaks")
        for kind, name in (("tool", "acme__deploy"), ("server", "acme")):
            would = told(await desks.of("ada", "revoke", kind, name, *why, "--dry-run"))
            assert f"{kind} {name} would be switched off" in would and f"revoke {kind} {name}" in would
            assert not await w.store.switched_off() or kind == "server"
            did = told(await desks.of("ada", "revoke", kind, name, *why))
            assert "is switched off" in did and "mcp-authz tools accept" in did
            assert "already" in told(await desks.of("ada", "revoke", kind, name, *why))
        assert {(it.server, it.tool) for it in await w.store.switched_off()} == {("acme", "deploy"), ("acme", "")}
        assert "did you mean `acme__deploy`" in refused(await desks.of("ada", "revoke", "tool", "acme__deplo", *why))
        assert "there are: acme" in refused(await desks.of("ada", "revoke", "server", "nowhere", *why))

        everything = ("revoke", "everything", "--of", "agent:coder", "--before", "now", *why)
        would = told(await desks.of("ada", *everything, "--dry-run"))
        assert "would stop: 1 session" in would and "--of agent:coder --before now" in would
        there = json.loads(told(await desks.of("ada", *everything, "--dry-run", "--json")))
        here = json.loads(told(await desks.here(*everything, "--dry-run", "--json")))
        assert there == here
        assert "stopped: 1 session" in told(await desks.of("ada", *everything))
        assert "nothing was changed" in told(await desks.of("ada", *everything))

        (agent,) = [it for it in await w.store.agents() if it.name == "ada-cli@ada"]
        (client,) = [it for it in await w.store.clients() if it.id == agent.client]
        gone = told(await desks.of("ada", "revoke", "client", client.handle, *why, "--json", "--dry-run"))
        assert json.loads(gone)["name"] == client.id and json.loads(gone)["links"]
        away = ("revoke", "everything", "--of", f"client:{client.handle}", "--before", "now", *why, "--dry-run")
        assert json.loads(told(await desks.of("ada", *away, "--json")))["name"] == f"client:{client.id}"

        assert "would be stopped" in told(await desks.of("ada", "stop-all", *why, "--dry-run"))
        assert "all calls are stopped" in told(await desks.of("ada", "stop-all", *why))
        assert "stopped before" in told(await desks.of("ada", "stop-all", *why, "--dry-run"))
        assert "forwarded again" in told(await desks.of("ada", "start-all"))
