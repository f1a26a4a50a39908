"""An installation on disk whose gateway runs as an operator runs it: as processes of its own, one or several."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2

from mcp_authz.agents import Agents, People
from mcp_authz.approvals import Approvals
from mcp_authz.config import Config, load_config
from mcp_authz.installation import Installation, open_installation, utc_now
from mcp_authz.model import Assurance, HoldId
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.verdict import make_statement
from mcp_authz.sessions import Sessions
from tests.ports import free_port
from tests.world import ENVELOPE, MODERN, modern_call

PROGRAM = Path(sys.executable).parent / "mcp-authz"
SOON = 20.0
BY = "user:operator"


@dataclass
class Site:
    """An installation with a person and an agent, and what they have."""

    file: Path  # the configuration
    config: Config
    scope: str
    agent: PrivateKey = field(default_factory=PrivateKey.generate)
    approver: PrivateKey = field(default_factory=PrivateKey.generate)

    @contextmanager
    def serving(self, beside: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """The gateway, or one more process of it on another port; killed in the end, if it still runs."""
        more = () if beside is None else ("--beside", str(beside))
        command = [str(PROGRAM), "--config", str(self.file), "serve", *more]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                process.kill()

    def at(self, port: int | None = None) -> httpx2.AsyncClient:
        """A client of the process on this port, which it reaches as through a proxy that answers at the public URL."""
        where = f"http://127.0.0.1:{port or self.config.listen_port}"
        host = self.config.public_url.removeprefix("http://")
        none = httpx2.Limits(max_connections=None)
        return httpx2.AsyncClient(base_url=where, headers={"host": host}, timeout=SOON, limits=none)

    async def up(self, http: httpx2.AsyncClient) -> None:
        """Return once the process answers."""

        async def answers() -> bool:
            try:
                return (await http.get("/healthz")).status_code == 200
            except httpx2.TransportError:
                return False

        await until(answers)

    async def token(self, http: httpx2.AsyncClient) -> str:
        """An access token of the agent; every process takes it."""
        now = int(utc_now().timestamp())
        claims = {"iss": "coder", "sub": "coder", "aud": self.config.public_url, "iat": now, "exp": now + 60}
        claims["jti"] = PrivateKey.generate().public.thumbprint
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": jose.sign(claims, typ="JWT", key=self.agent),
            "scope": self.scope,
        }
        return str((await http.post("/token", data=form)).json()["access_token"])

    async def call(
        self, http: httpx2.AsyncClient, tool: str, arguments: Any, *, token: str | None = None, **params: Any
    ) -> dict[str, Any]:
        """The result of one call."""
        result: dict[str, Any] = (await self.answer(http, tool, arguments, token=token, **params))["result"]
        return result

    async def answer(
        self, http: httpx2.AsyncClient, tool: str, arguments: Any, *, token: str | None = None, **params: Any
    ) -> dict[str, Any]:
        """The whole answer to one call."""
        headers = {
            "authorization": f"Bearer {token or await self.token(http)}",
            "accept": "application/json",
            "content-type": "application/json",
            "mcp-protocol-version": MODERN,
            "mcp-method": "tools/call",
            "mcp-name": tool,
        }
        body = json.dumps(modern_call(tool, arguments, **params)).encode()
        answer: dict[str, Any] = (await http.post("/mcp", content=body, headers=headers)).json()
        return answer

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
async def site(directory: Path, servers: dict[str, Any], scope: str, *, waiting: int = 0) -> AsyncIterator[Site]:
    """An installation with everybody enrolled and a session open; held calls wait for so many seconds."""
    file = directory / "gateway.toml"
    file.write_text(
        f'public_url = "http://localhost:{free_port()}"\ndata_dir = "data"\nnotify = "none"\n'
        f"waiting = {{seconds = {waiting}}}\nservers = {toml(servers)}\n"
    )
    here = Site(file=file, config=load_config(file), scope=scope)
    async with open_installation(here.config) as installation:
        people, store = People(installation.store, utc_now), installation.store
        await people.add("alice", by=BY)
        await people.add_key("alice", here.approver.public, by=BY)
        ceiling = parse_scopes(scope)
        await Agents(store, utc_now).add("coder", owner="alice", key=here.agent.public, ceiling=ceiling, by=BY)
        sessions = Sessions(store, utc_now)
        await sessions.start(await sessions.grant("alice", "coder", scope=ceiling, by=BY), purpose="test", by=BY)
    yield here


def toml(value: Any) -> str:
    """The value as TOML has it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def outcome_of(result: dict[str, Any]) -> dict[str, Any]:
    """What the gateway says of a call; nothing where it only forwarded it."""
    envelope: dict[str, Any] = (result.get("_meta") or {}).get(ENVELOPE, {})
    return envelope
