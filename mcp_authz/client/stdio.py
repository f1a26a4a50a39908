"""Standard input and output as a client of stdio uses them: one JSON-RPC message on each line, and nothing else."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import AsyncIterator
from typing import Final

import anyio
import anyio.to_thread

LINE: Final = 16 * 1024 * 1024  # bytes of one message; the gateway takes less and says so
WAITING: Final = 256  # lines read ahead of whoever handles them
_PIPE: Final = 4096  # bytes that a pipe which can be written takes at once (POSIX PIPE_BUF is at least 512)
_CHUNK: Final = 256 * 1024

TOO_LONG: Final = b""
"""Stands for a line that was too long and was not kept."""


class Lines:
    """What comes in on a file descriptor, line by line; a thread reads, so that any kind of file will do."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._send, self._receive = anyio.create_memory_object_stream[bytes](WAITING)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield each line without its end, until there are no more."""
        self._loop = asyncio.get_running_loop()
        # A daemon: nothing wakes a read of a terminal, and it must not keep the process alive.
        threading.Thread(target=self._read, daemon=True, name="stdin").start()
        async with self._send, self._receive:
            async for line in self._receive:
                yield line

    def _read(self) -> None:
        kept, size, skipping = list[bytes](), 0, False
        while True:
            try:
                chunk = os.read(self._descriptor, _CHUNK)
            except OSError:
                chunk = b""
            *whole, rest = chunk.split(b"\n")
            for part in whole:
                line = TOO_LONG if skipping else b"".join([*kept, part]).strip()
                if (skipping or line) and not self._hand_over(line):
                    return
                kept, size, skipping = [], 0, False
            kept, size = [*kept, rest], size + len(rest)
            if size > LINE:
                kept, skipping = [], True
            if not chunk:
                self._end(b"".join(kept).strip())
                return

    def _hand_over(self, line: bytes) -> bool:
        assert self._loop is not None  # noqa: S101 - set before the thread starts
        try:
            asyncio.run_coroutine_threadsafe(self._send.send(line), self._loop).result()
        except (RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody reads any more
            return False
        return True

    def _end(self, line: bytes) -> None:
        if line and not self._hand_over(line):
            return
        assert self._loop is not None  # noqa: S101
        try:
            self._loop.call_soon_threadsafe(self._send.close)
        except RuntimeError:
            return


class Output:
    """What goes out on a file descriptor: whole lines, in the order in which they are written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = anyio.Lock()

    async def write(self, message: bytes) -> None:
        """The message stands on a line of its own; who reads slowly is waited for.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        # Outside of strings a line break in JSON is a blank, and inside of them there is none.
        line = message.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
        with anyio.CancelScope(shield=True):
            async with self._lock:
                if len(line) <= _PIPE and select.select([], [self._descriptor], [], 0)[1]:
                    _write(self._descriptor, line)
                else:
                    await anyio.to_thread.run_sync(_write, self._descriptor, line)


def _write(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
