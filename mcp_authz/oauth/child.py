"""How a child agent that nobody has enrolled proves itself: by the chain in which its parent names it."""

from __future__ import annotations

from dataclasses import dataclass

from mcp_authz.errors import DelegationError, SignatureRefused
from mcp_authz.model import Agent, AgentName, Thumbprint
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.refusal import invalid_client
from mcp_authz.oauth.token_types import JWT_TYPE
from mcp_authz.redeeming import Chains
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.signed_link import parse_chain, read_unverified
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

    async def named(self, name: AgentName, form: Form) -> Named | None:
        """Return the child of this name, None when the form brings no chain that could name one.

        Nothing is remembered: whether the client has the child's key is for the caller to see first.

        Raises:
            Refusal: the chain is not good, or is not its parent's, or names another.
        """
        parent_name, _, own = name.partition("/")
        if not own or form.get("subject_token_type") != JWT_TYPE or "subject_token" not in form:
            return None
        try:
            texts = parse_chain(form["subject_token"])
            leaf = read_unverified(texts)[-1]
            if leaf.child != own or len(texts) == 1:
                raise SignatureRefused("the last link names another child, or none")
            leaf = self.chains.verify(texts, Thumbprint(leaf.holder.thumbprint)).leaf
        except (SignatureRefused, DelegationError) as error:
            raise invalid_client(f"the chain that should name the child: {error}") from None
        parent = await self.store.agent(AgentName(parent_name))
        signer = await self.store.key(Thumbprint(leaf.signer.thumbprint))
        if parent is None or signer is None or signer.holder != f"agent:{parent_name}":
            raise invalid_client("the child is not named by its parent")
        known = await self.store.agent(name)
        child = known or Agent(name=name, owner=parent.owner, parent=parent.name, status=parent.status)
        return Named(child=child, key=leaf.holder)

    async def has_ended(self, agent: Agent) -> bool:
        """Whether the agent is a child whose links have ended, or whose parent is not active."""
        if agent.parent is None:
            return False
        parent = await self.store.agent(agent.parent)
        ended = agent.ends_at is None or self.clock() >= agent.ends_at
        return ended or parent is None or parent.status != "active"
