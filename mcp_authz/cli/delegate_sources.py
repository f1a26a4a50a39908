"""What a delegation is made of, and where it is found: chain and key of who delegates, key of the delegate, tools.

A machine with the installation has most of it at hand and is only looked at; another one asks the gateway, or is told.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import typer

from mcp_authz import limits
from mcp_authz.cli import keyfile, terminal
from mcp_authz.cli.invocation import installation, named_config
from mcp_authz.config import Config, find_config, load_config, user_data_dir
from mcp_authz.errors import ConfigError, InputError, NotFound, StoreError
from mcp_authz.principals import Agent
from mcp_authz.rules import strict_json
from mcp_authz.rules.classify import tool_name
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.where import Properties
from mcp_authz.store.glance import Inside, inside

_SEALED: Final = b"mcp-authz-key-"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtHand:
    """What this machine knows without asking anybody."""

    config: Config | None
    inside: Inside | None  # None: there is no store here

    def of_gateway(self, issuer: str) -> Inside | None:
        """What is in the store, where it is that of this gateway."""
        return self.inside if self.config is not None and self.config.public_url == issuer else None


def at_hand(ctx: typer.Context) -> AtHand:
    """Return what there is on this machine; nothing of it is changed, or made.

    Raises:
        ConfigError: there is a configuration, and it cannot be used.
    """
    try:
        path = find_config(named_config(ctx))
    except ConfigError:  # a machine that only delegates needs none
        return AtHand(config=None, inside=None)
    config = load_config(path)
    store = config.data / "store.db"
    try:
        return AtHand(config=config, inside=inside(store, datetime.now(UTC)) if store.exists() else None)
    except StoreError:  # of another version, say: then it is as if it were elsewhere
        return AtHand(config=config, inside=None)


def private_key(here: AtHand, agent: str | None, named: Path | None) -> PrivateKey:
    """Return the key of who delegates; where a passphrase protects it, a person is asked for that at the terminal.

    Raises:
        KeyRefused: it is no such key, others can read it, or the passphrase is another.
        ConfigError: the file cannot be read, or nobody said which one.
    """
    from mcp_authz.client.key_files import load_key

    if named is None and agent is None:
        raise ConfigError("say who delegates with --as AGENT, or whose key signs with --key FILE")
    default = user_data_dir() / "agents" / f"{agent}.pem"
    path = named or (default if here.config is None else here.config.agent_key(str(agent)))
    if _begins_sealed(path):
        return keyfile.unsealed(path, keyfile.sealed_key(path), terminal.ask_passphrase(f"passphrase of {path}: "))
    return load_key(path)


async def delegate_key(here: AtHand, agent: str, issuer: str) -> PublicKey:
    """Return the key that this agent has now, from the store of the gateway or from where it publishes it.

    Raises:
        NotFound: there is no such agent, or it has no key.
        NoAnswer, InputError, KeyRefused: the gateway cannot say it.
    """
    from mcp_authz.client.published import published_keys

    store = here.of_gateway(issuer)
    if store is None:
        try:
            return list((await published_keys(f"{issuer}/agents/{quote(agent)}")).values())[-1]
        except NotFound:
            raise NotFound(f"{issuer} knows no agent `{agent}` with a key") from None
    found = [key for key in store.keys.get(f"agent:{agent}", ()) if key.status == "active" and key.retires_at is None]
    if not found:
        raise NotFound(f"there is no agent `{agent}` with a key; `mcp-authz agent list` has them all")
    return PublicKey.from_raw(found[-1].raw)


def known_agent(here: AtHand, key: PublicKey, issuer: str) -> Agent | None:
    """Who has this key, where this machine has the store of the gateway."""
    store = here.of_gateway(issuer)
    if store is None:
        return None
    holders = {str(one.thumbprint): name for name, keys in store.keys.items() for one in keys}
    holder = holders.get(key.thumbprint)
    return next((agent for agent in store.agents if f"agent:{agent.name}" == holder), None)


def schemas(here: AtHand, issuer: str, named: Path | None) -> Mapping[str, Properties]:
    """Return the arguments of the tools that are known: those of the file, else those pinned in the store.

    Raises:
        InputError: the file has something else than tools as `tools/list` answers them.
        ConfigError: it cannot be read.
    """
    if named is not None:
        return _listed(named)
    store = here.of_gateway(issuer)
    pins = () if store is None else store.pins
    return {tool_name(pin.server, pin.tool, pin.digest): _properties(pin.definition) for pin in pins}


async def gateway_keys(
    ctx: typer.Context, here: AtHand, issuer: str, named: str | None
) -> Mapping[str, PublicKey] | None:
    """Return the keys with which the gateway signs: those that were named, else those of the store; None without both.

    Raises:
        InputError, KeyRefused, NotFound, NoAnswer, ConfigError: what was named has none.
    """
    if named is not None:
        from mcp_authz.client.published import published_keys

        return await published_keys(named)
    if here.of_gateway(issuer) is None:
        return None
    from mcp_authz.issuer_keys import IssuerKeys

    async with installation(ctx) as opened:
        return dict((await IssuerKeys.load(opened.store, clock=opened.clock)).roots)


def read_text(named: str) -> str:
    """Return what is in the file, or comes by stdin for `-`.

    Raises:
        ConfigError: it cannot be read.
    """
    if named == "-":
        return sys.stdin.read(limits.CHAIN_BYTES + 1)
    try:
        with closing(Path(named).open("rb")) as file:
            return file.read(limits.CHAIN_BYTES + 1).decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"`{named}` cannot be read: {error.strerror}") from None


def _begins_sealed(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SEALED)) == _SEALED
    except OSError:
        return False  # whoever reads it as a key says what is wrong


def _listed(path: Path) -> Mapping[str, Properties]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}") from None
    try:
        value = strict_json.parse_value(raw, max_bytes=limits.BODY_BYTES)
    except InputError as error:
        raise InputError(f"`{path}`: {error}") from None
    tools = value.get("tools", [value]) if isinstance(value, dict) else value
    if not isinstance(tools, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in tools
    ):
        raise InputError(f"`{path}` has no tools; write there what the gateway answers to `tools/list`")
    return {one["name"]: _properties(one) for one in tools}


def _properties(definition: Mapping[str, Any]) -> Properties:
    schema = definition.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}
