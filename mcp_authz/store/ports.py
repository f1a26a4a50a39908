"""What the gateway asks of a store: who is who, what is held, what was used once, what happened, and one `admit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from mcp_authz.limits import JSON_INTEGER as END
from mcp_authz.model import HeldCall, HoldId, HoldState, Verdict
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
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.hold_stats import HoldStory
from mcp_authz.signing_key import KeyUse, SigningKey
from mcp_authz.store.calls_port import Calls
from mcp_authz.store.evidence_port import EvidenceStore
from mcp_authz.store.facts import (
    Admission,
    Clock,
    Decided,
    Enrolment,
    Event,
    EventKind,
    Lost,
    LostReason,
    Pin,
    Rate,
    Record,
    Registration,
    RevocableKind,
    Spending,
    Standing,
    Statement,
)
from mcp_authz.store.overview_port import Overview
from mcp_authz.store.people import Accounts, Authorizations, Identities
from mcp_authz.store.retention_port import Retention
from mcp_authz.store.standing_port import StandingApprovals
from mcp_authz.store.switch_port import Switches
from mcp_authz.store.task_port import Tasks


class Registry(Protocol):
    """Agents, people, keys, grants, sessions and links. Every change appends its event in the same transaction."""

    async def agent(self, name: AgentName) -> Agent | None: ...
    async def agents(self) -> tuple[Agent, ...]: ...
    async def agent_at(self, metadata_url: str) -> Agent | None:
        """The agent that is hosted elsewhere, with its document at this URL; the active one, if there are several."""

    async def add_agent(self, agent: Agent, key: Key | None, event: Event) -> None:
        """The agent exists with its key.

        Raises:
            Conflict: the name is taken, or the key belongs to somebody already (also to a revoked holder).
        """

    async def update_agent(self, agent: Agent, event: Event) -> None: ...
    async def key(self, thumbprint: Thumbprint) -> Key | None: ...
    async def keys_of(self, holder: str) -> tuple[Key, ...]: ...
    async def add_key(self, key: Key, event: Event, *, retire_others_at: datetime | None) -> None:
        """The holder has this key; with `retire_others_at` its other active keys end then.

        Raises:
            Conflict: the key belongs to somebody already, or the holder would have three active keys.
        """

    async def person(self, name: PersonName) -> Person | None: ...
    async def people(self) -> tuple[Person, ...]: ...
    async def add_person(self, person: Person, event: Event) -> None: ...
    async def grant(self, grant: GrantId) -> Grant | None: ...
    async def grants(self, *, agent: AgentName | None = None) -> tuple[Grant, ...]: ...
    async def add_grant(self, grant: Grant, event: Event) -> None: ...
    async def session(self, session: SessionId) -> Session | None: ...
    async def sessions(self) -> tuple[Session, ...]: ...
    async def open_session(self, session: Session, root: Link, event: Event) -> None: ...
    async def link(self, link: LinkId) -> Link | None: ...
    async def links(self, session: SessionId) -> tuple[Link, ...]: ...
    async def add_link(self, link: Link, event: Event) -> None:
        """The link exists; its parent was active and unexpired in the same transaction.

        Raises:
            Conflict: the parent, session or grant is not active any more.
        """

    async def add_signed(self, registration: Registration, event_for: Callable[[Link | Key], Event]) -> None:
        """Links that their delegators signed exist, with the statements that prove them and the children they enrol.

        A link that exists already with the same statement stays as it is. A child that exists already gets its new
        key, and the older ones end now. Each link and each child's key that is new comes with the event made for it.

        Raises:
            Conflict: the link above, its session or its grant is not active any more; a link with this id says
                something else, or was revoked; a key or a name belongs to somebody else; a child has a newer key.
        """

    async def statements(self, leaf: bytes) -> tuple[Statement, ...]:
        """The statement with this digest and those above it, root first; empty when it is not kept."""

    async def open_links(
        self, agent: AgentName, at: datetime, *, since: datetime | None = None
    ) -> tuple[tuple[Session, Link], ...]:
        """Every link of the agent that could carry a call at `at`: it, its ancestors, session and grant are active.

        With `since` only those issued then or later.
        """

    async def worked_for(self, agent: AgentName, since: datetime) -> frozenset[str]:
        """The principals of all sessions, used or begun at `since` or later, that the agent had a link in."""

    async def standing(
        self, *, agent: AgentName, key: Thumbprint | None, person: PersonName | None, link: LinkId | None
    ) -> Standing: ...

    async def revoke(self, kind: RevocableKind, name: str, event: Event) -> tuple[HoldId, ...]:
        """The thing is revoked, what descends from it cannot be used any more; returns the holds that were cancelled.

        Descendants stop because every use reads its whole lineage; pending and approved holds of the lineage are
        cancelled in the same transaction.

        Raises:
            NotFound: there is no such thing.
        """

    async def would_cancel(self, kind: RevocableKind, name: str) -> tuple[HoldId, ...]:
        """The holds that revoking this thing now would cancel; nothing is changed.

        Raises:
            NotFound: there is no such thing.
        """


class Enrolments(Protocol):
    """One-time codes by which agents register their first key, and keys that a document elsewhere declares."""

    async def add_enrolment(self, enrolment: Enrolment, event: Event) -> None:
        """The code can be used once until it expires; earlier ones of the agent cannot be used any more.

        Raises:
            Conflict: the agent is not there, is revoked, has a key already, or gets its keys otherwise.
        """

    async def enrol(self, code: bytes, key: Key, event: Event) -> None:
        """The agent has its key, and the code with this digest is used, both or neither.

        Raises:
            Conflict: the code is unknown, used, expired or another agent's, the agent is revoked or has a key, or the
                key belongs to somebody already.
        """

    async def enrolment(self, code: bytes) -> Enrolment | None:
        """The enrolment with this digest, used and expired ones included."""

    async def declare_keys(self, holder: str, keys: Sequence[Key], event: Event, retire_others_at: datetime) -> None:
        """The holder's keys are these: new ones are added, others end at `retire_others_at`, if they end no sooner.

        A key that was revoked stays so, whatever declares it. Where nothing changes nothing is recorded. A key that
        another document declared, and that was never proved, is this holder's now.

        Raises:
            Conflict: the holder is no active agent, a key is somebody else's or was replaced before, none is left, or
                more than two would be active.
        """

    async def prove_key(self, key: Thumbprint, holder: str) -> bool:
        """Whether the key is a current one of the holder, who has just signed with it: it stays theirs from now on."""


class Holds(Calls, Protocol):
    """Held calls. Every transition is one compare-and-swap and appends its event in the same transaction."""

    async def hold(self, hold: HoldId) -> HeldCall | None: ...
    async def holds(self, *, states: Sequence[HoldState] | None = None) -> tuple[HeldCall, ...]: ...
    async def hold_ids(self) -> tuple[HoldId, ...]:
        """The id of every hold there ever was."""

    async def latest_holds(self, limit: int) -> tuple[HeldCall, ...]:
        """The `limit` holds that were asked for last, in whatever state, newest first."""

    async def hold_stories(self, *, since: datetime) -> tuple[HoldStory, ...]:
        """What became of each hold that was asked for since then, oldest first; arguments are not among it."""

    async def moved_holds(self, after: int) -> tuple[int, tuple[HoldId, ...]]:
        """The number of the newest move of any hold, and the holds that moved after move `after`.

        A hold moves when it opens, when somebody answers it, and when its state changes.
        """

    async def approved_like(self, held: HeldCall, limit: int) -> tuple[HeldCall, ...]:
        """Other holds of the same tool, actor, subject and mode that were approved, newest first."""

    async def find_hold(self, *, digest: bytes, session: SessionId, actor: AgentName) -> HeldCall | None:
        """The newest hold over exactly this call of this session and actor, in whatever state."""

    async def open_hold(self, held: HeldCall, event: Event, *, per_session: int, per_agent: int) -> HeldCall:
        """The hold is pending; an identical pending or approved one is returned instead of a second.

        Raises:
            Conflict: the session or the agent has as many pending holds as it may have.
        """

    async def give_verdict(self, verdict: Verdict, *, after: int, to: HoldState, event: Event) -> HeldCall:
        """The verdict is the one after the first `after` verdicts, and the pending hold is now in state `to`.

        Raises:
            Conflict: the hold is not pending, or another verdict came in between, or the same person spoke already.
        """

    async def move_hold(
        self,
        hold: HoldId,
        *,
        come_from: HoldState,
        to: HoldState,
        event: Event | None,
        result: Mapping[str, Any] | None = None,
    ) -> bool:
        """Whether this caller made the transition: one compare-and-swap.

        Raises:
            Conflict: the table of `rules.hold` has no such edge.
        """

    async def abandon_hold(self, hold: HoldId, event: Event) -> bool:
        """Whether a hold that this process claimed, or goes on with, is `unknown` from now on, with this record."""


class Log(Retention, Protocol):
    """The audit log: one hash chain, appended under the write lock."""

    async def append(self, event: Event) -> Record: ...
    async def records(
        self, *, after: int = 0, limit: int = 1000, call: str | None = None, kind: str | None = None
    ) -> tuple[Record, ...]: ...
    async def record_hashes(self, *, after: int, until: int) -> tuple[bytes, ...]:
        """The hashes of the records behind `after`, up to `until`, oldest first."""

    async def last_of(self, kind: EventKind) -> Record | None:
        """The newest record of this kind."""

    async def search(self, wanted: Filter, *, limit: int, after: int = 0, before: int = END) -> tuple[Record, ...]:
        """The newest records that are wanted, between `after` and `before` (both not among them), oldest first.

        It takes a microsecond or so for each record in between: whoever serves others meanwhile asks for few at once.
        """

    async def head(self) -> tuple[int, bytes]:
        """The sequence number and hash of the last record; (0, 32 zero bytes) when there is none."""


class Inputs(EvidenceStore, Protocol):
    """What calls were decided upon: kept sealed, for a while, by the transaction that appends the decision record."""

    async def decisions(self, *, after: int = 0, limit: int = 200) -> tuple[Decided, ...]:
        """The decision records after `after`, oldest first, each with its input where that is kept."""

    async def decision_of(self, call: str) -> Decided | None:
        """The last decision about a call, rather one that has an input; None where there is none."""

    async def decisions_before(self, at: datetime | None) -> int:
        """What `decisions` goes on after, to begin at this time; None: where the first input is."""


class Pins(Protocol):
    """Which definition of which tool is the accepted one."""

    async def pins(self) -> tuple[Pin, ...]: ...
    async def pin_first(self, pins: Sequence[Pin], event: Event) -> None:
        """Tools that were never seen before are pinned; existing pins stay as they are."""

    async def quarantine(self, pin: Pin, event: Event) -> None:
        """The tool is in quarantine: `pin.changed` waits to be accepted."""

    async def release(self, server: str, tool: str, event: Event) -> None:
        """The tool is out of quarantine, because its server lists the pinned definition again."""

    async def accept(self, server: str, tool: str, expect: bytes, event: Event) -> None:
        """The waiting definition with digest `expect` is the pinned one now.

        Raises:
            Conflict: nothing waits, or something else does.
        """


class SigningKeys(Protocol):
    """The keys that the gateway signs with; their seeds are sealed at rest, and those of keys that are over deleted."""

    async def signing_keys(self, use: KeyUse) -> tuple[SigningKey, ...]:
        """Every key of this use, oldest first."""

    async def begin_signing(self, use: KeyUse, make: Callable[[], bytes]) -> tuple[SigningKey, ...]:
        """Every key of this use, at least one: `make` returns the seed of the first, where there was none before."""

    async def rotate_signing_key(
        self, new: SigningKey, event_for: Callable[[Sequence[SigningKey]], Event], *, retire_others_at: datetime
    ) -> None:
        """The key is there; the others of its use end at `retire_others_at`. The event is made for those that counted.

        Raises:
            Conflict: another key waits for its time to sign.
        """

    async def replace_signing_keys(self, new: SigningKey, event_for: Callable[[Sequence[SigningKey]], Event]) -> None:
        """The key is there; the others of its use are revoked, and their seeds gone."""


class Store(
    Registry,
    Enrolments,
    Holds,
    Log,
    Inputs,
    Pins,
    Accounts,
    Authorizations,
    Identities,
    SigningKeys,
    StandingApprovals,
    Tasks,
    Switches,
    Overview,
    Protocol,
):
    """Everything durable, with the one verb that decides races."""

    async def remember(self, once: Once) -> bool:
        """Whether this is the first use; it is durable when this returns True."""

    async def admit(self, admission: Admission) -> int | Lost:
        """Step 14 in one transaction, at the transaction's own time; the sequence number of the decision record.

        When it returns a number, all of this is durable: every `once` is remembered and was new; agent, key, subject,
        grant, session and every link are active and unexpired; the session is not idle beyond its bound and its last
        use is now; the budgets of session and every link had a call left, which is taken; the pinned definition is
        `definition_digest` and not in quarantine; the hold `claim` went from approved to claimed, and no standing
        approval that it rests on has ended; the hold `continues` is claimed still, by this process from now on; every
        one of `rates` had room, and the call counts towards it; every one of `budgets` had so much left, which is
        taken; the decision record is in the log. Otherwise nothing is changed.
        """

    async def secret(
        self, name: str, make: Callable[[], bytes], event_for: Callable[[bytes, datetime], Event] | None = None
    ) -> bytes:
        """The named secret of this installation; made on first use, on record by the event, sealed at rest."""

    async def changed(self, since: int) -> int:
        """A number other than `since`, as soon as anything was written after `since` was returned; begin with 0.

        What this process wrote is noticed at once, what another wrote within half a second.

        Raises:
            StoreError: the store cannot be read, or is closed.
        """

    async def aclose(self) -> None: ...


__all__ = [
    "Accounts",
    "Admission",
    "Authorizations",
    "Clock",
    "Decided",
    "Enrolment",
    "Enrolments",
    "Event",
    "EventKind",
    "Holds",
    "Identities",
    "Log",
    "Lost",
    "LostReason",
    "Once",
    "Pin",
    "Pins",
    "Rate",
    "Record",
    "Registration",
    "Registry",
    "RevocableKind",
    "SigningKeys",
    "Spending",
    "Standing",
    "Statement",
    "Store",
]
