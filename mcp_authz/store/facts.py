"""What goes into a store and comes out of it beside the nouns of the vocabulary: events, standings, admissions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from mcp_authz.model import HoldId
from mcp_authz.principals import (
    Agent,
    AgentName,
    Grant,
    GrantId,
    Key,
    Link,
    LinkId,
    Once,
    Person,
    PersonName,
    Session,
    SessionId,
    Thumbprint,
)

EventKind = Literal[
    "decision",
    "outcome",
    "approval",
    "delegation",
    "grant",
    "session",
    "revocation",
    "enrolment",
    "pin",
    "policy",
    "configuration",
    "sign-in",
    "administration",
    "checkpoint",
    "refusals",
]

RevocableKind = Literal["link", "session", "grant", "agent", "client", "key", "passkey", "person", "hold", "approval"]

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, before it has a place in the log; `fields` is JSON and holds no argument value."""

    kind: EventKind
    at: datetime
    call: str | None = None  # the call it belongs to: decision and outcome share it
    fields: Mapping[str, Any] = field(default_factory=dict)
    # What a call was decided upon (`inputs`): it has argument values, so it is kept apart from the log, and sealed.
    input: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    # The call as its caller signed it (`evidence`): it has argument values too, and the record names it by digest.
    signed: str | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An event with its place in the hash chain."""

    sequence: int  # 1, 2, 3 ... without a gap
    event: Event
    previous: bytes  # hash of the record before; 32 zero bytes for the first
    hash: bytes  # `rules.log.record_hash`


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision record, with what the call was decided upon where that is kept."""

    record: Record
    input: Mapping[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the store knows, in one read, about everything an access token names; absent things are None."""

    agent: Agent | None
    key: Key | None
    person: Person | None
    grant: Grant | None
    session: Session | None
    links: tuple[Link, ...]  # root to leaf
    holders: Mapping[AgentName, Agent]  # every agent that holds one of the links
    owner: Person | None = None  # of the session's first agent: who answers for it where it works for itself
    keys: Mapping[Thumbprint, Key] = field(default_factory=dict)  # that the links were given to, or signed by


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a delegator signed, or the gateway for a root, kept by its digest (`rules.signed_link`)."""

    digest: bytes  # SHA-256 of the signing input
    above: bytes | None  # the digest of the statement it stands under; None at a root
    text: str  # the compact JWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A one-time code by which an agent registers its key; the code itself is kept by nobody."""

    digest: bytes  # SHA-256 of the code
    agent: AgentName
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The definition of a tool that the operator accepted (or that was seen first), and one that waits."""

    server: str
    tool: str
    digest: bytes
    definition: Mapping[str, Any]
    seen_at: datetime
    changed: Mapping[str, Any] | None = None  # a different definition that was seen since: the tool is in quarantine
    changed_digest: bytes | None = None


LostReason = Literal[
    "revoked", "expired", "session", "budget", "replayed", "claimed", "definition", "rate", "spent", "stopped"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A limit: `count` calls of one key within any stretch of time as long as `per`; the call counts if admitted."""

    key: str
    count: int
    per: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a call takes from one account of a budget, in the budget's smallest unit, and how much it may hold."""

    budget: str
    account: str
    amount: int
    limit: int
    expires_at: datetime  # when nothing can be taken from the account any more, and it may be forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Everything step 14 needs, in one value; `Store.admit` does it in one transaction or not at all."""

    event: Event  # the decision record of a permitted call
    agent: AgentName
    key: Thumbprint | None  # None: of a client agent, which has none
    subject: PersonName | None
    grant: GrantId
    session: SessionId
    links: tuple[LinkId, ...]  # root to leaf
    server: str
    tool: str
    definition_digest: bytes
    once: tuple[Once, ...] = ()
    claim: HoldId | None = None
    continues: HoldId | None = None  # claimed before, for a run that its tool server's question interrupted
    rates: tuple[Rate, ...] = ()
    budgets: tuple[Spending, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What comes into the store with a signed chain, in one transaction."""

    links: tuple[Link, ...]  # those that are new, from above down
    statements: tuple[Statement, ...]  # root first
    children: tuple[tuple[Agent, Key], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The call was not admitted: something changed between its evaluation and its transaction."""

    reason: LostReason
    wait: timedelta | None = None  # `rate`: until the call would be admitted
    budget: str = ""  # `spent`: which
