"""A desktop: a home directory with a configuration, an agent's key, and clients that start `connect` as they would."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from mcp_authz.agents import Agents, People
from mcp_authz.config import Config, load_config
from mcp_authz.installation import Installation, open_installation
from mcp_authz.locking import is_locked, note_of
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from tests.ports import free_port
from tests.servers.start import PLAIN
from tests.world import LEGACY, MODERN, OPERATOR, ROOT

COMMAND = (sys.executable, "-m", "mcp_authz.cli.main")
SOON = 40.0  # seconds that anything may take on a busy machine
SCOPE = "tools:use"
EVERY_TOOL = {"*": {"hazard": "read", "scopes": [SCOPE]}}
ENVELOPE = "dev.mcp-authz/outcome"


def tools(*command: str, **more: Any) -> dict[str, Any]:
    """The configuration of a tool server whose tools the agent may all use."""
    return {"command": [*(command or PLAIN)], "tools": EVERY_TOOL, **more}


@dataclass
class Desktop:
    """One person's computer."""

    directory: Path
    port: int
    keys: dict[str, PrivateKey] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.directory / "gateway.toml"

    @property
    def config(self) -> Config:
        return load_config(self.path)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def caches(self) -> list[Path]:
        """What `connect` keeps for itself."""
        return sorted((self.directory / "home" / ".local" / "share" / "mcp-authz" / "connect").glob("*"))

    @property
    def environment(self) -> dict[str, str]:
        home = {"HOME": str(self.directory / "home"), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        return {"PATH": os.environ["PATH"], **home}

    def configure(self, servers: Mapping[str, Any], **more: Any) -> None:
        """The configuration is written; JSON values are TOML values but for tables, which are written inline."""
        values = {"public_url": self.url, "data_dir": "data", "notify": "none", "servers": servers, **more}
        self.path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in values.items()))

    def words(self, *more: str, agent: str = "coder") -> list[str]:
        """How a client starts `connect`."""
        return [*COMMAND, "--config", str(self.path), "connect", *more, "--agent", agent]

    async def settle(self, agent: str = "coder", scope: str = SCOPE, **more: Any) -> None:
        """Alice owns the agent, which has its key where `connect` looks for it and a grant of hers."""
        async with open_installation(self.config) as here:
            if await here.store.person("alice") is None:  # type: ignore[arg-type]
                await People(here.store, here.clock).add("alice", by=OPERATOR)
            await self.enrol(here, agent, scope, **more)

    async def enrol(self, here: Installation, agent: str, scope: str = SCOPE, **more: Any) -> None:
        """The agent is enrolled, with a grant of alice's."""
        key = self.keys[agent] = PrivateKey.generate()
        agents, sessions, scopes = Agents(here.store, here.clock), Sessions(here.store, here.clock), parse_scopes(scope)
        await agents.add(agent, owner="alice", key=key.public, ceiling=scopes, by=OPERATOR, **more)
        await sessions.grant("alice", agent, scope=scopes, by=OPERATOR)
        self.write_key(agent)

    def write_key(self, agent: str = "coder", mode: int = 0o600) -> Path:
        """The key lies where `connect` looks for it."""
        path = self.config.agent_key(agent)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(self.keys[agent].to_pem())
        path.chmod(mode)
        return path

    @asynccontextmanager
    async def client(self, mode: str, *more: str, agent: str = "coder", **options: Any) -> AsyncIterator[Client]:
        """A stock SDK client that starts `connect`."""
        command, *words = self.words(*more, agent=agent)
        server = StdioServerParameters(command=command, args=words, env=self.environment, cwd=self.directory)
        with (self.directory / "stderr.log").open("a") as told:
            async with Client(
                stdio_client(server, errlog=told), mode="auto" if mode == MODERN else mode, **options
            ) as client:
                yield client

    @asynccontextmanager
    async def wire(self, *more: str, agent: str = "coder", **env: str) -> AsyncIterator[Wire]:
        """`connect` as a process, spoken to line by line."""
        async with await anyio.open_process(
            self.words(*more, agent=agent), env={**self.environment, **env}, cwd=self.directory
        ) as process:
            wire = Wire(process)
            async with anyio.create_task_group() as group:
                group.start_soon(wire.read_errors)
                try:
                    yield wire
                finally:
                    if process.returncode is None:
                        process.kill()
                    group.cancel_scope.cancel()

    def gateway(self) -> int | None:
        """The process that is the gateway now."""
        if not is_locked(self.config.lock):
            return None
        found = re.search(r"process (\d+)", note_of(self.config.lock))
        return int(found[1]) if found else None

    def kill_gateway(self) -> None:
        """The gateway is gone, without any farewell."""
        process = self.gateway()
        assert process is not None
        os.kill(process, signal.SIGKILL)
        self.wait_for(lambda: self.gateway() is None)

    def gateways(self) -> list[int]:
        """Every process that is a gateway of this desktop, or begins to be one."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if str(self.path).encode() in words and b"serve" in words:
                found.append(int(entry.name))
        return found

    def stop_gateway(self) -> None:
        """The gateway ended as it is told to."""
        process = self.gateway()
        if process is not None:
            os.kill(process, signal.SIGTERM)
            self.wait_for(lambda: not is_locked(self.config.lock))

    @staticmethod
    def wait_for(true: Any) -> None:
        """It is true before long."""
        until = time.monotonic() + SOON
        while not true():
            assert time.monotonic() < until
            time.sleep(0.01)


class Wire:
    """One end of stdio, and everything that was heard on it."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        self.heard: list[dict[str, Any]] = []
        self.out = b""
        self.err = b""
        self._rest = b""

    async def send(self, message: Mapping[str, Any] | bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        assert self.process.stdout is not None
        with anyio.fail_after(SOON):
            while b"\n" not in self._rest:
                more = await self.process.stdout.receive()
                self.out += more
                self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        self.heard.append(message)
        return message

    async def until(self, **members: Any) -> dict[str, Any]:
        """The next message with these members; those before it are kept."""
        with anyio.fail_after(SOON):
            while True:
                message = await self.hear()
                if all(message.get(name) == value for name, value in members.items()):
                    return message

    async def ask(self, id_: Any, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a request."""
        await self.send({"jsonrpc": "2.0", "id": id_, "method": method, "params": params or {}})
        return await self.until(id=id_)

    async def call(self, id_: Any, tool: str, arguments: Any = None, **params: Any) -> dict[str, Any]:
        """The result of a tool call."""
        answer = await self.ask(id_, "tools/call", {"name": tool, "arguments": arguments or {}, **params})
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def introduce(self, **capabilities: Any) -> dict[str, Any]:
        """The handshake of 2025-11-25."""
        me = {"name": "test", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": me}
        answer = await self.ask("hello", "initialize", params)
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        result: dict[str, Any] = answer["result"]
        return result

    async def read_errors(self) -> None:
        assert self.process.stderr is not None
        async for more in self.process.stderr:
            self.err += more

    async def closed(self) -> int:
        """The code with which it ends once there is nothing more to read for it; the rest of its output is kept."""
        assert self.process.stdin is not None and self.process.stdout is not None
        await self.process.stdin.aclose()
        with anyio.fail_after(SOON):
            try:
                while True:
                    self.out += await self.process.stdout.receive()
            except anyio.EndOfStream:
                return await self.process.wait()


def modern(**more: Any) -> dict[str, Any]:
    """The `_meta` of a message of 2026-07-28."""
    return {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        **more,
    }


def text_of(result: Any) -> str:
    """What a tool result says, from the wire or from the SDK."""
    if not isinstance(result, dict):
        result = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return "\n".join(part["text"] for part in result["content"] if part["type"] == "text")


def envelope_of(result: Any) -> Mapping[str, Any]:
    """What the gateway or `connect` says of a call."""
    if not isinstance(result, dict):
        result = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    envelope: Mapping[str, Any] = (result.get("_meta") or {}).get(ENVELOPE, {})
    return envelope


@contextmanager
def desktop(directory: Path, servers: Mapping[str, Any] | None = None, **more: Any) -> Iterator[Desktop]:
    """A desktop with a configuration; whatever gateway runs there in the end is stopped."""
    made = Desktop(directory=directory, port=free_port())
    made.configure({"plain": tools()} if servers is None else servers, **more)
    try:
        yield made
    finally:
        for process in made.gateways():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        made.wait_for(lambda: not made.gateways())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


__all__ = ["LEGACY", "MODERN"]
