"""The part of the SQLite store that is about tasks."""

from __future__ import annotations

from collections.abc import Callable

from mcp_authz.rules.task import Task, TaskId, TaskOwner
from mcp_authz.store import tasks
from mcp_authz.store.connections import Reader
from mcp_authz.store.writer import Writer


class TasksInSqlite:
    """The promises of `store.task_port`; reads and writes go where the store's others go."""

    _reader: Reader
    _writer: Writer

    async def add_task(self, task: Task, *, per_agent: int) -> Task:
        return await self._writer.run(lambda tx: tasks.add_task(tx, task, per_agent))

    async def task(self, task: TaskId, owner: TaskOwner) -> Task | None:
        return self._reader.ask(lambda tx: tasks.task(tx, task, owner))

    async def change_task(self, task: TaskId, change: Callable[[Task], Task]) -> Task:
        return await self._writer.run(lambda tx: tasks.change_task(tx, task, change))
