"""The configuration's part about approval: its rules, and how long a call waits for a verdict."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mcp_authz import limits

_LONGEST: Final = int(limits.WAIT_LONGEST.total_seconds())


class ApprovalConfig(BaseModel):
    """Who must agree, and how surely they must be known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    by: tuple[str, ...] = Field(default=("subject",), strict=False)
    quorum: Annotated[int, Field(ge=1, le=10)] = 1
    outside_chain: bool = False
    assurance: Literal["client", "client-other", "signed-in", "passkey"] = "client"
    expires_minutes: Annotated[int, Field(ge=1, le=720)] = 15
    reason: bool = False

    @field_validator("by")
    @classmethod
    def _known_approvers(cls, by: tuple[str, ...]) -> tuple[str, ...]:
        if not by:
            raise ValueError("`by` is empty; name at least one of subject, owner, group:NAME, user:NAME")
        for who in by:
            kind, _, name = who.partition(":")
            if who not in {"subject", "owner"} and not (kind in {"group", "user"} and name):
                raise ValueError(f"`{who}` is no approver; use subject, owner, group:NAME or user:NAME")
        return by

    @property
    def expires(self) -> timedelta:
        """How long a call waits under this rule."""
        return timedelta(minutes=self.expires_minutes)


class WaitingConfig(BaseModel):
    """How long a held call waits for its verdict, before its caller is told to make it again later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seconds: Annotated[int, Field(ge=0, le=_LONGEST)] = _LONGEST

    @property
    def patience(self) -> timedelta:
        """In all, over the rounds of one call; nothing waits where it is zero."""
        return timedelta(seconds=self.seconds)
