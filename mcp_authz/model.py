"""What is called, decided, held and approved: frozen values that say what has been checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Literal, NewType

from mcp_authz.principals import AgentName, Mode, PersonName, Proof, SessionId
from mcp_authz.rules.scope import Scope, ScopeTemplate

HoldId = NewType("HoldId", str)
RuleId = NewType("RuleId", str)
StandingId = NewType("StandingId", str)
ToolName = NewType("ToolName", str)  # `server__tool`, as callers, scopes and policy know it


class Hazard(StrEnum):
    """The operator's classification of a tool."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"


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


EndsWith = Literal["rule", "session", "delegation", "standing"]  # whose end is the end of a hold


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
    off: bool = False  # switched off by an operator, and so in quarantine whatever its definition
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
    obligations: tuple[Obligation, ...] = ()  # of the permit that it may become


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofNeeded:
    """What such a call has to be proved by."""

    proof: Proof
    link: str | None  # what a signed call names: the id of the token's link, as it is signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The call does not run.

    `code` is a reason code of `rules.decision.REASONS`; `missing` names scopes that a step-up could add, `max_age` how
    long ago the person may have signed in, where signing in again would help (RFC 9470).
    """

    code: str
    because: tuple[RuleId, ...]
    detail: str = ""  # for the operator and the audit; never argument values, never shown to callers
    missing: tuple[Scope, ...] = ()
    max_age: timedelta | None = None
    needs: ProofNeeded | None = None  # where the proof is what the call lacked
    said: str = ""  # what a person wants the caller to know, in their words; no name but those that they wrote


Decision = Permit | Hold | Deny


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """What must be done before forwarding; an unknown kind is a denial."""

    kind: str
    argument: str = ""
    rule: RuleId | None = None  # that asks for a rate limit, where the engine tells: limits of two rules count apart


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
    sent_back: bool = False  # no approval, but a denial that asks for another call, and says which in `reason`
    standing: StandingId | None = None  # the standing approval that the statement is; None: it is of this hold alone


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
    bound: Mapping[str, Any] = field(default_factory=dict)  # the action statement without its arguments; empty: unknown
    shredded_at: datetime | None = None  # since when arguments, result and statements are gone; then they are empty
