"""The nouns of the gateway: frozen values that say what has been checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Literal, NewType

from mcp_authz.rules.constraint import ToolsMap
from mcp_authz.rules.scope import Scope, ScopeTemplate

AgentName = NewType("AgentName", str)
PersonName = NewType("PersonName", str)
Thumbprint = NewType("Thumbprint", str)  # RFC 7638, base64url
GrantId = NewType("GrantId", str)
SessionId = NewType("SessionId", str)
LinkId = NewType("LinkId", str)
HoldId = NewType("HoldId", str)
RuleId = NewType("RuleId", str)
ToolName = NewType("ToolName", str)  # `server__tool`, as callers, scopes and policy know it


class Hazard(StrEnum):
    """The operator's classification of a tool."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"


class Proof(IntEnum):
    """How a call was proved; a larger one is stronger."""

    BEARER = 1
    DPOP = 2
    SIGNED = 3


class Assurance(IntEnum):
    """How an approval was proved; a larger one is stronger."""

    CLIENT = 1
    CLIENT_OTHER = 2
    SIGNED_IN = 3
    PASSKEY = 4

    @property
    def label(self) -> str:
        """The word that configuration, audit and people use."""
        return self.name.lower().replace("_", "-")


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


EndsWith = Literal["rule", "session", "delegation"]  # whose end is the end of a hold


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
    key: Thumbprint  # the agent key that logged in
    subject: str  # `user:NAME`; `agent:NAME` in the agent's own name, and in sessions without a person
    session: SessionId | None
    link: LinkId | None
    scope: frozenset[Scope]
    issued_at: datetime
    expires_at: datetime
    confirmation: Thumbprint | None = None  # `cnf.jkt`: the key whose proof each use needs (RFC 9449 section 6)
    mode: Mode | None = None  # of its session


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request, verified by steps 3 to 6 of the road.

    `session`, `chain`, `grant` and `person` are all None, or none of them is.
    """

    agent: Agent
    key: Thumbprint
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

    @property
    def ceilings(self) -> Mapping[AgentName, frozenset[Scope]]:
        """What each agent of the chain may have at most as it is registered now; the caller's own is among them."""
        return {**{name: agent.ceiling for name, agent in self.holders.items()}, self.agent.name: self.agent.ceiling}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRule:
    """Who must agree before a call runs, and how surely they must be known."""

    name: str
    by: tuple[str, ...] = ("subject",)  # `subject`, `owner`, `group:NAME`, `user:NAME`
    quorum: int = 1
    outside_chain: bool = False
    assurance: Assurance = Assurance.CLIENT
    expires: timedelta = timedelta(minutes=15)
    reason: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What the operator says of a tool: what it does, to what, and what it takes to call it."""

    action: str
    hazard: Hazard
    scopes: tuple[ScopeTemplate, ...]
    resource: Mapping[str, str] = field(default_factory=dict)  # attribute -> template over arguments
    approval: str | None = None  # the name of an ApprovalRule
    proof: Proof = Proof.BEARER
    by: str = "configuration"  # `configuration`, `preset:NAME` or `nobody`


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool of one server: its definition as the server lists it, and what the operator says of it."""

    name: ToolName
    server: str
    tool: str
    environment: str
    definition: Mapping[str, Any]  # as listed by the server, every member kept
    digest: bytes  # SHA-256 of the definition (`rules.definition`)
    classification: Classification
    quarantined: bool = False
    observed: bool = False  # its server is in observe mode, and that covers this tool (`rules.observe`)
    method: str = "tools/call"  # or the method that stands for itself: `resources/read`, `prompts/get`, ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of one tool: what is judged, bound, approved, forwarded and recorded.

    Reading a resource, getting a prompt and completing an argument are calls too: of the server's one tool of that
    method, with the request's parameters as arguments.
    """

    tool: Tool
    arguments: Mapping[str, Any]

    @property
    def params(self) -> Mapping[str, Any]:
        """The downstream's parameters of the tool's method, without `_meta`."""
        if self.tool.method != "tools/call":
            return self.arguments
        return {"name": self.tool.tool, "arguments": self.arguments}


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Evidence that the rules of one hold are met; it counts only in a second full evaluation, of exactly its call."""

    hold: HoldId
    call_digest: bytes = b""  # the action digest of the call it is for; empty is for none
    arguments: Mapping[str, Any] = field(default_factory=dict)  # as they were captured and shown; what runs
    rules: tuple[str, ...]
    assurance: Assurance
    by: tuple[PersonName, ...]
    approved_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What would have been decided about a call that ran because its server is in observe mode."""

    would: Literal["deny", "hold"]
    reason: str  # the reason code of the denial; `approval` for a hold
    because: tuple[RuleId, ...]
    rules: tuple[str, ...] = ()  # the approval rules of the hold
    detail: str = ""  # of the denial


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Leave to forward one call; `Downstream.forward` accepts nothing else but an `Admitted` one."""

    call_digest: bytes
    approval: HoldId | None
    because: tuple[RuleId, ...]
    obligations: tuple[Obligation, ...] = ()
    observed: Observed | None = None  # None: it would have been permitted in any mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The call waits until a person has met every rule named here."""

    call_digest: bytes
    rules: tuple[ApprovalRule, ...]
    because: tuple[RuleId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofNeeded:
    """What such a call has to be proved by."""

    proof: Proof
    link: str | None  # what a signed call names: the id of the token's link, as it is signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The call does not run.

    `code` is a reason code of `rules.decision.REASONS`; `missing` names scopes that a step-up could add.
    """

    code: str
    because: tuple[RuleId, ...]
    detail: str = ""  # for the operator and the audit; never argument values, never shown to callers
    missing: tuple[Scope, ...] = ()
    needs: ProofNeeded | None = None  # where the proof is what the call lacked


Decision = Permit | Hold | Deny


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """What must be done before forwarding; an unknown kind is a denial."""

    kind: str
    argument: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A permitted call whose decision is on durable storage (step 14); the only thing that can be forwarded."""

    call_id: str
    call: ToolCall
    permit: Permit
    at: datetime
    meta: Mapping[str, Any] = field(
        default_factory=dict
    )  # the caller's own `_meta`, our prefix and the envelope removed
    extra: Mapping[str, Any] = field(default_factory=dict)  # members beside name and arguments, as `inputResponses`
    context: str | None = field(default=None, repr=False)  # the context token, where the server gets one

    @property
    def params(self) -> Mapping[str, Any]:
        """The downstream's `tools/call` parameters, without `_meta`; `extra` never replaces name or arguments."""
        return {**self.extra, **self.call.params}


class HoldState(StrEnum):
    """Where a held call stands; `rules.hold.EDGES` is the table of what leads where."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    CLAIMED = "claimed"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One person's signed answer to one hold."""

    hold: HoldId
    person: PersonName
    approve: bool
    assurance: Assurance
    statement: str  # the compact JWS over action digest and what was displayed
    signed_by: str  # thumbprint of the key that signed: the approver's, or the gateway's
    reason: str
    given_at: datetime
    terms: Mapping[str, Any] = field(default_factory=dict)  # what the person narrowed; signed in the statement


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCall:
    """A call that waits for a person, or once did."""

    id: HoldId
    state: HoldState
    digest: bytes  # the action digest (DESIGN section 10)
    tool: ToolName
    server: str
    arguments: Mapping[str, Any]  # captured; what runs
    hazard: Hazard
    session: SessionId
    purpose: str
    subject: PersonName  # for whom it runs; in mode `own` the owner of the first agent, who answers for it
    owner: PersonName
    actor: AgentName
    chain: tuple[AgentName, ...]
    interactive: bool
    rules: tuple[ApprovalRule, ...]
    asked_at: datetime
    expires_at: datetime
    verdicts: tuple[Verdict, ...] = ()
    ended_at: datetime | None = None
    result: Mapping[str, Any] | None = None  # the recorded outcome of a call that ran
    ends_with: EndsWith = "rule"  # which of its bounds ends first
    mode: Mode = Mode.DELEGATED
