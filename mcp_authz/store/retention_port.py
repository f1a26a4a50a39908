"""What the gateway asks of a store about where its log begins, since what was before is not kept for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mcp_authz.store.facts import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBase:
    """The record that the kept log follows; nobody believes it without a checkpoint that names that record."""

    sequence: int  # 0: everything is kept
    hash: bytes  # of that record; 32 zero bytes where there is none
    chain: bytes  # the hash of the first record that ever was, by which checkpoints know the log; 32 zero bytes before
    told: int  # the number of the record that says what was pruned; 0 where nothing was


class Retention(Protocol):
    """The beginning of the log, which may be pruned; its records are never deleted in any other way."""

    async def log_base(self) -> LogBase:
        """Where the log begins."""

    async def needed_from(self) -> int | None:
        """The number of the first record that something else refers to: a kept input, a hold that is open."""

    async def prune(self, base: LogBase, event: Event) -> int:
        """The log begins behind `base`, and `event`, which says so, is its newest record; the number of that record.

        The rows before are no part of the log from now on; `remove_pruned` takes them away.

        Raises:
            StoreError: the log has no such record, or something needs one of those before.
        """

    async def remove_pruned(self, most: int) -> int:
        """How many of the oldest rows that are no part of the log were removed, `most` at most."""
