"""What the gateway asks of a store about tasks: held calls whose callers look after them by polling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mcp_authz.rules.task import Task, TaskId, TaskOwner


class Tasks(Protocol):
    """Tasks. What a call was, what was asked and answered, and what it came to is sealed at rest."""

    async def add_task(self, task: Task, *, per_agent: int) -> Task:
        """The task is there; one that the same owner has of the same hold already is returned instead.

        Raises:
            Conflict: the agent has as many tasks as it may have.
        """

    async def task(self, task: TaskId, owner: TaskOwner) -> Task | None:
        """The task, if it is this owner's and not over its time; one answer for all other cases."""

    async def change_task(self, task: TaskId, change: Callable[[Task], Task]) -> Task:
        """The task is what `change` makes of it: hold, progress, outcome and end may be others, `updated_at` is now.

        `change` is called in the transaction, with the task as it is there. Whoever waits for the hold is woken.

        Raises:
            NotFound: there is no such task any more.
        """
