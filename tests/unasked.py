"""A policy about delegation steps that is silent, for tests of the rules beneath it."""

from __future__ import annotations

from mcp_authz.hop import Hop
from mcp_authz.model import Deny


class Unasked:
    """Asks nobody: the rules alone say what may be delegated."""

    async def denial(self, hop: Hop) -> Deny | None:
        """Return None."""
        return None
