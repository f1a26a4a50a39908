"""G: a real `mcp-authz serve` with everything on, and an agent that has a token of a session with one link."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from bench.process import Started, free_port, started
from bench.proving import Prover
from bench.wire import TOOL
from mcp_authz.agents import Agents, People
from mcp_authz.config import Config, parse_config
from mcp_authz.ids import new_id
from mcp_authz.installation import open_installation, utc_now
from mcp_authz.rules import dpop, jose, link_id
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Store

SERVER: Final = "bench"
NAME: Final = f"{SERVER}__{TOOL}"
AGENT: Final = "coder"
OPERATOR: Final = "user:operator"
SCOPE: Final = "book:read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Governed:
    """A gateway that serves, a bearer token for it, and an agent that proves what it sends."""

    process: Started
    token: str
    prover: Prover


def settings(directory: Path, port: int, behind: str) -> dict[str, Any]:
    """The configuration: one tool server, one classified tool, the default policy."""
    tool = {"action": "book.read", "hazard": "read", "scopes": ["book:read:{book}"], "resource": {"book": "{book}"}}
    return {
        "public_url": f"http://localhost:{port}",
        "data_dir": str(directory / "data"),
        "dpop_nonce": False,  # a nonce would be one more round trip now and then, and cost nothing else
        "servers": {SERVER: {"url": behind, "environment": "bench", "tools": {"*": tool}}},
    }


@contextmanager
def governed(directory: Path, behind: str) -> Iterator[Governed]:
    """Run `mcp-authz serve` until the body ends, with alice's agent enrolled before."""
    values = settings(directory, free_port(), behind)
    config, key = parse_config(values), PrivateKey.generate()
    anyio.run(_enrol_at, config, key)
    file = directory / "gateway.toml"
    file.write_text(_toml(values), encoding="utf-8")
    port = urllib.parse.urlsplit(config.public_url).port
    with started("-m", "mcp_authz.cli.main", "--config", str(file), "serve", port=port) as process:
        yield Governed(process=process, token=fetch_token(config, key), prover=prover(config, key))


async def enrol(store: Store, key: PrivateKey) -> None:
    """Alice is registered, and her agent; she has agreed that it may read, so its first sign-in opens a session."""
    await People(store, utc_now).add("alice", by=OPERATOR)
    scope = parse_scopes(SCOPE)
    await Agents(store, utc_now).add(AGENT, owner="alice", key=key.public, ceiling=scope, by=OPERATOR)
    await Sessions(store, utc_now).grant("alice", AGENT, scope=scope, by=OPERATOR)


def fetch_token(config: Config, key: PrivateKey) -> str:
    """An access token from the gateway's own token endpoint, good for ten minutes."""
    token: str = _fetch(config, key, {})["access_token"]
    return token


def prover(config: Config, key: PrivateKey) -> Prover:
    """The agent with a token that is bound to its key."""
    at, url = utc_now(), f"{config.public_url}/token"
    answer = _fetch(config, key, {"DPoP": dpop.make_proof(key, method="POST", url=url, at=at, id=new_id("d"))})
    return Prover(
        pem=key.to_pem(),
        token=answer["access_token"],
        link=link_id.jti(answer["link"]),
        resource=config.resource,
        tool=NAME,
    )


def _fetch(config: Config, key: PrivateKey, headers: dict[str, str]) -> dict[str, Any]:
    now = int(utc_now().timestamp())
    claims = {"iss": AGENT, "sub": AGENT, "aud": config.public_url, "iat": now, "exp": now + 60, "jti": new_id("j")}
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": jose.sign(claims, typ="JWT", key=key),
        "scope": SCOPE,
    }
    data = urllib.parse.urlencode(form).encode()
    asked = urllib.request.Request(f"{config.public_url}/token", data, headers)  # noqa: S310 - our own URL
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
        body: dict[str, Any] = json.load(answer)
        return body


async def _enrol_at(config: Config, key: PrivateKey) -> None:
    async with open_installation(config) as installation:
        await enrol(installation.store, key)


def _toml(values: dict[str, Any]) -> str:
    """The settings as TOML; JSON texts, numbers and lists are TOML too."""
    server = values["servers"][SERVER]
    tool = server["tools"]["*"]
    inline = ", ".join(f"{key} = {json.dumps(value)}" for key, value in tool["resource"].items())
    lines = [
        f"public_url = {json.dumps(values['public_url'])}",
        f"data_dir = {json.dumps(values['data_dir'])}",
        f"dpop_nonce = {json.dumps(values['dpop_nonce'])}",
        f"[servers.{SERVER}]",
        f"url = {json.dumps(server['url'])}",
        f"environment = {json.dumps(server['environment'])}",
        f'[servers.{SERVER}.tools."*"]',
        *(f"{key} = {json.dumps(tool[key])}" for key in ("action", "hazard", "scopes")),
        f"resource = {{ {inline} }}",
    ]
    return "\n".join(lines) + "\n"
