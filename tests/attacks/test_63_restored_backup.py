"""Row 63: a backup that is put back would bring back spent approvals, revoked keys and what was switched off."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from mcp_authz.agents import Agents
from mcp_authz.installation import Installation, open_installation, utc_now
from mcp_authz.model import HoldId, HoldState
from mcp_authz.principals import AgentName
from mcp_authz.revocation import Revocation
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.stopping import Stopping
from mcp_authz.store.ports import Pin
from tests.servers import loaded
from tests.site import BY, Site, outcome_of, site
from tests.world import MODERN, incident_server, modern_call

SCOPE = "deploy:staging"
DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging"}
WAITING = {**DEPLOY, "version": "waiting"}
SPENT = {**DEPLOY, "version": "spent"}


def deployed(directory: Path) -> list[str]:
    """The versions that were really deployed, as the tool server wrote it down."""
    file = directory / "state" / "deployments.jsonl"
    return [json.loads(line)["version"] for line in file.read_text().splitlines()] if file.exists() else []


def command(here: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the operator, run to its end."""
    line = loaded.command("mcp_authz.cli.main", "--config", str(here.file), *words)
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)


def assertion(here: Site, key: PrivateKey, name: str = "coder") -> dict[str, str]:
    """The form by which an agent signs in, whoever sends it."""
    now = int(utc_now().timestamp())
    claims = {"iss": name, "sub": name, "aud": here.config.public_url, "iat": now, "exp": now + 300}
    signed = jose.sign({**claims, "jti": PrivateKey.generate().public.thumbprint}, typ="JWT", key=key)
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    return {"grant_type": "client_credentials", "client_assertion_type": kind, "client_assertion": signed}


async def held(here: Site, http: httpx2.AsyncClient, arguments: dict[str, str], token: str) -> HoldId:
    """The id of the hold that this call is waiting in."""
    return HoldId(outcome_of(await here.call(http, "acme__deploy", arguments, token=token))["hold"])


async def enrol(installation: Installation, name: str) -> PrivateKey:
    """One more agent of alice."""
    key = PrivateKey.generate()
    ceiling = parse_scopes(SCOPE)
    await Agents(installation.store, utc_now).add(name, owner="alice", key=key.public, ceiling=ceiling, by=BY)
    return key


@dataclass
class Before:
    """What was there when the backup was made, and what was shown afterwards."""

    lost: PrivateKey  # of an agent that is revoked afterwards
    stolen: PrivateKey  # itself revoked afterwards
    token: str = ""
    holds: tuple[HoldId, ...] = ()
    once: dict[str, str] = field(default_factory=dict)  # a sign-in that was used up


async def deploy_pin(installation: Installation) -> Pin:
    """The tool that is switched off."""
    return next(pin for pin in await installation.store.pins() if pin.tool == "deploy")


async def live(here: Site, http: httpx2.AsyncClient, backup: Path, directory: Path) -> Before:
    """A backup with one approved call and one that waits; then both run, and much is revoked."""
    async with open_installation(here.config) as installation:
        before = Before(lost=await enrol(installation, "lost"), stolen=await enrol(installation, "stolen"))
        before.token = await here.token(http)
        spent = await held(here, http, SPENT, before.token)
        await here.approve(installation, spent)
        waiting = await held(here, http, WAITING, before.token)
        before.holds = (spent, waiting)
        done = command(here, "backup", str(backup))
        assert done.returncode == 0 and "master.key" in done.stdout, done
        assert "is whole" in command(here, "backup", "--verify", str(backup)).stdout
        await here.call(http, "acme__deploy", SPENT, token=before.token)
        await here.approve(installation, waiting)
        await here.call(http, "acme__deploy", WAITING, token=before.token)
        assert deployed(directory) == ["spent", "waiting"]
        before.once = assertion(here, here.agent)
        assert (await http.post("/token", data=before.once)).status_code == 200
        revocation, stopping = Revocation(installation.store, utc_now), Stopping(installation.store, utc_now)
        await revocation.revoke("agent", "lost", reason="lost", by=BY)
        await revocation.revoke("key", before.stolen.public.thumbprint, reason="stolen", by=BY)
        await stopping.tool_off(await deploy_pin(installation), "acme__deploy", reason="leaks", by=BY)
    return before


async def nothing_comes_back(here: Site, http: httpx2.AsyncClient, before: Before) -> None:
    """Whatever was used, open or revoked is of no use."""
    for form in (before.once, assertion(here, before.lost, "lost"), assertion(here, before.stolen, "stolen")):
        assert (await http.post("/token", data=form)).json()["error"] == "invalid_client"
    headers = {
        "authorization": f"Bearer {before.token}",
        "accept": "application/json",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": "acme__deploy",
    }
    assert (await http.post("/mcp", json=modern_call("acme__deploy", SPENT), headers=headers)).status_code == 401
    async with open_installation(here.config) as installation:
        for hold in before.holds:
            known = await installation.store.hold(hold)
            assert known is not None and known.state is HoldState.CANCELLED


async def agents_go_on(here: Site, http: httpx2.AsyncClient) -> HoldId:
    """An agent that signs in anew works in a session that is started anew, by an approval that is given anew."""
    async with open_installation(here.config) as installation:
        store = installation.store
        (grant,) = await store.grants(agent=AgentName("coder"))
        await Sessions(store, utc_now).start(grant, purpose="anew", by=BY)
        token = await here.token(http)
        assert outcome_of(await here.call(http, "acme__deploy", SPENT, token=token))["outcome"] == "denied"
        await Stopping(store, utc_now).tool_on(await deploy_pin(installation), "acme__deploy", by=BY)
        fresh = await held(here, http, SPENT, token)
        await here.approve(installation, fresh)
        await here.call(http, "acme__deploy", SPENT, token=token)
    return fresh


@pytest.mark.parametrize("way", ["restore", pytest.param("cp", marks=pytest.mark.thorough)])
async def test_nothing_that_was_used_or_revoked_after_the_backup_comes_back_with_it(tmp_path: Path, way: str) -> None:
    backup, newest = tmp_path / "backup.db", tmp_path / "newest.db"
    async with site(tmp_path, {"acme": incident_server(tmp_path)}, SCOPE) as here, here.at() as http:
        store = here.config.data / "store.db"
        with here.serving() as gateway:
            await here.up(http)
            before = await live(here, http, backup, tmp_path)
            refused = command(here, "restore", str(backup), "--reason", "x")
            assert refused.returncode == 1 and "a gateway runs here already" in refused.stderr
            gateway.terminate()
            gateway.wait()
        words = ["restore", str(backup)]
        if way == "cp":
            shutil.copy(store, newest)
            shutil.copy(backup, store)
            for started in ("serve", "status"):
                assert "restore --in-place" in command(here, started).stderr
            words = ["restore", "--in-place", "--since", str(newest)]
        done = command(here, *words, "--reason", "the disk broke", "--json")
        assert done.returncode == 0, done
        said = json.loads(done.stdout)
        assert (said["epoch"], said["revocations_known"], said["ended"]["agent"]) == (1, True, ["lost"])
        with here.serving():
            await here.up(http)
            await nothing_comes_back(here, http, before)
            assert await agents_go_on(here, http) not in before.holds
            assert deployed(tmp_path) == ["spent", "waiting", "spent"]
        keys, checkpoints = tmp_path / "keys.json", here.config.data / "checkpoints.txt"
        keys.write_text(command(here, "audit", "keys").stdout)
        verified = command(here, "audit", "verify", "--checkpoints", str(checkpoints), "--keys", str(keys))
        assert verified.returncode == 0 and "checkpoints are of what was lost" in verified.stdout, verified
