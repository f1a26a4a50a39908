"""The adapters of configured tool servers; what only looks at the configuration goes without them and the SDK."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

from mcp_authz.config import Config, ServerConfig, read_secret_file
from mcp_authz.downstream import Downstream
from mcp_authz.errors import ConfigError
from tool_adapters.http import HttpDownstream
from tool_adapters.stdio import StdioDownstream


def make_downstream(name: str, server: ServerConfig, config: Config) -> Downstream:
    """The adapter of one configured server, its secrets read from their files.

    Raises:
        ConfigError: a program or a secret file that is not there.
    """
    timeout = timedelta(seconds=server.call_timeout)
    if server.url is not None:
        headers = {**server.headers, **{h: read_secret_file(config, f) for h, f in server.header_files.items()}}
        return HttpDownstream(name, server.url, headers, call_timeout=timeout)
    assert server.command is not None  # noqa: S101 - the configuration has one of the two
    env = {**server.env, **{n: read_secret_file(config, f) for n, f in server.env_files.items()}}
    cwd = config.directory / server.cwd if server.cwd else config.directory
    command = (_program(name, server.command[0], cwd), *server.command[1:])
    return StdioDownstream(name, command, env, cwd, call_timeout=timeout)


def _program(server: str, program: str, cwd: Path) -> str:
    """The absolute path of a server's program: as written, beside this Python, or on the gateway's PATH."""
    if "/" in program:
        found = shutil.which(str(cwd / program))
    else:
        found = shutil.which(
            program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        )
    if found is None:
        raise ConfigError(f"`servers.{server}.command`: program `{program}` is not installed or not executable")
    return found
