"""The key file that `connect` keeps for an agent: where it is, and how old it may become."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import typer

from mcp_authz.cli.invocation import named_config
from mcp_authz.config import KeysConfig, find_config, load_config, user_data_dir
from mcp_authz.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptKey:
    """A key file, and the age at which `connect` replaces the key; None: never by itself."""

    path: Path
    rotate_after: timedelta | None


def kept_key(ctx: typer.Context, agent: str) -> KeptKey:
    """The file of this agent, by the configuration there is; a gateway elsewhere needs none here.

    Raises:
        ConfigError: there is a configuration, and it cannot be used.
    """
    try:
        found = find_config(named_config(ctx))
    except ConfigError:
        path = user_data_dir() / "agents" / f"{agent}.pem"
        return KeptKey(path=path, rotate_after=KeysConfig().rotate_after)
    config = load_config(found)
    return KeptKey(path=config.agent_key(agent), rotate_after=config.keys.rotate_after)
