"""One tool server process: leader of its own process group, and nothing of that group outlives this program."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import anyio

from mcp_authz.errors import DownstreamError
from mcp_authz.limits import STOP_GRACE

_POLL: Final = 0.02  # seconds between looks where the kernel cannot wake us
_CHUNK: Final = 64 * 1024
_ENDS: Final = 1024  # bytes kept of each end of a line that is too long

# Waits for the gateway's end of a pipe to close, however the gateway dies, then kills the group.
_GUARD: Final = """
import os, signal, sys
sys.stdin.buffer.read()
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
"""


class Child:
    """A running process, its pipes, and the guard that kills its group if this program dies.

    The command is executed as it stands, never by a shell. The environment is `env` and nothing else.
    """

    def __init__(self, command: tuple[str, ...], env: Mapping[str, str], cwd: Path | None) -> None:
        """Start it.

        Raises:
            DownstreamError: there is no such program, or it cannot be executed.
        """
        program = _program(command[0], cwd)
        try:
            self._process = subprocess.Popen(
                [program, *command[1:]],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise DownstreamError(f"`{program}` cannot be started: {error}") from None
        self._stdin, self._stdout, self._stderr = self._pipes = _opened(self._process)
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
        try:
            self._guard = _guard(self._process.pid)
            self._pidfd = os.pidfd_open(self._process.pid) if sys.platform == "linux" else None
        except OSError as error:
            self.signal(signal.SIGKILL)
            self._process.wait()
            raise DownstreamError(f"`{program}` cannot be guarded: {error}") from None

    @property
    def pid(self) -> int:
        """The process id, which is the group's id, too."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        return self._process.poll()

    def stdout(self, longest: int) -> Lines:
        """Return the lines that it writes to standard output."""
        return Lines(self._stdout.fileno(), longest)

    def stderr(self, longest: int) -> Lines:
        """Return the lines that it writes to standard error."""
        return Lines(self._stderr.fileno(), longest)

    async def write(self, data: bytes) -> None:
        """Write all of `data` to its standard input.

        Raises:
            OSError: it does not read any more.
        """
        left, fd = memoryview(data), self._stdin.fileno()
        while left:
            try:
                left = left[os.write(fd, left) :]
            except BlockingIOError:
                await anyio.wait_writable(fd)

    async def exited(self) -> None:
        """Return when it has ended, whoever still holds its pipes; for one waiter only."""
        if self._pidfd is not None and self._process.poll() is None:
            await anyio.wait_readable(self._pidfd)
        await _while(lambda: self._process.poll() is None)

    async def end(self) -> None:
        """Ask it to end by closing its standard input, then by SIGTERM; SIGKILL what is left of its group.

        Nothing of the group lives once this returns; a process that left the group on purpose is its own affair.
        """
        try:
            with anyio.CancelScope(shield=True):
                self._stdin.close()
                with anyio.move_on_after(STOP_GRACE.total_seconds()):
                    await _while(lambda: self._process.poll() is None)
                self.signal(signal.SIGTERM)
                with anyio.move_on_after(STOP_GRACE.total_seconds()):
                    await _while(self._group_lives)
        finally:
            self._kill()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of its group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _group_lives(self) -> bool:
        self._process.poll()
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # macOS says so of zombies; SIGKILL follows in any case
            pass
        return True

    def _kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._guard.kill()  # before its pipe closes: the group's id may soon be another's
        self._guard.wait()
        if self._pidfd is not None:
            os.close(self._pidfd)
        for pipe in (*self._pipes, self._guard.stdin):
            if pipe is not None:
                pipe.close()


def _guard(group: int) -> subprocess.Popen[bytes]:
    """Start the process that kills the group as soon as this one is gone, however it went."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD, str(group)],
        env={},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _opened(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: S101
    return process.stdin, process.stdout, process.stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line without its end; of a line that was too long, its first and last bytes."""

    raw: bytes
    too_long: bool


class Lines:
    """The lines of one pipe, in constant memory and in time that is linear in their length."""

    def __init__(self, fd: int, longest: int) -> None:
        self._fd = fd
        self._longest = longest
        self._buffer = bytearray()
        self._seen = 0  # how much of the buffer is known to hold no line end
        self._too_long = False
        self._closed = False

    def close(self) -> None:
        """End the iteration, also one that waits."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._fd)

    async def __aiter__(self) -> AsyncIterator[Line]:
        while (line := await self.receive()) is not None:
            yield line

    async def receive(self) -> Line | None:
        """Return the next line, or None at the end."""
        while True:
            if (end := self._buffer.find(b"\n", self._seen)) >= 0:
                return self._take(end)
            if len(self._buffer) > self._longest:
                del self._buffer[_ENDS:-_ENDS]
                self._too_long = True
            self._seen = len(self._buffer)
            if not (chunk := await self._read()):
                return self._take(len(self._buffer)) if self._buffer else None
            self._buffer += chunk

    def _take(self, end: int) -> Line:
        raw = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        too_long = self._too_long or end > self._longest
        line = Line(raw=raw[:_ENDS] + raw[-_ENDS:] if too_long else raw.rstrip(b"\r"), too_long=too_long)
        self._seen, self._too_long = 0, False
        return line

    async def _read(self) -> bytes:
        while not self._closed:
            try:
                return os.read(self._fd, _CHUNK)
            except BlockingIOError:
                with suppress(anyio.ClosedResourceError):
                    await anyio.wait_readable(self._fd)
        return b""


async def _while(holds: Callable[[], bool]) -> None:
    while holds():  # noqa: ASYNC110 - the kernel does not tell when the last process of a group has ended
        await anyio.sleep(_POLL)


def _program(named: str, cwd: Path | None) -> str:
    """Return the absolute path of the program, found with this program's own PATH.

    Raises:
        DownstreamError: there is none.
    """
    if os.sep in named:
        return str((cwd or Path.cwd()) / named)
    found = shutil.which(named)
    if found is None:
        raise DownstreamError(f"there is no program `{named}` on the gateway's PATH")
    return str(Path(found).absolute())
