"""How a child agent that nobody has enrolled proves itself: by the chain in which its parent names it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcp_authz.agents import current_keys
from mcp_authz.errors import Conflict, DelegationError, InputError, SignatureRefused
from mcp_authz.oauth.refusal import Refusal, invalid_client
from mcp_authz.principals import Agent, AgentName, Thumbprint
from mcp_authz.redeeming import Chains
from mcp_authz.rules import link_id as ids
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.signed_link import ClaimedLink, SignedLink, parse_chain, read_claimed
from mcp_authz.store.ports import Clock, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A child that a verified chain names; redeeming the chain is what enrols it."""

    child: Agent
    key: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """Knows children by their parents' chains, and whether one that was enrolled has ended."""

    store: Store
    clock: Clock
    chains: Chains

    async def named(self, name: AgentName, chain: str, has: Callable[[PublicKey], bool]) -> Named | None:
        """Return the child that this chain names so, None when no chain could; nothing is remembered of it.

        `has` says whether the client has a key. What is cheap comes first, so that a chain is worth verifying once
        that begins: the client has the last link's key, a current key of the parent signed the link, and the gateway
        has the first one.

        Raises:
            Refusal: the chain is not good, or is not its parent's, or names another, or has ended.
        """
        parent_name, _, own = name.partition("/")
        if not own:
            return None
        try:
            texts = parse_chain(chain)
            leaf = read_claimed(texts[-1])
            if leaf.child != own or len(texts) == 1:
                raise SignatureRefused("the last link names another child, or none")
            if not has(leaf.holder):
                raise SignatureRefused("the assertion is not signed by the key that the last link gives")
            parent = await self._parent(AgentName(parent_name), leaf)
            await self._require_known(texts)
            verified = self.chains.verify(texts, Thumbprint(leaf.holder.thumbprint))
            await self.chains.require_last(verified, parent.name)
            await self._require_own_key(name, verified.leaf)
        except (SignatureRefused, DelegationError, InputError) as error:
            raise invalid_client("the chain does not name the child", str(error)) from None
        except Conflict as error:
            raise Refusal("invalid_grant", "what the chain stands on has ended", reason=str(error)) from None
        child = await self.store.agent(name) or Agent(name=name, owner=parent.owner, parent=parent.name)
        return Named(child=child, key=leaf.holder)

    async def has_ended(self, agent: Agent) -> bool:
        """Whether the agent is a child whose links have ended, or whose parent is not active."""
        if agent.parent is None:
            return False
        parent = await self.store.agent(agent.parent)
        ended = agent.ends_at is None or self.clock() >= agent.ends_at
        return ended or parent is None or parent.status != "active"

    async def _parent(self, name: AgentName, leaf: ClaimedLink) -> Agent:
        """The active agent one of whose keys signed the link."""
        parent = await self.store.agent(name)
        held = await self.store.keys_of(f"agent:{name}")
        active = [PublicKey.from_raw(key.raw) for key in held if key.status == "active"]
        if parent is None or parent.status != "active" or not any(leaf.is_signed_by(key) for key in active):
            raise SignatureRefused("the child is not named by its parent")
        return parent

    async def _require_known(self, texts: Sequence[str]) -> None:
        """Return only if the first link is one that the gateway has, and given to a key of its holder."""
        root = read_claimed(texts[0])
        link = await self.store.link(ids.link_id(root.id))
        key = await self.store.key(Thumbprint(root.holder.thumbprint))
        if link is None or key is None or key.status != "active" or key.holder != f"agent:{link.holder}":
            raise SignatureRefused("the first link is not one that this gateway has, or not its holder's")
        if link.status != "active":
            raise Conflict("a link of the chain was revoked")

    async def _require_own_key(self, name: AgentName, leaf: SignedLink) -> None:
        """Return only if the key that the link gives is new, or the child's own as ever."""
        known = await self.store.key(Thumbprint(leaf.holder.thumbprint))
        if known is None or not known.proved:  # what a document declares says nothing of who has the key
            return
        if known.holder != f"agent:{name}":
            raise SignatureRefused("the key that the last link gives is somebody else's")
        if not current_keys((known,)):
            raise Conflict("the key that the last link gives was revoked or replaced")
