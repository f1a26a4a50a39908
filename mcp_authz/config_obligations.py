"""The configuration's part about obligations: what `budget`, `notify` and `redact` of a policy name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mcp_authz.errors import ConfigError, InputError
from mcp_authz.rules.budget import Budget, read_amount, read_source
from mcp_authz.rules.obligation import Means, is_name
from mcp_authz.rules.redaction import read_redaction

_MOST: Final = 32  # patterns of one redaction; each is looked for in everything that is said


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BudgetConfig(_Strict):
    """What a call takes from one budget, and how much there is; amounts are exact."""

    amount: str = "1"
    per_call: int | str | None = None
    per_session: int | str | None = None
    per_day: int | str | None = None

    @field_validator("amount")
    @classmethod
    def _a_source(cls, amount: str) -> str:
        try:
            read_source(amount)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return amount

    @field_validator("per_call", "per_session", "per_day", mode="before")
    @classmethod
    def _an_amount(cls, most: Any) -> Any:
        if isinstance(most, float):
            raise ValueError(f'write it as text: "{most:.2f}"; a float is not exact')
        try:
            read_amount(most)
        except InputError as error:
            raise ValueError(str(error)) from None
        return most

    @model_validator(mode="after")
    def _limited(self) -> BudgetConfig:
        if self.per_call is None and self.per_session is None and self.per_day is None:
            raise ValueError("a budget without an end; set `per_call`, `per_session` or `per_day`")
        return self

    @property
    def budget(self) -> Budget:
        """The budget as it is counted."""
        limits = {"per_call": self.per_call, "per_session": self.per_session, "per_day": self.per_day}
        read = {name: None if most is None else read_amount(most) for name, most in limits.items()}
        return Budget(source=read_source(self.amount), **read)


class NoticeConfig(_Strict):
    """How somebody hears of a call."""

    to: Literal["desktop", "log"]


class RedactConfig(_Strict):
    """What is taken out of what a tool server says."""

    patterns: Annotated[tuple[str, ...], Field(strict=False, max_length=_MOST)] = ()
    fields: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(strict=False, max_length=_MOST)
    ] = ()

    @model_validator(mode="after")
    def _works(self) -> RedactConfig:
        if not self.patterns and not self.fields:
            raise ValueError("nothing is redacted; set `patterns` or `fields`")
        try:
            read_redaction(self.patterns, self.fields)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


def require_names(table: Mapping[str, Any]) -> None:
    """Every name is one that a policy can write.

    Raises:
        ValueError: one is not.
    """
    if wrong := [name for name in table if not is_name(name)]:
        raise ValueError(f"`{wrong[0][:32]}` is no name; use 1 to 128 of letters, digits, `.`, `_` and `-`")


def means_of(
    budgets: Mapping[str, BudgetConfig], notices: Mapping[str, NoticeConfig], redact: Mapping[str, RedactConfig]
) -> Means:
    """What obligations are carried out with."""
    return Means(
        budgets={name: one.budget for name, one in budgets.items()},
        notices={name: one.to for name, one in notices.items()},
        redactions={name: read_redaction(one.patterns, one.fields) for name, one in redact.items()},
    )


def require_desktop(notices: Iterable[NoticeConfig], notify: str) -> None:
    """Notices that go to the desktop are shown.

    Raises:
        ValueError: the gateway is told to show none.
    """
    if notify != "desktop" and any(one.to == "desktop" for one in notices):
        raise ValueError('a notice goes to the desktop, and `notify = "none"` shows none; set it to "desktop"')
