"""The one thread of a process that writes: many waiting jobs, one flush, and an answer only after it.

A batch is one transaction with a savepoint for each job, so that a lost race undoes that job only. When the batch
cannot be begun or written, every job of it fails, nothing of it is there, and the next batch tries anew. Only where
the commit itself fails nobody can say whether it was one: then each job fails as `StoreInDoubt`, and whoever told
somebody that nothing was done makes it so, with `finish_later`. What begins something is refused when too much waits.
What ends something that has happened always has room: it goes before everything else, and is tried again until it is
written.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.seldom import trouble
from mcp_authz.store.faults import in_doubt, value_error
from mcp_authz.store.transaction import Transaction

T = TypeVar("T")
Job = Callable[[Transaction], T]

_QUEUE: Final = limits.STORE_QUEUE
_BATCH: Final = limits.STORE_BATCH
_BYTES: Final = limits.STORE_BYTES
_AGAIN: Final = limits.STORE_AGAIN.total_seconds()


class Pen(Protocol):
    """What the writer writes with; `SqliteStore` has the one there is."""

    def begin(self) -> Transaction:
        """A write transaction has begun, on a connection that works."""

    def commit(self) -> None:
        """What was written since `begin` is on the disk, and others may write."""

    def drop(self) -> None:
        """Nothing written since `begin` remains; the next `begin` connects anew."""

    def explain(self, fault: Exception) -> StoreError:
        """What went wrong, as a sentence that says what to do."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A job and who waits for it; one that has a name is tried again until it is done."""

    job: Job[Any]
    size: int
    name: str | None = None
    waiters: list[asyncio.Future[Any]] = field(default_factory=list)
    was_tried: bool = False

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits for it any more, and nothing is lost without it."""
        return self.name is None and all(waiter.cancelled() for waiter in self.waiters)


@dataclass(frozen=True, slots=True)
class _Answer:
    to: asyncio.Future[Any]
    value: Any
    error: Exception | None

    def give(self) -> None:
        """The waiter has its answer, unless it has gone away meanwhile."""
        if self.to.done():
            return
        if self.error is None:
            self.to.set_result(self.value)
        else:
            self.to.set_exception(self.error)


@dataclass(frozen=True, slots=True)
class _Did:
    of: _Waiting
    value: Any = None
    error: Exception | None = None


class _CommitFailed(Exception):
    """It was tried to commit, and this came of it."""

    def __init__(self, fault: Exception) -> None:
        super().__init__(fault)
        self.fault = fault


class Writer:
    """Runs endings first, then jobs in the order they came, as many at once as wait."""

    def __init__(self, pen: Pen, *, first: Job[None], then: Callable[[], None]) -> None:
        """`first` runs once in each batch, before its jobs; `then` once it is on the disk, in the writer's thread."""
        self._pen = pen
        self._first = first
        self._then = then
        self._waiting: deque[_Waiting] = deque()
        self._endings: OrderedDict[str, _Waiting] = OrderedDict()
        self._size = 0
        self._is_away = False  # the last batch failed
        self._wake = threading.Condition()
        self._asking: asyncio.AbstractEventLoop | None = None  # which is about to wake the thread
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mcp-authz-store", daemon=True)
        self._thread.start()

    async def run(self, job: Job[T], *, size: int = 0) -> T:
        """What the job returned, once it is on the disk; `size` is how many bytes wait with it, where it may be many.

        A caller that stops waiting learns nothing: the job happens as a whole, or not at all.

        Raises:
            StoreError: too many jobs or bytes wait, the store is closed, or the batch could not be written.
            AuthzError: what the job raised; it wrote nothing.
        """
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._wake:
            self._require_open()
            if len(self._waiting) >= _QUEUE or (size and self._size and not self._has_room(size)):
                raise StoreError(f"{len(self._waiting)} writes wait for the disk already; try again in a moment")
            self._waiting.append(_Waiting(job, size, waiters=[waiter]))
            self._size += size
        self._ask(waiter.get_loop())
        return await waiter

    async def finish(self, name: str, job: Job[T], *, size: int = 0) -> T:
        """What the job returned, once it is on the disk: it ends something, under a name that is the thing's alone.

        There is always room for it. As long as it waits, other jobs of the same name are it. Whoever gives a name
        bounds how many there are: a call has one, and so many may have begun.

        Raises:
            StoreError: it is not written yet, and will be as soon as the store can be written; or the store is closed.
            AuthzError: what the job raised; it wrote nothing, and is not tried again.
        """
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._wake:
            self._require_open()
            self._end(name, job, size).waiters.append(waiter)
        self._ask(waiter.get_loop())
        return await waiter

    def finish_later(self, name: str, job: Job[Any]) -> None:
        """The same for whoever does not wait for it; a store that is closed leaves it to the next one."""
        with self._wake, suppress(StoreError):
            self._require_open()
            self._end(name, job, 0)
            self._wake.notify()

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread is woken as soon as all have asked who are answered in this turn: one flush serves them all."""
        if self._asking is not loop:
            self._asking = loop
            loop.call_soon(self._asked)

    def _asked(self) -> None:
        with self._wake:
            self._asking = None
            self._wake.notify()

    def _end(self, name: str, job: Job[Any], size: int) -> _Waiting:
        if name not in self._endings:
            self._endings[name] = _Waiting(job, size, name)
            self._size += size
        return self._endings[name]

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more may wait."""
        with self._wake:
            return self._has_room(size)

    @property
    def queued(self) -> int:
        """How many jobs wait."""
        return len(self._waiting) + len(self._endings)

    @property
    def endings(self) -> int:
        """How many of them end something."""
        return len(self._endings)

    async def aclose(self) -> None:
        """What waited is written if it can be, and the thread has ended."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _require_open(self) -> None:
        if self._closed or not self._thread.is_alive():
            raise StoreError("the store is closed")

    def _has_room(self, size: int) -> bool:
        return self._size + size <= _BYTES

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                done = self._write(batch)
            except _CommitFailed as failed:
                self._pen.drop()
                error = self._pen.explain(failed.fault)
                self._fail(batch, error, in_doubt(error))
            except Exception as fault:  # noqa: BLE001 - the thread outlives every fault, and each waiter is told
                self._pen.drop()
                error = self._pen.explain(fault)
                self._fail(batch, error, error)
            else:
                self._succeed(done)
                self._then()
        self._pen.drop()

    def _next_batch(self) -> list[_Waiting]:
        """What is written next: endings, and other jobs only when no ending is left out."""
        with self._wake:
            # What could not be written is tried again after a while, or as soon as anything else comes.
            self._wake.wait_for(self._is_wanted, timeout=_AGAIN if self._is_away and self._endings else None)
            batch = list(self._endings.values())[:_BATCH]
            for ending in batch:
                ending.was_tried = True
            if self._is_away and batch:
                return batch  # alone: what needs more room than there is must not take them along
            while self._waiting and len(batch) < _BATCH:
                taken = self._waiting.popleft()
                self._size -= taken.size
                batch.append(taken)
            return batch

    def _is_wanted(self) -> bool:
        endings = self._endings.values()
        asked = any(it.waiters or not it.was_tried for it in endings) if self._is_away else bool(endings)
        return bool(self._waiting) or self._closed or asked

    def _write(self, batch: list[_Waiting]) -> list[_Did]:
        tx = self._pen.begin()
        self._first(tx)
        done = [_do(tx, waiting) for waiting in batch]
        try:
            self._pen.commit()
        except Exception as fault:
            raise _CommitFailed(fault) from fault
        return done

    def _succeed(self, done: list[_Did]) -> None:
        with self._wake:
            self._is_away = False
            for did in done:
                if did.of.name is not None:
                    del self._endings[did.of.name]
                    self._size -= did.of.size
            _answer([(waiter, did) for did in done for waiter in did.of.waiters])

    def _fail(self, batch: list[_Waiting], error: StoreError, of_batch: StoreError) -> None:
        """Whoever waits hears of it, those of the batch `of_batch`.

        Endings keep their place, and while there are any nothing else is begun.
        """
        tried = {id(waiting) for waiting in batch}
        if self._endings:
            trouble.error(error, "%s; %d calls that ran wait to have their outcome written", error, self.endings)
        with self._wake:
            self._is_away = True
            if self._endings or self._closed:
                batch = [*{id(it): it for it in (*batch, *self._endings.values(), *self._waiting)}.values()]
                self._waiting.clear()
                self._size = sum(ending.size for ending in self._endings.values())
            if self._closed:
                self._endings.clear()  # the next process to look finds that these calls were begun
            said = {id(waiting): of_batch if id(waiting) in tried else error for waiting in batch}
            failed = [(waiter, _Did(it, error=said[id(it)])) for it in batch for waiter in it.waiters]
            for waiting in batch:
                waiting.waiters = []
            _answer(failed)


def _answer(answers: list[tuple[asyncio.Future[Any], _Did]]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for waiter, did in answers:
        by_loop.setdefault(waiter.get_loop(), []).append(_Answer(waiter, did.value, did.error))
    for loop, mine in by_loop.items():
        with suppress(RuntimeError):  # a loop that was closed has nobody left who waits
            loop.call_soon_threadsafe(_give_all, mine)


def _do(tx: Transaction, waiting: _Waiting) -> _Did:
    if waiting.is_given_up:
        return _Did(waiting)
    tx.db.execute("SAVEPOINT job")
    try:
        did = _Did(waiting, value=waiting.job(tx))
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError) as fault:
        did = _Did(waiting, error=value_error(fault))
    except sqlite3.Error:
        raise  # the disk, not the job: the whole batch is undone
    except Exception as error:
        if waiting.name is not None and isinstance(error, StoreError):
            raise  # the store is not what it should be: until it is, the ending waits, and nothing begins
        did = _Did(waiting, error=error)  # handed on to whoever asked for the job
    if did.error is not None:
        tx.db.execute("ROLLBACK TO job")
        tx.log_end.known = None
    tx.db.execute("RELEASE job")
    return did


def _give_all(answers: list[_Answer]) -> None:
    for answer in answers:
        answer.give()
