"""A tool server that is a child process and speaks JSON lines on its standard input and output."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from mcp_authz.limits import ANSWER_BYTES, CALL_TIMEOUT, LOG_LINE, START_TIMEOUT, STOP_GRACE
from tool_adapters.child import Child, Line, Lines
from tool_adapters.connection import ConnectedDownstream
from tool_adapters.sdk import Streams, broken_answer

logger = logging.getLogger(__name__)

_ID_FIRST: Final = re.compile(rb'\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,18})\s*,\s*"(?:result|error)"')
_ID_LAST: Final = re.compile(rb'\}\s*,\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,18})\s*\}\s*$')


class StdioDownstream(ConnectedDownstream):
    """A supervised child process in a process group of its own.

    The command is found with the gateway's PATH and executed as it stands, never by a shell. The child's environment
    is `env` and nothing else: a program that looks for an interpreter or a home needs `PATH` or `HOME` there.
    """

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        *,
        start_timeout: timedelta = START_TIMEOUT,
        call_timeout: timedelta = CALL_TIMEOUT,
    ) -> None:
        super().__init__(name, start_timeout=start_timeout, call_timeout=call_timeout)
        self._command = command
        self._env = dict(env or {})
        self._cwd = cwd
        self._death: int | None = None  # the exit code of the last child, if it ended by itself

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Streams]:
        self._death = None
        child = Child(self._command, self._env, self._cwd)
        write, unwritten = anyio.create_memory_object_stream[SessionMessage](0)
        read = _Messages(child.stdout(ANSWER_BYTES))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_log, self._name, child.stderr(LOG_LINE))
                tasks.start_soon(_write, child, unwritten, read)
                tasks.start_soon(_bury, child, read)
                try:
                    yield read, write
                finally:
                    died = read.ended or child.exit_code is not None
                    await child.end()
                    self._death = child.exit_code if died else None
                    tasks.cancel_scope.cancel()
        finally:
            write.close()
            unwritten.close()

    def _post_mortem(self) -> str:
        given = ", ".join(sorted(self._env)) or "nothing"
        match self._death:
            case None:
                return ""
            case 127:  # what env(1) and shells exit with when the program they were to run does not exist
                return (
                    f"it exited with code 127: a program it needs was not found; its environment has {given}, set PATH"
                )
            case code if code < 0:
                return f"it was ended by {signal.Signals(-code).name}"
            case code:
                return f"it exited with code {code}; its environment has {given}, its log lines say more"


class _Messages:
    """The messages on a child's standard output, as the read stream of a session."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.ended = False  # whether the child has closed its end

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message.

        Raises:
            anyio.EndOfStream: there is none any more.
        """
        while (line := await self._lines.receive()) is not None:
            await anyio.lowlevel.checkpoint()
            if (message := _message(line)) is not None:
                return message
        self.ended = True
        raise anyio.EndOfStream

    def close(self) -> None:
        """End the stream, also for one who waits."""
        self._lines.close()

    async def aclose(self) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _message(line: Line) -> SessionMessage | None:
    """Return the message in a line, or None for what some servers print among their messages.

    What is recognisably an answer, but too long or no JSON-RPC, ends the request that it answers.
    """
    if line.too_long:
        return _answer_instead(line, f"its answer is larger than {ANSWER_BYTES} bytes")
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line.raw, by_name=False))
    except ValidationError:
        return _answer_instead(line, "its answer is no JSON-RPC message")


def _answer_instead(line: Line, sentence: str) -> SessionMessage | None:
    found = _ID_FIRST.match(line.raw) or _ID_LAST.search(line.raw)
    if found is None:
        logger.warning("dropped a line of standard output that is no message")
        return None
    error = broken_answer(sentence, sent=True)
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=error))


async def _write(child: Child, unwritten: MemoryObjectReceiveStream[SessionMessage], read: _Messages) -> None:
    """Write each message whole, whoever is cancelled meanwhile; a child that does not read ends the session."""
    async for item in unwritten:
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        try:
            await child.write(line.encode() + b"\n")
        except OSError:
            read.close()
            return


async def _bury(child: Child, read: _Messages) -> None:
    """End the group of a child that died, and the session once its last words are read."""
    await child.exited()
    child.signal(signal.SIGKILL)
    await anyio.sleep(STOP_GRACE.total_seconds())  # a process that left the group may hold the pipe open for ever
    read.close()


async def _log(name: str, lines: Lines) -> None:
    """Write what a server says on standard error to the log, under its name and as single printable lines."""
    async for line in lines:
        text = line.raw.decode("utf-8", "replace") + (" [shortened]" if line.too_long else "")
        logger.info(
            "%s: %s", name, "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
        )
