"""Policies as they are named on the command line: what a configuration may say, with files relative to where one is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from mcp_authz.cli.invocation import config_of, named_config
from mcp_authz.config import Config, find_config
from mcp_authz.config_policy import BUILTIN
from mcp_authz.errors import ConfigError
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.engine import PolicyEngine
from mcp_authz.policy.loading import make_engine, path_of, read_files


def typed_entries(config: Config, entries: Sequence[str]) -> tuple[str, ...]:
    """The entries as this configuration reads them: a file that was typed is relative to the working directory."""
    return tuple(entry if _is_no_file(entry) else _relative(Path(entry), config.directory) for entry in entries)


def _is_no_file(entry: str) -> bool:
    return entry.startswith(BUILTIN) or "://" in entry


def _relative(path: Path, directory: Path) -> str:
    whole = path.absolute()
    return str(whole.relative_to(directory) if whole.is_relative_to(directory) else whole)


def engine_of(config: Config, entries: Sequence[str]) -> PolicyEngine:
    """The engine over these entries; what obligations name is looked up only in a configuration that there is.

    Raises:
        ConfigError: one cannot be read, or has no known form.
        PolicyError: a policy is not sound.
    """
    texts = read_files(config, entries)
    if not config.source.is_file() and all(path_of(config, entry).suffix == ".cedar" for entry in texts):
        return CedarEngine.load(texts)
    return make_engine(config, entries, texts)


def config_if_any(ctx: typer.Context) -> Config:
    """The configuration of this command, or the one that a gateway without a file would have, here.

    Raises:
        ConfigError: there is one, and it cannot be used.
    """
    try:
        find_config(named_config(ctx))
    except ConfigError:
        return no_config()
    return config_of(ctx)


def no_config() -> Config:
    """A configuration that says nothing; its files are relative to the working directory."""
    return Config(source=Path.cwd() / "no configuration")
