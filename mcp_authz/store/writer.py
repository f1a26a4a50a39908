"""The one thread of a process that writes: many waiting jobs, one flush, and an answer only after it.

A batch is one transaction with a savepoint for each job, so that a lost race undoes that job only. When the batch
cannot be begun or committed, every job of it fails, nothing of it is written, and the next batch tries anew.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.store.faults import value_error
from mcp_authz.store.transaction import Transaction

T = TypeVar("T")
Job = Callable[[Transaction], T]

_QUEUE: Final = limits.STORE_QUEUE
_BATCH: Final = limits.STORE_BATCH


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


@dataclass(frozen=True, slots=True)
class _Waiting:
    job: Job[Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Answer:
    to: _Waiting
    value: Any = None
    error: Exception | None = None

    def give(self) -> None:
        """The waiter has its answer, unless it has gone away meanwhile."""
        if self.to.answer.done():
            return
        if self.error is None:
            self.to.answer.set_result(self.value)
        else:
            self.to.answer.set_exception(self.error)


class Writer:
    """Runs jobs in the order they came, as many at once as wait."""

    def __init__(self, pen: Pen, *, first: Job[None], then: Callable[[], None]) -> None:
        """`first` runs once in each batch, before its jobs; `then` once it is on the disk, in the writer's thread."""
        self._pen = pen
        self._first = first
        self._then = then
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mcp-authz-store", daemon=True)
        self._thread.start()

    async def run(self, job: Job[T]) -> T:
        """What the job returned, once it is on the disk.

        A caller that stops waiting learns nothing: the job happens as a whole, or not at all.

        Raises:
            StoreError: too many jobs wait, the store is closed, or the batch could not be written.
            AuthzError: what the job raised; it wrote nothing.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        with self._wake:
            if self._closed or not self._thread.is_alive():
                raise StoreError("the store is closed")
            if len(self._waiting) >= _QUEUE:
                raise StoreError(f"{_QUEUE} writes wait for the disk already; try again in a moment")
            self._waiting.append(_Waiting(job, loop, answer))
            self._wake.notify()
        return await answer

    @property
    def queued(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    async def aclose(self) -> None:
        """What waited is written, and the thread has ended."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while batch := self._next_batch():
            answers = self._write(batch)
            for loop in {waiting.loop for waiting in batch}:
                mine = [answer for answer in answers if answer.to.loop is loop]
                with suppress(RuntimeError):  # a loop that was closed has nobody left who waits
                    loop.call_soon_threadsafe(_give_all, mine)
            self._then()
        self._pen.drop()

    def _next_batch(self) -> list[_Waiting]:
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._closed)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]

    def _write(self, batch: list[_Waiting]) -> list[_Answer]:
        try:
            tx = self._pen.begin()
            self._first(tx)
            answers = [_do(tx, waiting) for waiting in batch]
            self._pen.commit()
        except Exception as fault:  # noqa: BLE001 - the thread outlives every fault, and each waiter is told
            self._pen.drop()
            return [_Answer(waiting, error=self._pen.explain(fault)) for waiting in batch]
        return answers


def _do(tx: Transaction, waiting: _Waiting) -> _Answer:
    if waiting.answer.cancelled():
        return _Answer(waiting)
    tx.db.execute("SAVEPOINT job")
    try:
        answer = _Answer(waiting, value=waiting.job(tx))
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError) as fault:
        answer = _Answer(waiting, error=value_error(fault))
    except sqlite3.Error:
        raise  # the disk, not the job: the whole batch is undone
    except Exception as error:  # noqa: BLE001 - handed on to whoever asked for the job
        answer = _Answer(waiting, error=error)
    if answer.error is not None:
        tx.db.execute("ROLLBACK TO job")
    tx.db.execute("RELEASE job")
    return answer


def _give_all(answers: list[_Answer]) -> None:
    for answer in answers:
        answer.give()
