"""Says, as long as a gateway runs, which of its servers are only observed: nobody may forget that."""

from __future__ import annotations

import logging

import anyio

from mcp_authz import limits
from mcp_authz.config import Config

log = logging.getLogger(__name__)


def observed_servers(config: Config) -> tuple[str, ...]:
    """The names of the servers in observe mode."""
    return tuple(name for name, server in config.servers.items() if server.mode == "observe")


def loud_line(config: Config, server: str) -> str:
    """What observe mode means for this server, in one sentence."""
    named = config.servers[server].observe_destructive
    destructive = f"destructive ones are held, except {', '.join(named)}" if named else "only destructive ones are held"
    return (
        f"server `{server}` is in OBSERVE MODE: calls run that would be denied or held; {destructive}. "
        'Set mode = "enforce" when you have seen enough'
    )


async def keep_telling(config: Config) -> None:
    """The log is warned of every observed server, now and every hour; without end while there are any."""
    while observed := observed_servers(config):
        for server in observed:
            log.warning("%s", loud_line(config, server))
        await anyio.sleep(limits.OBSERVE_REMINDER.total_seconds())
