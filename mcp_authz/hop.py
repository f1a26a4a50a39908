"""What policy is asked before a delegation step is made (DESIGN section 7): one question for each hop, none skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mcp_authz.model import Agent, AgentName, Chain, Deny, Link, Person, Session, Thumbprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One step before it is made: who would give what to whom, and on what they stand."""

    session: Session
    person: Person | None  # for whom; None where an agent works for itself
    chain: Chain  # the delegator's, root to leaf
    holders: Mapping[AgentName, Agent]  # every agent of the chain
    key: Thumbprint | None  # the delegator's key that signed or logged in, where it is known
    delegate: Agent
    link: Link  # what the delegate would have
    at: datetime


class HopPolicy(Protocol):
    """Asks the policy about one step."""

    async def denial(self, hop: Hop) -> Deny | None:
        """Return None when the step may be made, else why not; what cannot be decided is a denial."""


class Unasked:
    """Asks nobody: the rules alone say what may be delegated."""

    async def denial(self, hop: Hop) -> Deny | None:
        """Return None."""
        return None
