"""An afternoon of calls, made at a real gateway, whose records and inputs the commands then look at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp_authz.model import HoldId
from tests.attacks.attacker import answer_in
from tests.cli.desk import Desk
from tests.world import ENVELOPE, World, incident_server, world

API, WEB = {"owner": "acme", "repo": "api"}, {"owner": "acme", "repo": "web"}
CONFIG = """
data_dir = "data"
policy = "builtin:incident"
[approval.production-deploy]
by = ["subject"]
"""
PRODUCTION = {"production-deploy": {"by": ["subject"]}}
SCOPES = "pr:read:acme pr:write:acme deploy secret:read"


async def call(w: World, token: str, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the gateway says beside the result of one call."""
    answer = answer_in(await w.raw_call(token, f"acme__{tool}", dict(arguments)))
    envelope: Mapping[str, Any] = answer["result"]["_meta"].get(ENVELOPE, {})
    return envelope


@asynccontextmanager
async def afternoon(directory: Path, **config: Any) -> AsyncIterator[tuple[World, Desk]]:
    """Coder has read, opened a pull request, been denied a secret, and deployed once alice had agreed.

    Seven decisions have an input: four permits, two holds (one of which was approved later) and a denial by policy. Two
    more calls were denied before policy was asked.
    """
    async with world(directory, policy="builtin:incident", approval=PRODUCTION, **config) as w:
        token = await w.token(await w.ready("coder", SCOPES, labels={"environment": "staging"}))
        await call(w, token, "list_pull_requests", API)
        await call(w, token, "list_pull_requests", WEB)
        await call(w, token, "open_pull_request", {**API, "title": "Mend it", "branch": "b", "draft": True})
        await call(w, token, "read_secret", {"environment": "production", "name": "database"})
        for environment in ("staging", "production"):
            arguments = {**API, "environment": environment, "version": "1"}
            held = await call(w, token, "deploy", arguments)
            if environment == "staging":
                await w.answer(HoldId(held["hold"]), by="alice")
                await call(w, token, "deploy", arguments)
        await call(w, token, "list_pull_requests", {"owner": "acme"})
        await call(w, token, "list_pull_requests", {"owner": "others", "repo": "api"})
        desk = Desk(directory=directory)
        desk.configure(CONFIG + "\n".join(_toml("servers.acme", incident_server(directory))))
        yield w, desk


def _toml(table: str, values: Mapping[str, Any]) -> Iterator[str]:
    """A table as TOML; JSON strings and lists are TOML too."""
    yield f"[{table}]"
    yield from (f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, Mapping))
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _toml(f"{table}.{key}", value)
