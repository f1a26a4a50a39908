"""The terminal device: the one place where a passphrase is typed, because a person sits there and no program does."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from mcp_authz import limits
from mcp_authz.errors import AuthzError, InputError

_DEVICE = "/dev/tty"
_LONGEST = 1024  # bytes of a passphrase


class NoTerminal(AuthzError):
    """There is no terminal at which a person could type a passphrase."""

    code = "no_terminal"


def show(text: str) -> None:
    """The text stands on the terminal that controls this process.

    Raises:
        NoTerminal: no terminal controls this process.
    """
    with _terminal() as terminal:
        _write(terminal, f"{text}\n")


def ask_passphrase(prompt: str) -> str:
    """Return what a person typed, unseen, at the terminal that controls this process; never stdin.

    Raises:
        NoTerminal: no terminal controls this process, or it was closed.
    """
    with _terminal() as terminal, _interruptible():
        _write(terminal, prompt)
        try:
            return _line(terminal)
        finally:
            _write(terminal, "\n")


def ask_new_passphrase(prompt: str) -> str:
    """Return a passphrase that was typed the same way twice.

    Raises:
        NoTerminal: no terminal controls this process, or it was closed.
        InputError: it is too short, or the two differ.
    """
    first = ask_passphrase(prompt)
    if len(first) < limits.PASSPHRASE:
        raise InputError(f"a passphrase has at least {limits.PASSPHRASE} characters; nothing was written, try again")
    if ask_passphrase("the same again: ") != first:
        raise InputError("the two passphrases differ; nothing was written, try again")
    return first


@contextmanager
def _terminal() -> Iterator[int]:
    try:
        terminal = os.open(_DEVICE, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise NoTerminal(
            "a passphrase is typed at a terminal only, and there is none here; run this yourself in a terminal"
        ) from None
    try:
        before = termios.tcgetattr(terminal)
        quiet = [*before]
        quiet[3] &= ~(termios.ECHO | termios.ECHONL)
        quiet[3] |= termios.ICANON | termios.ISIG
        try:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, quiet)  # what was typed before the question is no answer
            yield terminal
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
    except termios.error:
        raise NoTerminal("the terminal cannot be told to hide what is typed; use another terminal") from None
    finally:
        os.close(terminal)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the wait at once; an event loop would note it and go on waiting for the line."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _write(terminal: int, text: str) -> None:
    with os.fdopen(terminal, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as file:
        file.write(text)


def _line(terminal: int) -> str:
    typed = b""
    while not typed.endswith(b"\n"):
        try:
            some = os.read(terminal, _LONGEST)
        except OSError:
            some = b""
        if not some or len(typed) > _LONGEST:
            raise NoTerminal("the terminal was closed before a passphrase was typed")
        typed += some
    try:
        return typed.rstrip(b"\r\n").decode()
    except UnicodeDecodeError:
        raise NoTerminal("what was typed is not UTF-8; set the terminal to UTF-8") from None
