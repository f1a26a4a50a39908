"""The files that make an installation, and what each of them is to somebody who gets hold of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mcp_authz.config import Config
from mcp_authz.config_policy import BUILTIN
from mcp_authz.config_webhooks import secret_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """One file; a secret one is for its owner's eyes only."""

    path: Path
    what: str
    secret: bool


def belongings(config: Config) -> tuple[Belonging, ...]:
    """Every file of the installation that is there."""
    secrets: set[str] = {
        name
        for server in config.servers.values()
        for name in (*server.env_files.values(), *server.header_files.values())
    }
    named = dict.fromkeys([*config.policy, *config.shadow_policy])
    policies = [entry for entry in named if not entry.startswith(BUILTIN)]  # a URL is no file, and so not there
    secrets |= secret_files(config.webhooks.values())
    if config.pdp.token_file is not None:
        secrets.add(config.pdp.token_file)
    found = [
        _plain(config.source, "the configuration"),
        *(_plain(config.directory / entry, f"the policy {entry}") for entry in policies),
        _secret(config.data / "store.db", "the store"),
        _secret(config.data / "master.key", "the master key"),
        *(_secret(path, f"the key of agent {path.stem}") for path in agent_keys(config)),
        *(_secret(config.directory / name, f"the secret {name}") for name in sorted(secrets)),
        *(_secret(path, "a client's old file") for path in sorted(config.data.glob("wrapped/*/original"))),
    ]
    return tuple(it for it in found if it.path.is_file())


def agent_keys(config: Config) -> tuple[Path, ...]:
    """The key files of agents that lie where `connect` looks for them."""
    try:
        return tuple(sorted(config.agent_key("name").parent.glob("*.pem")))
    except OSError:
        return ()


def _plain(path: Path, what: str) -> Belonging:
    return Belonging(path=path, what=what, secret=False)


def _secret(path: Path, what: str) -> Belonging:
    return Belonging(path=path, what=what, secret=True)
