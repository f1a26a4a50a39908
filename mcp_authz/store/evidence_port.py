"""What the gateway asks of a store about evidence: what was signed, kept by digest, and when it is shredded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mcp_authz.model import HoldId, StandingId
from mcp_authz.store.facts import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCalls:
    """The calls whose argument values are to be gone: by their holds, decision records and signed proofs."""

    holds: frozenset[HoldId]
    sequences: frozenset[int]  # of their decision records
    proofs: frozenset[str]  # as records name them


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """Everything that has argument values and was over at this time."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Shredded:
    """What is gone, or would be."""

    holds: tuple[HoldId, ...] = ()
    proofs: int = 0
    inputs: int = 0
    standing: int = 0  # standing approvals that are over
    open: tuple[HoldId, ...] = ()  # not over, so they were left alone
    in_use: tuple[StandingId, ...] = ()  # standing approvals that were given with one of the holds, and still count

    @property
    def is_nothing(self) -> bool:
        """Whether there was nothing (more) to shred."""
        return not (self.holds or self.proofs or self.inputs or self.standing)


class EvidenceStore(Protocol):
    """Evidence: sealed where it stands, and gone once it is shredded; the log's records of it stay."""

    async def signed(self, names: Sequence[str]) -> tuple[str | None, ...]:
        """What was signed, by the names that records have for it; None for each that is not kept (any more)."""

    async def would_shred(self, what: OfCalls | Before) -> Shredded:
        """What `shred` would; nothing is changed."""

    async def shred(self, what: OfCalls | Before, event: Event | None) -> Shredded:
        """Arguments, results, tasks, inputs, signed proofs and verdicts of these calls are gone from the file.

        At most a few hundred at once: whoever wants all asks again until it `is_nothing`. The event is appended in the
        same transaction, where something is shredded. Calls that are not over keep theirs.
        """

    async def shred_due(self) -> bool:
        """Whether something was shredded whose time is up; there may be more."""
