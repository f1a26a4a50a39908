"""Which records of the log are asked for: one value for the command line, the page and whoever else reads.

`has` decides. `marks` and `words` are what a record must contain to be one of them, so that a store can leave out most
of the others without reading them; whatever they let through is decided by `has`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from mcp_authz.errors import InputError
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.sentence import SAID, Written, sentence

LONGEST: Final = 256  # characters of what is looked for; SQLite takes 50,000
_RUN: Final = re.compile(r"[0-9a-z]+")
_UNSAID: Final = frozenset(
    {
        *("resource", "arguments", "argument_values", "purpose", "claimed_intent", "claimed_client", "tool"),
        *("reason", "detail", "summary", "label", "scope", "ceiling", "missing", "sent_back_for", "because"),
        "policy_revision",
    }
)
"""Members whose words somebody chooses, a caller for one, who is not whoever they name there."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What the records that are asked for have in common; None asks for nothing in particular."""

    agent: str | None = None  # it had a part in it: as actor, in the chain, as the one it was done to
    person: str | None = None  # so had they
    session: str | None = None  # the beginning of its id
    tool: str | None = None  # its name; `*` stands for any characters
    decision: str | None = None
    kind: str | None = None
    call: str | None = None  # the beginning of the id of a call, or of a hold
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None  # stands in the sentence or in a value, in whatever case
    observed: bool = False  # only calls that ran because their server is in observe mode
    about: frozenset[str] | None = None  # one of these principals had a part in it: `user:alice`, `agent:coder`

    def __post_init__(self) -> None:
        for name in ("agent", "person", "session", "tool", "decision", "kind", "call", "text"):
            value = getattr(self, name)
            if value is not None and not 0 < len(value) <= LONGEST:
                raise InputError(f"`{name}` to look for must have 1 to {LONGEST} characters")

    def has(self, record: Written) -> bool:
        """Whether this is one of them."""
        return self._is_of_the_kind(record) and self._is_about(record.fields) and self._says(record)

    def _is_of_the_kind(self, record: Written) -> bool:
        return (
            (self.kind is None or record.kind == self.kind)
            and (self.since is None or record.at >= self.since)
            and (self.until is None or record.at <= self.until)
            and (self.call is None or any(_begins(of, self.call) for of in (record.call, *_holds(record.fields))))
        )

    def _is_about(self, fields: Mapping[str, Any]) -> bool:
        return (
            (self.decision is None or fields.get("decision") == self.decision)
            and (not self.observed or "observed" in fields)
            and (self.session is None or any(_begins(it, self.session) for it in _sessions(fields)))
            and (self.tool is None or any(fits(tool, self.tool) for tool in _tools(fields)))
            and all(name in _named(fields) for name in self.parties)
            and (self.about is None or not self.about.isdisjoint(_named(fields)))
        )

    def _says(self, record: Written) -> bool:
        if self.text is None:
            return True
        wanted = folded(self.text)
        return wanted in folded(sentence(record)) or any(wanted in folded(value) for value in _values(record.fields))

    @property
    def parties(self) -> tuple[str, ...]:
        """The principals that must have had a part, as records name them."""
        named = (("agent", self.agent), ("user", self.person))
        return tuple(f"{kind}:{name}" for kind, name in named if name is not None)

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """What the canonical text of each of them has in it."""
        marks = [canonical(name).decode() for name in self.parties]
        if self.decision is not None:
            marks.append(f'"decision":{canonical(self.decision).decode()}')
        if self.observed:
            marks.append('"observed":')
        if self.call is not None:
            marks.append(canonical(self.call).decode()[:-1])
        if self.session is not None:
            marks.append(canonical(self.session).decode()[:-1])
        if self.tool is not None:  # a record may have the server beside the tool's own name
            pieces = [piece for part in self.tool.split("*") for piece in part.split("__")]
            marks.append(canonical(max(pieces, key=len)).decode()[1:-1])
        return tuple(mark for mark in marks if mark)

    @cached_property
    def one_of(self) -> tuple[str, ...]:
        """One of these is in the canonical text of each of them; empty: nothing of the kind can be said."""
        return tuple(canonical(name).decode() for name in sorted(self.about or ()))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """What the canonical text of each of them has in it, in whatever case: ASCII letters and digits in lower case.

        What a sentence says on its own account stands in no record.
        """
        runs = _RUN.findall(folded(self.text or ""))
        return tuple(run for run in runs if run not in SAID)

    @property
    def may_be_hold(self) -> bool:
        """Whether `call` may be the id of a hold: records name it in another place too."""
        return self.call is not None and "h_".startswith(self.call[:2])


def folded(text: str) -> str:
    """The text without difference of case; a letter that is not ASCII does not become one that is."""
    return text.lower() if text.isascii() else "".join(map(_folded, text))


def _folded(character: str) -> str:
    low = character.lower()
    return low if len(low) == 1 and low.isascii() == character.isascii() else character


def _sessions(fields: Mapping[str, Any]) -> Iterator[object]:
    yield fields.get("session")
    several = fields.get("sessions")
    if isinstance(several, list | tuple):
        yield from several


def _holds(fields: Mapping[str, Any]) -> Iterator[object]:
    """The hold that a record is of: its own, or the one that let a call through."""
    yield fields.get("hold")
    approval = fields.get("approval")
    if isinstance(approval, Mapping):
        yield approval.get("hold")


def _begins(value: object, beginning: str) -> bool:
    return isinstance(value, str) and value.startswith(beginning)


def fits(name: str, pattern: str) -> bool:
    """Whether the name fits a pattern in which `*` stands for any characters, none included; in one pass."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    if not name.startswith(first):
        return False
    at = len(first)
    for piece in rest[:-1]:
        found = name.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return name.endswith(rest[-1]) and len(name) - len(rest[-1]) >= at


def _tools(fields: Mapping[str, Any]) -> Iterator[str]:
    tool, server = fields.get("tool"), fields.get("server")
    if isinstance(tool, str):
        yield tool
        if isinstance(server, str):
            yield f"{server}__{tool}"


def _named(fields: Mapping[str, Any]) -> set[str]:
    """Whoever a record names, however deep, but not in words that somebody chose."""
    return set(_names(fields))


def _names(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for name, member in value.items():
                if name not in _UNSAID:
                    yield from _names(member)
        case list() | tuple():
            for one in value:
                yield from _names(one)


def _values(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            yield from _each(value.values())
        case list() | tuple():
            yield from _each(value)
        case None:
            return
        case _:
            yield canonical(value).decode()


def _each(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        yield from _values(value)
