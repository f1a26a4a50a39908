"""What is found about one part, and the case that every check looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mcp_authz.config import Config
from mcp_authz.doctor.access import OsUser
from mcp_authz.store.glance import Inside

State = Literal["fine", "note", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence about one part; `do` is the command, or the words, that mend it."""

    part: str
    state: State
    text: str
    do: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is examined; `inside` is None where the store cannot be read."""

    config: Config
    inside: Inside | None
    at: datetime
    command: Callable[..., str]  # words of this command line, as they can be pasted into this shell
    agent_user: OsUser | None = None


def fine(part: str, text: str) -> Finding:
    """This part is as it should be."""
    return Finding(part=part, state="fine", text=text)


def note(part: str, text: str, do: str = "") -> Finding:
    """Nothing is broken, but somebody should know."""
    return Finding(part=part, state="note", text=text, do=do)


def broken(part: str, text: str, do: str = "") -> Finding:
    """This part does not work, or does not protect what it should."""
    return Finding(part=part, state="broken", text=text, do=do)


def named(names: list[str], most: int = 5) -> str:
    """A few names in a sentence, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
