"""The store in one SQLite file.

Reads run at once, on a connection of their own: each sees everything that is committed. Writes wait for the writer's
flush. Several processes may have the file open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from mcp_authz import ids, limits
from mcp_authz.errors import StoreError
from mcp_authz.limits import JSON_INTEGER as END
from mcp_authz.principals import (
    Agent,
    AgentName,
    Grant,
    GrantId,
    Key,
    Link,
    LinkId,
    Person,
    PersonName,
    Session,
    SessionId,
    Thumbprint,
)
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.keys import Sealer, random_bytes
from mcp_authz.rules.record_redaction import DEFAULT, RecordRedaction
from mcp_authz.rules.redaction import Redaction
from mcp_authz.signing_key import KeyUse, SigningKey
from mcp_authz.store import (
    admission,
    decided,
    enrolments,
    pins,
    present,
    records,
    registry,
    signed,
    signing_keys,
)
from mcp_authz.store.bell import Bell
from mcp_authz.store.changes import Changes
from mcp_authz.store.connections import FilePen, Reader, Synchronous, Transactions, connect, connect_reader
from mcp_authz.store.faults import store_error
from mcp_authz.store.files import DatabaseFile, InstanceLock, WriteLock, prepare
from mcp_authz.store.ports import (
    Clock,
    Decided,
    Enrolment,
    Event,
    EventKind,
    Once,
    Pin,
    Record,
    Registration,
    Standing,
    Statement,
)
from mcp_authz.store.rows import micros
from mcp_authz.store.schema import migrate, newest
from mcp_authz.store.sqlite_calls import CallsInSqlite
from mcp_authz.store.sqlite_evidence import EvidenceInSqlite
from mcp_authz.store.sqlite_holds import HoldsInSqlite
from mcp_authz.store.sqlite_overview import OverviewInSqlite
from mcp_authz.store.sqlite_people import PeopleInSqlite
from mcp_authz.store.sqlite_retention import RetentionInSqlite
from mcp_authz.store.sqlite_standing import StandingInSqlite
from mcp_authz.store.sqlite_switches import SwitchesInSqlite
from mcp_authz.store.sqlite_tasks import TasksInSqlite
from mcp_authz.store.tidying import Kept, tidy
from mcp_authz.store.transaction import known_secret, secret
from mcp_authz.store.witness import Mark, Witness, WitnessedPen, begin_witness, require_current
from mcp_authz.store.writer import Writer


class SqliteStore(
    CallsInSqlite,
    EvidenceInSqlite,
    HoldsInSqlite,
    StandingInSqlite,
    SwitchesInSqlite,
    TasksInSqlite,
    OverviewInSqlite,
    RetentionInSqlite,
    PeopleInSqlite,
):
    """Every promise of `store.ports.Store`, kept by one file.

    It belongs to the thread of its event loop. A hold whose time is up reads as expired at once; its row and record
    follow with the next write of any kind.
    """

    def __init__(self, reader: Reader, pen: FilePen, instance: InstanceLock, kept: Kept) -> None:
        self._reader = reader
        self._pen = pen
        self._instance = instance
        self._evidence_kept = kept.evidence
        self._running = set()
        self._bell = Bell(reader.path, instance.name)
        self._changes = Changes(reader.version, self._bell)
        self._writer = Writer(pen, first=partial(tidy, kept=kept), then=self._tell)
        super().__init__(reader, self._writer)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        sealer: Sealer,
        clock: Clock,
        synchronous: Synchronous = "FULL",
        patience: timedelta = limits.STORE_LOCKED,
        inputs_kept: timedelta = limits.INPUTS_LIFETIME,
        evidence_kept: timedelta = limits.EVIDENCE_LIFETIME,
        redact: Redaction = DEFAULT,
        seen: Sequence[Mark] = (),
    ) -> SqliteStore:
        """Return the store at `path`, made or migrated if need be; `patience` is how long writes wait for others.

        `seen` is where its log was known to end, beside what its witness says.

        Raises:
            StoreError: it cannot be read and written, belongs to another program or to a newer version, was made
                with another sealing key, or was put back to an earlier state.
        """
        path, seconds = path.absolute(), patience.total_seconds()
        lock = WriteLock(path, patience=seconds)
        try:
            prepare(path)
            opening = partial(connect, path, synchronous, seconds)
            instance = InstanceLock(path, ids.new_id("i"))
            make = partial(
                Transactions,
                DatabaseFile(path, schema=newest()),
                clock=clock,
                sealer=sealer,
                instance=instance.name,
                redact=RecordRedaction(redact),
            )
            witness = Witness(path)
            pen = WitnessedPen(make(opening), lock, witness) if synchronous == "FULL" else FilePen(make(opening), lock)
            try:
                _make_ready(pen, lock, opening, witness, seen)
            except BaseException:
                pen.close()
                instance.close()
                raise
        except (sqlite3.Error, OSError, StoreError) as fault:
            raise store_error(fault, path) from fault
        instance.sweep()
        return cls(Reader(make(partial(connect_reader, opening))), pen, instance, Kept(inputs_kept, evidence_kept))

    @property
    def queued(self) -> int:
        """How many writes wait for the disk."""
        return self._writer.queued

    async def aclose(self) -> None:
        """What waited is written; connections, locks and thread are gone."""
        await self._writer.aclose()
        self._reader.close()
        self._changes.tell()  # whoever waits learns that the store is closed
        self._bell.close()
        self._pen.close()
        self._instance.close()

    def _tell(self) -> None:
        """Whoever waits for what was written looks now, in this process and in others."""
        self._changes.tell()
        self._bell.ring()

    # Registry

    async def agent(self, name: AgentName) -> Agent | None:
        return self._ask(lambda tx: registry.agent(tx, name))

    async def agents(self) -> tuple[Agent, ...]:
        return self._ask(registry.agents)

    async def agent_at(self, metadata_url: str) -> Agent | None:
        return self._ask(lambda tx: registry.agent_at(tx, metadata_url))

    async def add_agent(self, agent: Agent, key: Key | None, event: Event) -> None:
        await self._write(lambda tx: registry.add_agent(tx, agent, key, event))

    async def update_agent(self, agent: Agent, event: Event) -> None:
        await self._write(lambda tx: registry.update_agent(tx, agent, event))

    async def key(self, thumbprint: Thumbprint) -> Key | None:
        return self._ask(lambda tx: registry.key(tx, thumbprint))

    async def keys_of(self, holder: str) -> tuple[Key, ...]:
        return self._ask(lambda tx: registry.keys_of(tx, holder))

    async def add_key(self, key: Key, event: Event, *, retire_others_at: datetime | None) -> None:
        await self._write(lambda tx: registry.add_key(tx, key, event, retire_others_at=retire_others_at))

    async def person(self, name: PersonName) -> Person | None:
        return self._ask(lambda tx: registry.person(tx, name))

    async def people(self) -> tuple[Person, ...]:
        return self._ask(registry.people)

    async def add_person(self, person: Person, event: Event) -> None:
        await self._write(lambda tx: registry.add_person(tx, person, event))

    async def grant(self, grant: GrantId) -> Grant | None:
        return self._ask(lambda tx: registry.grant(tx, grant))

    async def grants(self, *, agent: AgentName | None = None) -> tuple[Grant, ...]:
        return self._ask(lambda tx: registry.grants(tx, agent))

    async def add_grant(self, grant: Grant, event: Event) -> None:
        await self._write(lambda tx: registry.add_grant(tx, grant, event))

    async def session(self, session: SessionId) -> Session | None:
        return self._ask(lambda tx: registry.session(tx, session))

    async def sessions(self) -> tuple[Session, ...]:
        return self._ask(registry.sessions)

    async def open_session(self, session: Session, root: Link, event: Event) -> None:
        await self._write(lambda tx: registry.open_session(tx, session, root, event))

    async def link(self, link: LinkId) -> Link | None:
        return self._ask(lambda tx: registry.link(tx, link))

    async def links(self, session: SessionId) -> tuple[Link, ...]:
        return self._ask(lambda tx: registry.links(tx, session))

    async def add_link(self, link: Link, event: Event) -> None:
        await self._write(lambda tx: registry.add_link(tx, link, event))

    async def add_signed(self, registration: Registration, event_for: Callable[[Link | Key], Event]) -> None:
        await self._write(lambda tx: signed.add_signed(tx, registration, event_for))

    async def statements(self, leaf: bytes) -> tuple[Statement, ...]:
        return self._ask(lambda tx: signed.statements(tx, leaf))

    async def open_links(
        self, agent: AgentName, at: datetime, *, since: datetime | None = None
    ) -> tuple[tuple[Session, Link], ...]:
        after = 0 if since is None else micros(since)
        return self._ask(lambda tx: registry.open_links(tx, agent, micros(at), after))

    async def worked_for(self, agent: AgentName, since: datetime) -> frozenset[str]:
        return self._ask(lambda tx: registry.worked_for(tx, agent, micros(since)))

    async def standing(
        self, *, agent: AgentName, key: Thumbprint | None, person: PersonName | None, link: LinkId | None
    ) -> Standing:
        return self._ask(lambda tx: present.standing(tx, agent, key, person, link))

    # Enrolments

    async def add_enrolment(self, enrolment: Enrolment, event: Event) -> None:
        await self._write(lambda tx: enrolments.add_enrolment(tx, enrolment, event))

    async def enrol(self, code: bytes, key: Key, event: Event) -> None:
        await self._write(lambda tx: enrolments.enrol(tx, code, key, event))

    async def enrolment(self, code: bytes) -> Enrolment | None:
        return self._ask(lambda tx: enrolments.enrolment(tx, code))

    async def declare_keys(self, holder: str, keys: Sequence[Key], event: Event, retire_others_at: datetime) -> None:
        await self._write(lambda tx: enrolments.declare_keys(tx, holder, keys, event, retire_others_at))

    async def prove_key(self, key: Thumbprint, holder: str) -> bool:
        return await self._write(lambda tx: enrolments.prove_key(tx, key, holder))

    # Log

    async def append(self, event: Event) -> Record:
        return await self._write(lambda tx: records.append(tx, event))

    async def records(
        self, *, after: int = 0, limit: int = 1000, call: str | None = None, kind: str | None = None
    ) -> tuple[Record, ...]:
        return self._ask(lambda tx: records.records(tx, after=after, limit=limit, call=call, kind=kind))

    async def record_hashes(self, *, after: int, until: int) -> tuple[bytes, ...]:
        return self._ask(lambda tx: records.hashes(tx, after=after, until=until))

    async def last_of(self, kind: EventKind) -> Record | None:
        return self._ask(lambda tx: records.last_of(tx, kind))

    async def search(self, wanted: Filter, *, limit: int, after: int = 0, before: int = END) -> tuple[Record, ...]:
        return self._ask(lambda tx: records.search(tx, wanted, after=after, before=before, limit=limit))

    async def head(self) -> tuple[int, bytes]:
        return self._ask(records.head)

    async def decisions(self, *, after: int = 0, limit: int = 200) -> tuple[Decided, ...]:
        return self._ask(lambda tx: decided.decisions(tx, after=after, limit=limit))

    async def decision_of(self, call: str) -> Decided | None:
        return self._ask(lambda tx: decided.decision_of(tx, call))

    async def decisions_before(self, at: datetime | None) -> int:
        return self._ask(lambda tx: decided.before(tx, at))

    # Pins

    async def pins(self) -> tuple[Pin, ...]:
        return self._ask(pins.pins)

    async def pin_first(self, pins_: Sequence[Pin], event: Event) -> None:
        await self._write(lambda tx: pins.pin_first(tx, pins_, event))

    async def quarantine(self, pin: Pin, event: Event) -> None:
        await self._write(lambda tx: pins.quarantine(tx, pin, event))

    async def release(self, server: str, tool: str, event: Event) -> None:
        await self._write(lambda tx: pins.release(tx, server, tool, event))

    async def accept(self, server: str, tool: str, expect: bytes, event: Event) -> None:
        await self._write(lambda tx: pins.accept(tx, server, tool, expect, event))

    # What may happen once

    async def remember(self, once: Once) -> bool:
        return await self._write(lambda tx: admission.remember(tx, once))

    async def secret(
        self, name: str, make: Callable[[], bytes], event_for: Callable[[bytes, datetime], Event] | None = None
    ) -> bytes:
        known = self._ask(lambda tx: known_secret(tx, name))
        if known is not None:
            return known
        return await self._write(lambda tx: signing_keys.begin_secret(tx, name, make, event_for))

    async def signing_keys(self, use: KeyUse) -> tuple[SigningKey, ...]:
        return self._ask(lambda tx: signing_keys.signing_keys(tx, use))

    async def begin_signing(self, use: KeyUse, make: Callable[[], bytes]) -> tuple[SigningKey, ...]:
        known = self._ask(lambda tx: signing_keys.signing_keys(tx, use))
        return known or await self._write(lambda tx: signing_keys.begin_signing(tx, use, make))

    async def rotate_signing_key(
        self, new: SigningKey, event_for: Callable[[Sequence[SigningKey]], Event], *, retire_others_at: datetime
    ) -> None:
        await self._write(lambda tx: signing_keys.rotate_signing_key(tx, new, event_for, retire_others_at))

    async def replace_signing_keys(self, new: SigningKey, event_for: Callable[[Sequence[SigningKey]], Event]) -> None:
        await self._write(lambda tx: signing_keys.replace_signing_keys(tx, new, event_for))

    async def changed(self, since: int) -> int:
        return await self._changes.after(since)


def _make_ready(
    pen: FilePen,
    lock: WriteLock,
    connect: Callable[[], sqlite3.Connection],
    witness: Witness,
    seen: Sequence[Mark],
) -> None:
    """It is the newest, has its tables, can be written, and the sealing key is the one that it was made with."""
    lock.take()
    with closing(connect()) as db:
        require_current(db, witness, seen)
        migrate(db)
    lock.release()
    tx = pen.begin()
    tx.db.execute("UPDATE log_head SET one = one")  # on a read-only file SQLite begins, and complains here
    secret(tx, "sealing-key-check", lambda: random_bytes(16))
    begin_witness(tx, witness)
    pen.commit()
