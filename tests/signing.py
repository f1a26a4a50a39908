"""An agent that signs its calls, message by message, for tests that send them as they like."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mcp_authz.ids import new_id
from mcp_authz.rules import link_id
from mcp_authz.rules.call_proof import INVOCATION, Proved, prove_call
from mcp_authz.rules.keys import PrivateKey
from tests.world import Actor, World


@dataclass(frozen=True)
class Signing:
    """The key, the link and the gateway of one agent that is signed in."""

    key: PrivateKey
    link: str  # as it is signed
    audience: str

    def proof(self, tool: str, arguments: Any = None, *, at: datetime, id: str = "", **other: Any) -> str:
        """The proof of one call; `other` replaces what it says of `link`, `tool`, `arguments` or `audience`."""
        said = {"link": self.link, "tool": tool, "arguments": arguments or {}, "audience": self.audience, **other}
        return prove_call(Proved(**said), id=id or new_id("p"), at=at, key=self.key)

    def meta(self, tool: str, arguments: Any = None, **more: Any) -> dict[str, Any]:
        """The member of `_meta` that carries the proof."""
        return {INVOCATION: self.proof(tool, arguments, **more)}


async def signing(w: World, actor: Actor) -> Signing:
    """What the agent signs its calls with, in its only open session."""
    ((_, link),) = await w.store.open_links(actor.name, w.clock())
    return Signing(key=actor.key, link=link_id.jti(link.id), audience=w.config.resource)
