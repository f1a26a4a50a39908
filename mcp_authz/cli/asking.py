"""Questions to the person at the terminal; each can be answered with nothing changed."""

from __future__ import annotations

import getpass
import sys
from typing import NoReturn

from mcp_authz.errors import AuthzError


class Stopped(AuthzError):
    """The person wants nothing to be changed."""

    code = "stopped"


def someone_is_here() -> bool:
    """Whether a person at a terminal can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask(question: str) -> str:
    """Return the line that was typed, without blanks around it.

    Raises:
        Stopped: Ctrl-C, Ctrl-D, or the terminal was closed.
    """
    try:
        return input(f"{question} ").strip()
    except (EOFError, KeyboardInterrupt):
        _stop()


def ask_hidden(question: str) -> str:
    """Return what was typed unseen.

    Raises:
        Stopped: Ctrl-C, Ctrl-D, or the terminal was closed.
    """
    try:
        return getpass.getpass(f"{question} ")
    except (EOFError, KeyboardInterrupt):
        _stop()


def agreed(question: str, *, usually: bool) -> bool:
    """Return whether the answer was yes; Enter is what is usual, and what is no answer is asked again.

    Raises:
        Stopped: Ctrl-C, Ctrl-D, or the terminal was closed.
    """
    while True:
        answer = ask(f"{question} {'[Y/n]' if usually else '[y/N]'}").lower()
        if not answer:
            return usually
        if answer in {"y", "yes"}:
            return True
        if answer in {"n", "no"}:
            return False


def _stop() -> NoReturn:
    sys.stdout.write("\n")
    raise Stopped("stopped; nothing was changed") from None
