"""Tasks in a transaction: whose they are decides the query itself, what is said in them is sealed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from mcp_authz.errors import Conflict, NotFound
from mcp_authz.model import HoldId
from mcp_authz.principals import AgentName, SessionId
from mcp_authz.rules import strict_json
from mcp_authz.rules.task import Progress, Question, Task, TaskId, TaskOwner
from mcp_authz.store.rows import Row, columns, insert, micros, when
from mcp_authz.store.transaction import Transaction

_COLUMNS: Final = (
    "id", "hold_id", "agent", "session_id", "client_id", "request", "progress", "outcome", "made_at", "updated_at",
    "expires_at",
)  # fmt: skip
_SELECT: Final = f"SELECT {columns(_COLUMNS)} FROM tasks"  # noqa: S608 - constants
_OWNED: Final = "agent = ? AND session_id IN (?, '') AND client_id = ? AND expires_at > ?"


def add_task(tx: Transaction, task: Task, per_agent: int) -> Task:
    """The task, or the one that the same owner has of the same hold already."""
    owner = task.owner
    same = tx.db.execute(
        f"{_SELECT} WHERE hold_id = ? AND {_OWNED}", (task.hold, owner.agent, owner.session, owner.client, tx.now)
    ).fetchone()
    if same is not None:
        return _task(tx, same)
    (many,) = tx.db.execute(
        "SELECT count(*) FROM tasks WHERE agent = ? AND expires_at > ?", (owner.agent, tx.now)
    ).fetchone()
    if many >= per_agent:
        raise Conflict(f"the agent has {per_agent} tasks already")
    values = (
        task.id, task.hold, owner.agent, owner.session, owner.client,
        _seal(tx, task.id, "request", task.call), _seal(tx, task.id, "progress", _written(task.progress)), None,
        tx.now, tx.now, micros(task.expires_at),
    )  # fmt: skip
    tx.db.execute(insert("tasks", _COLUMNS), values)
    return _known(tx, task.id)


def task(tx: Transaction, task_id: TaskId, owner: TaskOwner) -> Task | None:
    """The task, if it is this owner's and not over its time."""
    row = tx.db.execute(
        f"{_SELECT} WHERE id = ? AND {_OWNED}", (task_id, owner.agent, owner.session, owner.client, tx.now)
    ).fetchone()
    return None if row is None else _task(tx, row)


def change_task(tx: Transaction, task_id: TaskId, change: Callable[[Task], Task]) -> Task:
    """The task as `change` made it."""
    before = _known(tx, task_id)
    after = change(before)
    outcome = None if after.outcome is None else _seal(tx, task_id, "outcome", after.outcome)
    tx.db.execute(
        "UPDATE tasks SET hold_id = ?, progress = ?, outcome = ?, updated_at = ?, expires_at = ? WHERE id = ?",
        (
            after.hold, _seal(tx, task_id, "progress", _written(after.progress)), outcome, tx.now,
            micros(after.expires_at), task_id,
        ),
    )  # fmt: skip
    return _known(tx, task_id)


DUE: Final = "EXISTS (SELECT 1 FROM tasks WHERE expires_at <= :now)"


def forget(tx: Transaction) -> None:
    """Some of the tasks whose time is up are forgotten."""
    tx.db.execute("DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE expires_at <= ? LIMIT 100)", (tx.now,))


def _known(tx: Transaction, task_id: TaskId) -> Task:
    row = tx.db.execute(f"{_SELECT} WHERE id = ?", (task_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such task any more")
    return _task(tx, row)


def _task(tx: Transaction, row: Row) -> Task:
    id_, hold, agent, session, client, request, progress, outcome, made_at, updated_at, expires_at = row
    return Task(
        id=TaskId(id_),
        hold=HoldId(hold),
        owner=TaskOwner(agent=AgentName(agent), session=SessionId(session), client=client),
        call=_unseal(tx, id_, "request", request),
        progress=_read(_unseal(tx, id_, "progress", progress)),
        outcome=None if outcome is None else _unseal(tx, id_, "outcome", outcome),
        made_at=when(made_at),
        updated_at=when(updated_at),
        expires_at=when(expires_at),
    )


def _written(progress: Progress) -> Mapping[str, Any]:
    return {
        "keys": progress.keys,
        "questions": [
            {"key": q.key, "asker": q.asker, "name": q.name, "request": q.request, "answer": q.answer}
            for q in progress.questions
        ],
        "state": progress.state,
        "until": None if progress.until is None else progress.until.isoformat(),
    }


def _read(written: Mapping[str, Any]) -> Progress:
    until = written["until"]
    return Progress(
        keys=written["keys"],
        questions=tuple(Question(**question) for question in written["questions"]),
        state=written["state"],
        until=None if until is None else datetime.fromisoformat(until),
    )


def _seal(tx: Transaction, task_id: str, column: str, value: Mapping[str, Any]) -> bytes:
    return tx.sealer.seal(strict_json.dump(dict(value)), _context(task_id, column))


def _unseal(tx: Transaction, task_id: str, column: str, sealed: bytes) -> Any:
    return json.loads(tx.unseal(sealed, _context(task_id, column)))


def _context(task_id: str, column: str) -> bytes:
    return f"tasks:{task_id}:{column}".encode()
