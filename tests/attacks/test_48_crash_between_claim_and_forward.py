"""Row 48: the gateway dies between claim and outcome. Then nobody can say whether the call ran, and it never runs again
by itself: after the next start the hold is `unknown`, also when the tool server had not been reached at all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.agents import Agents, People
from mcp_authz.approvals import Approvals
from mcp_authz.config import Config, load_config
from mcp_authz.installation import Installation, open_installation, utc_now
from mcp_authz.model import Assurance, HoldId, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.log import first_break
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.verdict import make_statement
from mcp_authz.sessions import Sessions
from mcp_authz.store.offline import stored_head, stored_records
from tests.ports import free_port
from tests.road.places import DESTRUCTIVE, asking
from tests.world import MODERN, modern_call

PROGRAM = Path(sys.executable).parent / "mcp-authz"
SOON = 20.0
BY = "user:operator"


@dataclass
class Site:
    """An installation on disk with a person and an agent, and a tool server that never answers."""

    file: Path  # the configuration
    config: Config
    reached: Path  # a line for each call that reached the tool server
    agent: PrivateKey = field(default_factory=PrivateKey.generate)
    approver: PrivateKey = field(default_factory=PrivateKey.generate)

    @property
    def calls(self) -> list[Any]:
        """The calls that reached the tool server."""
        return [json.loads(line) for line in self.reached.read_text().splitlines()] if self.reached.exists() else []

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        """The gateway as an operator runs it: a process of its own."""
        command = [str(PROGRAM), "--config", str(self.file), "serve"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                process.kill()

    async def up(self, http: httpx2.AsyncClient) -> None:
        """Return once the gateway answers."""

        async def answers() -> bool:
            try:
                return (await http.get(f"{self.config.public_url}/healthz")).status_code == 200
            except httpx2.TransportError:
                return False

        await until(answers)

    async def call(self, http: httpx2.AsyncClient) -> dict[str, Any]:
        """The result of the one destructive call."""
        signed_in = int(utc_now().timestamp())
        claims = {"iss": "coder", "sub": "coder", "aud": self.config.public_url, "iat": signed_in}
        claims |= {"exp": signed_in + 60, "jti": PrivateKey.generate().public.thumbprint}
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": jose.sign(claims, typ="JWT", key=self.agent),
            "scope": "use",
        }
        token = (await http.post(f"{self.config.public_url}/token", data=form)).json()["access_token"]
        headers = {
            "authorization": f"Bearer {token}",
            "accept": "application/json",
            "content-type": "application/json",
            "mcp-protocol-version": MODERN,
            "mcp-method": "tools/call",
            "mcp-name": "asking__block",
        }
        body = json.dumps(modern_call("asking__block", {"what": "everything"})).encode()
        answer = await http.post(self.config.resource, content=body, headers=headers)
        result: dict[str, Any] = answer.json()["result"]
        return result

    async def approve(self, here: Installation, hold: HoldId) -> None:
        """Alice's verdict, by a process of its own on the same store, as the command line gives it."""
        held = await here.store.hold(hold)
        assert held is not None
        statement = make_statement(
            held,
            person=PersonName("alice"),
            approve=True,
            assurance=Assurance.SIGNED_IN,
            reason="",
            at=utc_now(),
            key=self.approver,
        )
        approvals = Approvals(store=here.store, clock=utc_now, gateway_key=PrivateKey.generate())
        await approvals.hear_signed(hold, PersonName("alice"), statement)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Return once it is true."""
    with anyio.fail_after(SOON):
        while not await true():  # noqa: ASYNC110 - other processes have no event for this
            await anyio.sleep(0.02)


@asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Site]:
    """An installation with everybody enrolled and a session open."""
    port = free_port()
    server = asking(directory / "reached", tools=DESTRUCTIVE)
    file = directory / "gateway.toml"
    file.write_text(
        f'public_url = "http://localhost:{port}"\ndata_dir = "data"\n'
        f"[servers.asking]\ncommand = {json.dumps(server['command'])}\ncwd = {json.dumps(server['cwd'])}\n"
        '[servers.asking.tools."*"]\nhazard = "destructive"\nscopes = ["use"]\n'
    )
    here = Site(file=file, config=load_config(file), reached=directory / "reached")
    async with open_installation(here.config) as installation:
        people, store = People(installation.store, utc_now), installation.store
        await people.add("alice", by=BY)
        await people.add_key("alice", here.approver.public, by=BY)
        scope = parse_scopes("use")
        await Agents(store, utc_now).add("coder", owner="alice", key=here.agent.public, ceiling=scope, by=BY)
        sessions = Sessions(store, utc_now)
        await sessions.start(await sessions.grant("alice", "coder", scope=scope, by=BY), purpose="test", by=BY)
    yield here


def outcome_of(result: dict[str, Any]) -> dict[str, Any]:
    """What the gateway says of a call."""
    envelope: dict[str, Any] = result["_meta"]["dev.mcp-authz/outcome"]
    return envelope


def stop_reading(site: Site, gateway: int) -> None:
    """The tool server is there, but what it is sent stays unread."""
    children = Path(f"/proc/{gateway}/task/{gateway}/children").read_text().split()
    (child,) = [int(pid) for pid in children if "asking.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(child, signal.SIGSTOP)


@pytest.mark.parametrize("reached", [True, False], ids=["while the tool runs", "before the tool server reads it"])
async def test_a_call_whose_gateway_died_is_unknown_and_never_runs_again(tmp_path: Path, reached: bool) -> None:
    async def claimed() -> bool:
        held = await installation.store.hold(hold)
        return held is not None and held.state is HoldState.CLAIMED and (not reached or bool(here.calls))

    async def call_and_hear_nothing() -> None:
        with pytest.raises(httpx2.TransportError):
            await here.call(http)

    async with (
        site(tmp_path) as here,
        open_installation(here.config) as installation,
        httpx2.AsyncClient(timeout=SOON) as http,
    ):
        with here.serving() as gateway:
            await here.up(http)
            hold = HoldId(outcome_of(await here.call(http))["hold"])
            await here.approve(installation, hold)
            if not reached:
                stop_reading(here, gateway.pid)
            async with anyio.create_task_group() as group:
                group.start_soon(call_and_hear_nothing)
                await until(claimed)
                gateway.send_signal(signal.SIGKILL)

        with here.serving():
            await here.up(http)
            held = await installation.store.hold(hold)
            assert held is not None and held.state is HoldState.UNKNOWN
            ran = len(here.calls)
            again = await here.call(http)
            assert outcome_of(again) | {"call": ""} == {
                "outcome": "replayed",
                "call": "",
                "hold": hold,
                "state": "unknown",
            }
            assert "nobody can say whether it ran" in again["content"][0]["text"]
            assert len(here.calls) == ran <= 1

        kinds = [(r.event.kind, r.event.fields) for r in await installation.store.records(limit=1_000)]
        assert [f["outcome"] for kind, f in kinds if kind == "outcome"] == ["unknown"]
        assert [f["decision"] for kind, f in kinds if kind == "decision"] == ["hold", "permit", "replay"]
    path = here.config.data / "store.db"
    assert first_break(stored_records(path), head=stored_head(path)) is None


async def test_after_the_time_of_the_replay_an_interrupted_call_is_held_anew(tmp_path: Path) -> None:
    ahead = timedelta()
    async with site(tmp_path) as here, httpx2.AsyncClient(timeout=SOON) as http:
        async with open_installation(here.config, clock=lambda: utc_now() + ahead) as installation:
            with here.serving():
                await here.up(http)
                hold = HoldId(outcome_of(await here.call(http))["hold"])
                await here.approve(installation, hold)
                ahead = -timedelta(minutes=3)  # as if all of this had been a while ago
                await installation.store.move_hold(hold, come_from=HoldState.APPROVED, to=HoldState.CLAIMED, event=None)
                await installation.store.move_hold(hold, come_from=HoldState.CLAIMED, to=HoldState.UNKNOWN, event=None)
                ahead = timedelta()
                anew = outcome_of(await here.call(http))
        assert anew["outcome"] == "held" and anew["hold"] != hold
        assert here.calls == []
