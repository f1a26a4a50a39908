"""What the gateway asks of a store about standing approvals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mcp_authz.model import HeldCall, HoldId, HoldState, StandingId, Verdict
from mcp_authz.rules.standing_approval import StandingApproval
from mcp_authz.store.facts import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingUse:
    """A call that standing approvals meet every rule of: each verdict is one of them, and takes one call of it."""

    held: HeldCall  # as it is held from now on, or as it waits already; without the verdicts to come
    decision: Event  # that it was to be held
    verdicts: tuple[tuple[Verdict, Event], ...]  # with the last of them it is approved


class StandingApprovals(Protocol):
    """Standing approvals. Every change appends its event in the same transaction."""

    async def standing_approval(self, standing: StandingId) -> StandingApproval | None:
        """The standing approval, in whatever state."""

    async def standing_approvals(self, *, hold: HoldId | None = None) -> tuple[StandingApproval, ...]:
        """Every standing approval, or those that were made from one held call; oldest first, in whatever state."""

    async def live_standing(self, held: HeldCall) -> tuple[StandingApproval, ...]:
        """Those that a call of this session and actor could use now; newest first.

        Nobody has ended them, they are not used up or expired, and the person, the key and the passkey that gave them
        still count.
        """

    async def give_standing(
        self, standing: StandingApproval, verdict: Verdict, *, after: int, to: HoldState, event: Event
    ) -> HeldCall:
        """The standing approval counts from now on, and as `verdict` of the hold that it was made from.

        Raises:
            Conflict: as `give_verdict`; and when the person, or what they gave it with, counts no more.
        """

    async def use_standing(self, use: StandingUse) -> HeldCall:
        """The hold is approved by exactly these, each with one call less; or it is the one that answers already.

        Raises:
            Conflict: one of them has ended or is used up, or somebody answered the hold meanwhile; nothing was changed.
        """

    async def rests_on_ended(self, hold: HoldId, *, at: datetime | None = None) -> bool:
        """Whether an approval of the hold is a standing one that counts no more, or was given with what was revoked.

        With `at` only what was revoked counts as ended, and the standing approvals whose time was up by then.
        """
