"""One store lived through at random by several processes, and what has to be true of it after each step."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from examples import verify_audit
from mcp_authz import limits
from mcp_authz.audit_excerpts import excerpt_of
from mcp_authz.checkpoint_sinks import FileSink
from mcp_authz.checkpoints import Checkpoints
from mcp_authz.cli.verification import Proof, kept_checkpoints, verify
from mcp_authz.errors import StoreError
from mcp_authz.model import HoldId, HoldState
from mcp_authz.principals import GrantId, LinkId, SessionId, Thumbprint
from mcp_authz.recovering import recover
from mcp_authz.retention import Prunable, archive_name, prunable, prune
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.excerpt import verify_excerpt
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.signing_key import USES, KeyUse, SigningKey
from mcp_authz.store.calls_port import Ending
from mcp_authz.store.copying import copy, inspect
from mcp_authz.store.evidence_port import Before, OfCalls
from mcp_authz.store.ports import Lost, Once, Record, RevocableKind
from mcp_authz.store.restoring import Asked, restore
from mcp_authz.store.revoke import TABLE
from mcp_authz.store.sqlite import SqliteStore
from mcp_authz.store.witness import Mark
from tests.store.conftest import SEALER
from tests.store.world import (
    MINUTE,
    Time,
    admission,
    agent,
    event,
    grant,
    held,
    key,
    link,
    once,
    person,
    pin,
    root,
    session,
    verdict,
)

MONTH = limits.LOG_KEPT_LEAST
CANARY = "canary"


class Life:
    """The store, who has it open, and what is known of it elsewhere."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.path = directory, directory / "store.db"
        self.checkpoints, self.archives = directory / "checkpoints.txt", list[Path]()
        self.random, self.clock, self.number = random.Random(seed), Time(), 0  # noqa: S311 - not for secrets
        self.open = list[SqliteStore]()
        self.keys: dict[str, PublicKey] = {}  # of checkpoints, as an operator keeps them
        self.ended = set[tuple[RevocableKind, str]]()
        self.running = list[tuple[SqliteStore, str, HoldId | None]]()
        self.once = list[Once]()
        self.shredded, self.allowed_to_miss = set[str](), set[str]()  # ids of holds; names of what was signed
        self.backups = list[Path]()
        self.past = list[Mark]()  # what was backed up, and is a state that this store was in
        self.lost_holds = set[HoldId]()
        self.lived = ""  # the session and links that calls are made in now
        self.trail = list[str]()

    @property
    def store(self) -> SqliteStore:
        return self.random.choice(self.open)

    def next(self, prefix: str) -> str:
        self.number += 1
        return f"{prefix}_{self.number}"

    async def begin(self) -> None:
        self.join()
        store = self.store
        await store.add_person(person(), event("enrolment"))
        await store.add_agent(agent("planner"), key("agent:planner"), event("enrolment"))
        await store.add_agent(agent("coder"), key("agent:coder"), event("enrolment"))
        await store.pin_first([pin()], event("pin"))
        await self.start_session()

    def join(self) -> None:
        store = SqliteStore.open(self.path, sealer=SEALER, clock=self.clock, evidence_kept=3 * MONTH)
        self.open.append(store)

    async def start_session(self) -> None:
        """A grant, a session and a delegation of its own, in which calls are made from now on."""
        self.lived = n = self.next("s")
        store, at = self.store, self.clock()
        times = {"expires_at": at + 48 * MONTH}
        await store.add_grant(replace(grant(f"g_{n}"), **times, granted_at=at), event("grant"))
        made = replace(session(f"se_{n}", f"g_{n}"), **times, started_at=at, last_used_at=at)
        await store.open_session(made, replace(root(f"r_{n}", of=made.id), **times, issued_at=at), event("session"))
        leaf = replace(link(f"l_{n}", f"r_{n}", of=made.id), **times, issued_at=at)
        await store.add_link(leaf, event("delegation"))

    # What happens

    async def call(self, claim: HoldId | None = None) -> bool:
        """A call is admitted, signed and with its input, unless what it rests on has ended."""
        store, name, n = self.store, self.next("c"), self.lived
        proof = f"{name}.{CANARY}.{self.random.random()}"
        made = replace(event("decision", name), at=self.clock(), input={"arguments": CANARY}, signed=proof)
        fields = {"decision": "permit", "actor": "agent:coder", "proof_digest": name_of(proof)}
        fields |= {} if claim is None else {"approval": {"hold": claim}}
        used = replace(once(name), issued_at=self.clock(), expires_at=self.clock() + MINUTE)
        asked = replace(
            admission(name, event=replace(made, fields=fields), once=(used,), claim=claim),
            grant=GrantId(f"g_{n}"),
            session=SessionId(f"se_{n}"),
            links=(LinkId(f"r_{n}"), LinkId(f"l_{n}")),
        )
        found = await store.admit(asked)
        if isinstance(found, Lost):
            return False
        assert not self.is_over(n), f"a call in a session that ended: {n}"
        self.running.append((store, name, claim))
        self.once.append(used)
        return True

    def is_over(self, n: str) -> bool:
        of = {("grant", f"g_{n}"), ("session", f"se_{n}"), ("link", f"r_{n}"), ("link", f"l_{n}")}
        return bool(self.ended & {*of, ("agent", "coder"), ("key", "agent:coder/1")})

    async def end(self) -> None:
        if not self.running:
            return
        store, name, hold = self.running.pop(self.random.randrange(len(self.running)))
        outcome = replace(event("outcome", name, outcome="done"), at=self.clock())
        to, result = (None, None) if hold is None else (HoldState.DONE, {"content": CANARY})
        await store.end_call(Ending(call=name, event=outcome, hold=hold, to=to, result=result))

    async def hold(self) -> None:
        """A call is held, and most times approved and made."""
        hold, n, at = HoldId(self.next("h")), self.lived, self.clock()
        waiting = held(hold, digest=hold.encode().ljust(32, b"\0"))
        waiting = replace(waiting, session=SessionId(f"se_{n}"), asked_at=at, expires_at=at + 15 * MINUTE)
        if self.is_over(n):
            return
        await self.store.open_hold(waiting, event("approval", hold), per_session=10_000, per_agent=10_000)
        if self.random.random() < 0.2:
            return
        to = HoldState.APPROVED if self.random.random() < 0.8 else HoldState.DENIED
        said = replace(verdict(hold, approve=to is HoldState.APPROVED), statement=f"{hold}.{CANARY}.x", given_at=at)
        await self.store.give_verdict(said, after=0, to=to, event=event("approval", hold))
        if to is HoldState.APPROVED and self.random.random() < 0.8:
            await self.call(hold)

    async def crash(self) -> None:
        """A process is gone with what it ran; as it held them, nothing of it was written."""
        store = self.open.pop(self.random.randrange(len(self.open)))
        self.running = [one for one in self.running if one[0] is not store]
        await store.aclose()
        if len(self.open) < 2:
            self.join()

    async def revoke(self) -> None:
        n = self.lived
        kinds: list[tuple[RevocableKind, str]] = [
            ("link", f"l_{n}"),
            ("link", f"r_{n}"),
            ("session", f"se_{n}"),
            ("grant", f"g_{n}"),
        ]
        kind, name = self.random.choice(kinds)
        await self.store.revoke(kind, name, replace(event("revocation"), at=self.clock()))
        self.ended.add((kind, name))
        assert not await self.call()
        await self.start_session()

    async def extra(self) -> None:
        """One more agent comes, and most times goes."""
        name = self.next("extra").replace("_", "-")
        await self.store.add_agent(agent(name), key(f"agent:{name}"), event("enrolment"))
        if self.random.random() < 0.7:
            what: list[tuple[RevocableKind, str]] = [("agent", name), ("key", f"agent:{name}/1")]
            kind, id_ = self.random.choice(what)
            await self.store.revoke(kind, id_, event("revocation"))
            self.ended.add((kind, id_))

    async def rotate(self) -> None:
        use: KeyUse = self.random.choice(USES)
        store, seed = self.store, self.random.randbytes(32)
        await store.begin_signing(use, lambda: seed)
        new = SigningKey(
            kid=Thumbprint(PrivateKey.from_seed(seed[::-1]).public.thumbprint),
            use=use, made_at=self.clock(), signs_from=self.clock(), seed=seed[::-1],
        )  # fmt: skip
        said = partial(lambda before, use: event(use=use, replaces=[it.kid for it in before]), use=use)
        if self.random.random() < 0.5:
            await store.rotate_signing_key(new, said, retire_others_at=self.clock())
        else:
            await store.replace_signing_keys(new, said)

    async def checkpoint(self, store: SqliteStore | None = None) -> None:
        store = store or self.store
        known = await store.begin_signing("checkpoint", lambda: self.random.randbytes(32))
        (signing,) = [it for it in known if it.seed is not None and it.status == "active" and it.retires_at is None]
        assert signing.seed is not None
        made_by = PrivateKey.from_seed(signing.seed)
        self.keys[signing.kid] = made_by.public
        made = Checkpoints(
            store=store,
            clock=self.clock,
            issuer="https://authz.example.com",
            signing=lambda: made_by,
            sinks=[FileSink(path=self.checkpoints)],
            epoch=self.epoch,
        )
        await made.write()

    @property
    def epoch(self) -> int:
        return inspect(self.path).mark.epoch

    async def prune(self) -> None:
        store = self.store
        what = await prunable(store, MONTH, self.clock())
        if isinstance(what, Prunable):
            archive = self.directory / f"{self.epoch}-{archive_name(what)}"
            await prune(store, self.clock, what, path=self.path, by="user:op", archive=archive)
        await store.remove_pruned(self.random.choice((1, 7, 1000)))

    async def shred(self) -> None:
        store = self.store
        if self.random.random() < 0.3:
            before = self.clock() - self.random.choice((timedelta(), MINUTE, MONTH))
            while not (await store.shred(Before(at=before), event())).is_nothing:
                pass
        else:
            proofs = [it for it in await self.records("decision") if "proof_digest" in it.event.fields][-5:]
            if not proofs:
                return
            one = self.random.choice(proofs)
            hold = one.event.fields.get("approval", {}).get("hold")
            names = frozenset({str(one.event.fields["proof_digest"])})
            holds = frozenset({HoldId(hold)} if hold else set())
            await store.shred(OfCalls(holds=holds, sequences=frozenset({one.sequence}), proofs=names), event())
        self.note_shredded()

    async def time_goes_by(self) -> None:
        some = self.random.choice((MINUTE, 20 * MINUTE, MONTH / 3, MONTH + MINUTE))
        self.clock.pass_(some)
        while await self.store.shred_due():
            pass
        self.note_shredded()

    async def back_up(self) -> None:
        file = self.directory / f"{self.next('backup')}.db"
        self.past.append(copy(self.path, file, lambda *_: None))
        self.backups.append(file)
        assert verify(file, lambda *_: None).broken is None

    async def restore(self) -> None:
        """A backup is put back: the newest most times, or any there ever was."""
        if not self.backups:
            return
        file = self.backups[-1] if self.random.random() < 0.6 else self.random.choice(self.backups)
        for store in self.open:
            await store.aclose()
        self.note_shredded()
        self.clock.pass_(MINUTE)
        dead = self.column("SELECT id FROM holds WHERE state IN ('pending', 'approved', 'claimed')", file)
        asked = Asked(backup=file, reason="x", by="user:op")
        if (
            inspect(file).mark not in self.past
        ):  # of a branch that an earlier restore left: nothing tells what ended since
            with pytest.raises(StoreError, match="what was revoked since the backup is not known"):
                restore(self.path, asked, sealer=SEALER, clock=self.clock, seen=(), told=lambda *_: None)
            self.open.clear()
            self.running.clear()
            self.join()
            return
        done = restore(self.path, asked, sealer=SEALER, clock=self.clock, seen=(), told=lambda *_: None)
        assert done.revocations_known
        self.past = self.past[: self.past.index(done.mark) + 1]
        self.running.clear()
        self.open.clear()
        self.lost_holds |= {HoldId(one) for one in dead}
        # A bare session of the backup may be known by another's name: all of them ended.
        self.ended |= {("session", one) for one in self.column("SELECT id FROM sessions")}
        self.ended |= {("link", one) for one in self.column("SELECT id FROM links")}
        self.join()
        if self.random.random() < 0.5:
            self.join()
        assert not await self.call()
        await self.start_session()

    # What is true

    def column(self, asked: str, path: Path | None = None) -> list[str]:
        with closing(sqlite3.connect(path or self.path)) as db:
            return [one for (one,) in db.execute(asked)]

    def note_shredded(self) -> None:
        self.shredded |= set(self.column("SELECT id FROM holds WHERE shredded_at IS NOT NULL"))

    async def records(self, kind: str | None = None) -> tuple[Record, ...]:
        return await self.open[0].records(after=(await self.open[0].log_base()).sequence, limit=100_000, kind=kind)

    async def assert_true(self) -> None:
        await recover(self.open[0], self.clock)
        self.assert_verifies()
        await self.assert_nothing_comes_back()
        await self.assert_evidence()
        await self.assert_excerpts()

    def assert_verifies(self) -> None:
        texts = kept_checkpoints(self.checkpoints) if self.checkpoints.exists() else ()
        found = verify(self.path, lambda *_: None, Proof(checkpoints=texts, keys=self.keys))
        assert found.broken is None, found.broken
        log = self.directory / "log.jsonl"
        with closing(sqlite3.connect(self.path)) as db:
            begins = "SELECT body FROM log WHERE sequence > (SELECT sequence FROM log_base) ORDER BY sequence"
            log.write_bytes(b"".join(body + b"\n" for (body,) in db.execute(begins)))
        jwks = {kid: {**it.jwk, "kid": kid} for kid, it in self.keys.items()}
        assert verify_audit.check(verify_audit.read_log(log), list(texts), jwks) == found.vouched

    async def assert_nothing_comes_back(self) -> None:
        store = self.open[0]
        with closing(sqlite3.connect(self.path)) as db:
            for kind, name in self.ended:
                table, column = TABLE[kind]
                asked = f"SELECT status FROM {table} WHERE {column} = ?"  # noqa: S608 - constants
                assert db.execute(asked, (name,)).fetchone() in {None, ("revoked",)}, (kind, name)
            claimed = dict(db.execute("SELECT id, claimed_by FROM holds WHERE state = 'claimed'").fetchall())
            begun = {instance for (instance,) in db.execute("SELECT instance FROM begun")}
        living = {one._instance.name for one in self.open}
        assert {*claimed.values(), *begun} <= living
        running = {hold for _, _, hold in self.running if hold is not None}
        assert set(claimed) <= running, "a hold is claimed, and nobody runs it"
        for hold in self.lost_holds:
            found = await store.hold(hold)
            assert found is None or found.ended_at is not None
        for used in self.once[-3:]:
            assert not await store.remember(used), f"{used.id} was used"

    async def assert_evidence(self) -> None:
        """What records name is there, unless it was shredded; what was shredded is nowhere."""
        gone = self.clock() - 3 * MONTH
        records = await self.records("decision")
        texts = await self.open[0].signed([str(it.event.fields["proof_digest"]) for it in records])
        missing = [it for it, text in zip(records, texts, strict=True) if text is None and it.event.at > gone]
        assert {it.event.fields["proof_digest"] for it in missing} <= self.allowed_to_miss, missing
        back = {it.event.fields["proof_digest"] for it, text in zip(records, texts, strict=True) if text is not None}
        assert not back & self.allowed_to_miss, "what was shredded is there again"
        shredded = ", ".join(f"'{one}'" for one in self.shredded)
        with closing(sqlite3.connect(self.path)) as db:
            asked = f"""SELECT id FROM holds WHERE id IN ({shredded}) AND (shredded_at IS NULL OR length(arguments) > 0
                OR result IS NOT NULL OR digest <> zeroblob(32))"""  # noqa: S608 - ids of a test
            assert db.execute(asked).fetchall() == []

    async def assert_excerpts(self) -> None:
        calls = [it for it in await self.records() if it.event.call is not None]
        if calls and self.checkpoints.exists():
            wanted = self.random.choice(calls).event.call
            story = [it for it in calls if it.event.call == wanted]
            shown = await excerpt_of(self.open[0], story, gateway="https://authz.example.com", evidence={})
            read = verify_excerpt(json.loads(json.dumps(shown)), self.keys)
            assert [it.sequence for it in read] == [it.sequence for it in story]

    # The life itself

    @property
    def deeds(self) -> list[tuple[int, Callable[[], Awaitable[object]]]]:
        return [
            (12, self.call), (10, self.end), (6, self.hold), (3, self.crash), (2, self.revoke), (2, self.extra),
            (3, self.rotate), (6, self.checkpoint), (4, self.prune), (3, self.shred), (6, self.time_goes_by),
            (3, self.back_up), (2, self.restore),
        ]  # fmt: skip

    async def live(self, steps: int) -> None:
        await self.begin()
        weights, deeds = zip(*self.deeds, strict=True)
        for _ in range(steps):
            deed = self.random.choices(deeds, weights)[0]
            self.trail.append(deed.__name__)
            before = self.signed_names()
            await deed()
            if deed.__name__ in {"shred", "time_goes_by"}:
                self.allowed_to_miss |= before - self.signed_names()
            await self.assert_true()

    def signed_names(self) -> set[str]:
        return {f"sha256:{one.hex()}" for one in self.column("SELECT digest FROM evidence")}  # type: ignore[attr-defined]

    async def close(self) -> None:
        for store in self.open:
            await store.aclose()
