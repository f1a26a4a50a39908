"""Servers are started once and asked for their tools, all at the same time, each within a bound."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import anyio

from mcp_authz import limits
from mcp_authz.downstream import Downstream
from mcp_authz.errors import DownstreamError, InputError
from mcp_authz.rules.definition import definition_digest
from mcp_authz.wrap.entry import Entry
from tool_adapters.connection import ConnectedDownstream
from tool_adapters.http import HttpDownstream
from tool_adapters.stdio import StdioDownstream

LONGEST: Final = timedelta(seconds=75)  # for one server: package runners download first, then it lists its tools
_LISTING: Final = timedelta(seconds=20)
_SHORTEST_SECRET: Final = 6  # characters; replacing less would make a text unreadable
_LAST_WORDS: Final = 200  # characters of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A server that started, and the definitions of its tools that can be read."""

    definitions: tuple[Mapping[str, Any], ...]
    unreadable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Silent:
    """A server that did not start or does not list its tools, and why: one line without secrets."""

    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A server to be started, and what must not be shown of what it says."""

    downstream: Downstream
    hidden: tuple[str, ...] = ()


def candidate(key: str, entry: Entry) -> Candidate:
    """Return the server of an entry, called `key` while it runs, with what its client gives it."""
    hidden = tuple({**entry.env, **entry.headers}[name] for name in entry.secrets)
    if entry.url is not None:
        return Candidate(downstream=HttpDownstream(key, entry.url, entry.headers), hidden=hidden)
    return Candidate(downstream=StdioDownstream(key, entry.command, entry.env, entry.cwd), hidden=hidden)


async def list_once(
    candidates: Mapping[str, Candidate], done: Callable[[str, Listed | Silent], None]
) -> dict[str, Listed | Silent]:
    """Return what each server lists, or why it does not; `done` hears of each as soon as it is known."""
    answers: dict[str, Listed | Silent] = {}

    async def one(key: str, server: Candidate, last_words: Mapping[str, str]) -> None:
        answers[key] = await _ask(server, last_words)
        done(key, answers[key])

    with _last_words() as last_words:
        async with anyio.create_task_group() as tasks:
            for key, server in candidates.items():
                tasks.start_soon(one, key, server, last_words)
    return {key: answers[key] for key in candidates}


async def _ask(server: Candidate, last_words: Mapping[str, str]) -> Listed | Silent:
    downstream = server.downstream
    with anyio.move_on_after(LONGEST.total_seconds()):
        async with downstream.run():
            try:
                with anyio.fail_after(_LISTING.total_seconds()):
                    return _readable(await downstream.list_tools())
            except TimeoutError:
                reason = "it started, but did not list its tools in time"
            except DownstreamError as error:
                reason = (isinstance(downstream, ConnectedDownstream) and downstream.trouble) or str(error)
            said = _hide(last_words.get(downstream.name, ""), server.hidden)[:_LAST_WORDS]
            because = _hide(reason, server.hidden)
            return Silent(because=f"{because.partition(';')[0]}; it said: {said}" if said else because)
    return Silent(because=f"it did not start within {LONGEST.total_seconds():g} s")


def _readable(definitions: tuple[Mapping[str, Any], ...]) -> Listed:
    """Those that the gateway's catalogue will take, too."""
    names = Counter(str(definition.get("name")) for definition in definitions)
    readable = []
    for definition in definitions:
        with suppress(InputError):
            definition_digest(definition)
            name = definition["name"]
            if 0 < len(name) <= limits.LISTED_NAME and name.isprintable() and names[name] == 1:
                readable.append(definition)
    return Listed(definitions=tuple(readable), unreadable=len(definitions) - len(readable))


def _hide(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "<redacted>")
    return text


class _LastWords(logging.Handler):
    """Keeps the last line that each server wrote on its standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "tool_adapters.stdio" and isinstance(record.args, tuple) and len(record.args) == 2:
            name, line = (str(part) for part in record.args)
            if line.strip():
                self.lines[name] = line.strip()


@contextmanager
def _last_words() -> Iterator[Mapping[str, str]]:
    """What servers say goes here and nowhere else: the log of this command is what it prints."""
    logger, handler = logging.getLogger("tool_adapters"), _LastWords()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = before[1]
        logger.setLevel(before[0])
