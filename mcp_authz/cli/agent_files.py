"""The key file of an agent that `connect` keeps on this machine, when the operator gives the agent another key."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from mcp_authz.agents import Agents, Enrolled
from mcp_authz.client.key_files import load_key, save_key
from mcp_authz.client.rotation import draft_of, lock_of
from mcp_authz.errors import AuthzError
from mcp_authz.locking import locked
from mcp_authz.rules.keys import PrivateKey, PublicKey


async def replace_kept(path: Path, agents: Agents, enrolled: Enrolled, overlap: timedelta, *, by: str) -> PublicKey:
    """Return the agent's new key, whose private half is in the file now; `connect` takes it at its next sign-in.

    The new key lies beside the old one until it counts: whoever is interrupted here finishes it by running it again.

    Raises:
        Conflict: the agent cannot have another key now, or `connect` replaces it in this moment.
        KeyRefused, ConfigError: a file cannot be used.
    """
    with locked(lock_of(path)):
        draft = draft_of(path)
        if not draft.exists():
            save_key(draft, PrivateKey.generate(), replace=False)
        new = load_key(draft).public
        if not any(key.thumbprint == new.thumbprint and key.retires_at is None for key in enrolled.keys):
            try:
                await agents.rotate(enrolled.agent.name, new, overlap, by=by)
            except AuthzError:
                draft.unlink()
                raise
        draft.replace(path)
        return new
