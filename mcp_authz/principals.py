"""Who acts, for whom and by what right: principals, keys, grants, sessions, links, tokens; frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Literal, NewType

from mcp_authz.rules.constraint import ToolsMap
from mcp_authz.rules.scope import Scope

AgentName = NewType("AgentName", str)
PersonName = NewType("PersonName", str)
Thumbprint = NewType("Thumbprint", str)  # RFC 7638, base64url
GrantId = NewType("GrantId", str)
SessionId = NewType("SessionId", str)
LinkId = NewType("LinkId", str)
ClientId = NewType("ClientId", str)  # of OAuth: a name that was given here, or the URL of a metadata document


class Proof(IntEnum):
    """How a call was proved; a larger one is stronger."""

    BEARER = 1
    DPOP = 2
    SIGNED = 3


class Mode(StrEnum):
    """How an agent stands to the person it acts for (DESIGN section 7)."""

    OWN = "own"
    DELEGATED = "delegated"
    IMPERSONATED = "impersonated"


Status = Literal["active", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """Something that may be used once: a proof id, an assertion id, a `requestState`."""

    kind: str
    id: str
    expires_at: datetime
    issued_at: datetime | None = None  # None: it is sealed with a key that a restored store does not have any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """How and when a person proved that it is them (RFC 8176, RFC 9470)."""

    at: datetime
    amr: tuple[str, ...]  # `swk` or `hwk` and `user` for a passkey; what a provider says of its own sign-in
    issuer: str | None = None  # the OpenID provider that says so; None: this gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person who can be a subject, an owner or an approver."""

    name: PersonName
    groups: frozenset[str] = frozenset()
    status: Status = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent as the operator registered it."""

    name: AgentName
    owner: PersonName
    labels: Mapping[str, str] = field(default_factory=dict)
    roles: frozenset[str] = frozenset()
    ceiling: frozenset[Scope] = frozenset()
    depth: int = 0  # how many further delegation steps it may start
    delegates_to: frozenset[AgentName] = frozenset()
    interactive: bool = False
    parent: AgentName | None = None  # of a child, `coder/worker-7`: the agent that named it and answers for it
    ends_at: datetime | None = None  # of a child: the end of the link that enrolled it
    metadata_url: str | None = None  # where an agent that is hosted elsewhere says who it is, and its keys
    client: ClientId | None = None  # the OAuth client that this agent is, for its owner alone; it has no key then
    status: Status = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A public key that belongs to exactly one agent or person."""

    thumbprint: Thumbprint
    holder: str  # `agent:NAME` or `user:NAME`
    raw: bytes  # 32 bytes, Ed25519
    added_at: datetime
    retires_at: datetime | None = None  # set by a rotation: valid for what was issued before, until then
    status: Status = "active"
    proved: bool = True  # False: a document says so, and its agent has not signed in with the key yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a person has agreed that an agent may do for them."""

    id: GrantId
    subject: PersonName | None  # None: the agent works for itself, as its owner said
    agent: AgentName
    scope: frozenset[Scope]
    tools: ToolsMap | None  # None permits every tool that the scopes permit
    granted_at: datetime
    expires_at: datetime
    client: ClientId | None = None  # through which the person agreed; its refresh tokens live and end with the grant
    authentication: Authentication | None = None  # of the person, when they agreed
    status: Status = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One use of a grant for one task."""

    id: SessionId
    grant: GrantId
    subject: PersonName | None  # None in mode `own`
    agent: AgentName  # who holds the root link
    mode: Mode
    purpose: str
    started_at: datetime
    expires_at: datetime
    last_used_at: datetime
    max_calls: int | None = None
    calls_made: int = 0
    status: Status = "active"

    @property
    def principal(self) -> str:
        """The subject as a principal: `user:alice`; in mode `own` the agent itself, `agent:planner`."""
        return f"agent:{self.agent}" if self.subject is None else f"user:{self.subject}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One delegation step, as the store holds it; only `rules.delegation.verify_chain` makes it count."""

    id: LinkId
    session: SessionId
    parent: LinkId | None  # None at the session's root
    holder: AgentName
    scope: frozenset[Scope]
    tools: ToolsMap | None
    depth: int  # 0 at the root
    max_depth: int
    issued_at: datetime
    expires_at: datetime
    max_calls: int | None = None
    calls_made: int = 0
    reason: str = ""
    holder_key: Thumbprint | None = None  # the one key it was given to; None: whatever key its holder has
    signed_by: Thumbprint | None = None  # the delegator's key that signed it, or that asked the gateway for it
    statement: bytes | None = None  # the digest of what the delegator signed (`rules.signed_link`)
    status: Status = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Verified links, root to leaf; made by `rules.delegation.verify_chain` only."""

    links: tuple[Link, ...]

    @property
    def leaf(self) -> Link:
        """The link of the agent that acts now."""
        return self.links[-1]

    @property
    def agents(self) -> tuple[AgentName, ...]:
        """The holders, root first."""
        return tuple(link.holder for link in self.links)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """The claims of an access token whose signature, issuer, audience and times have been checked."""

    id: str  # jti
    client_id: str
    actor: AgentName
    key: Thumbprint | None  # the agent key that logged in; None: a client agent, which has none
    subject: str  # `user:NAME`; `agent:NAME` in the agent's own name, and in sessions without a person
    session: SessionId | None
    link: LinkId | None
    scope: frozenset[Scope]
    issued_at: datetime
    expires_at: datetime
    confirmation: Thumbprint | None = None  # `cnf.jkt`: the key whose proof each use needs (RFC 9449 section 6)
    mode: Mode | None = None  # of its session
    authentication: Authentication | None = None  # of the subject; told to the resource, and never read back from there
    signed_by: str | None = field(default=None, compare=False)  # the issuer key, where it came signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request, verified by steps 3 to 6 of the road.

    `session`, `chain`, `grant` and `person` are all None, or none of them is.
    """

    agent: Agent
    key: Thumbprint | None  # None: a client agent, which has no key
    proof: Proof
    token: AccessToken
    person: Person | None = None
    grant: Grant | None = None
    session: Session | None = None
    chain: Chain | None = None
    session_over: bool = False  # the token names a session, and it has ended
    holders: Mapping[AgentName, Agent] = field(default_factory=dict)  # every agent of the chain, as registered
    public_key: bytes = b""  # of `key`: 32 bytes, Ed25519
    once: tuple[Once, ...] = ()  # the proofs of this very request: each counts once, and is not remembered yet
    peer: str | None = None  # the address it came from, or `local` for the Unix socket; None: nobody knows

    @property
    def ceilings(self) -> Mapping[AgentName, frozenset[Scope]]:
        """What each agent of the chain may have at most as it is registered now; the caller's own is among them."""
        return {**{name: agent.ceiling for name, agent in self.holders.items()}, self.agent.name: self.agent.ceiling}
