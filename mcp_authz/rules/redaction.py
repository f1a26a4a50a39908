"""Takes what nobody may read out of what a tool server says; the only door to re2.

Patterns are RE2's, which have neither look-around nor references back: each search takes time linear in the text. A
text that could be searched for long all the same, because what is found in it is looked at over and over, uses up a
budget, and is then withheld as a whole.

**What is looked at.** Every text, also member names, as it came and as it is read, without what is drawn as nothing;
numbers, as they are written; text that is JSON, member by member. A member that is one of `fields` loses its value, and
so does the rest of a line of other text after `field:` or `field=`. What is no text (images, audio, binary resources)
is withheld. The few words of the protocol itself stand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2  # type: ignore[import-untyped]

from mcp_authz.errors import ConfigError, InputError
from mcp_authz.rules.unseen import bare, without_unseen

REDACTED: Final = "[redacted]"

_NESTED: Final = 5  # JSON in text in JSON ... deeper text is searched as text
_CUT: Final = REDACTED.encode()
_OPENS: Final = ("{", "[", '"')

_PROTOCOL: Final = (
    "_meta annotations arguments assistant audience audio blob complete completion content contents data description "
    "elicitation/create embedded form hasMore icons image inputRequests inputResponses input_required isError "
    "lastModified level logger message messages method mimeType mode name notifications/message "
    "notifications/progress params priority progress "
    "requestedSchema resource resource_link resultType role size structuredContent text title total ttlMs type "
    "uri user values"
)
WORDS: Final = frozenset(_PROTOCOL.split())
"""Member names and values that are the protocol's own; none of them is a secret."""

_RESULTS: Final = (
    "_meta completion content contents inputrequests iserror messages method params resource resulttype role "
    "structuredcontent type"
)
_FRAME: Final = frozenset(_RESULTS.split())
"""Members without which a result is none; they cannot be redacted as a whole."""

_NUMBERS: Final = frozenset({"priority", "progress", "size", "total", "ttlMs"})
_ANYTHING: Final = frozenset({"_meta", "data", "structuredContent"})
"""Members that hold what the protocol says nothing of: a number in them is the tool's, whatever it is called."""


class Withheld(InputError):
    """What a tool server said could not be searched whole, and so nobody may read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """What is taken out: what any of these patterns finds, and the values of members with these names."""

    patterns: tuple[str, ...] = ()
    fields: frozenset[str] = frozenset()  # in lower case
    endings: tuple[str, ...] = ()  # of the names of further fields, in lower case

    def names(self, member: str) -> bool:
        """Whether a member of this name loses its value."""
        name = member.lower()
        if not name.isascii() and (read := without_unseen(name)) != name and self._has(read):
            return True
        return self._has(name)

    def _has(self, name: str) -> bool:
        return name in self.fields or name.endswith(self.endings)


def read_redaction(patterns: Iterable[str], fields: Iterable[str], *, endings: Iterable[str] = ()) -> Redaction:
    """Return the redaction, once all of it is known to work.

    Raises:
        ConfigError: a pattern is none of RE2's, or finds the empty text; a field is the protocol's own.
    """
    made = Redaction(
        patterns=tuple(patterns),
        fields=frozenset(field.lower() for field in fields),
        endings=tuple(ending.lower() for ending in endings),
    )
    for pattern in made.patterns:
        try:
            found = _compiled(pattern).search(b"")
        except re2.error as error:
            why = error.args[0].decode("utf-8", "replace") if error.args else "it cannot be read"
            raise ConfigError(f"`{pattern[:80]}` is no pattern of RE2: {why}") from None
        if found is not None:
            raise ConfigError(
                f"`{pattern[:80]}` also finds the empty text, which is everywhere; make it find something"
            )
    if framed := sorted(made.fields & _FRAME):
        raise ConfigError(f"`{framed[0]}` is a member of every result; name what is inside of it")
    return made


class Redactor:
    """Redacts everything that is said about one call, and counts what it took out."""

    def __init__(self, redactions: Iterable[Redaction], may_go_on: Callable[[], bool]) -> None:
        """Nothing is redacted yet.

        Args:
            redactions: all of them count.
            may_go_on: whether there is time left; asked before each text and after each finding.
        """
        chosen = tuple(redactions)
        self.count = 0
        self._chosen = chosen
        self._named = tuple(dict.fromkeys(pattern for one in chosen for pattern in _of_fields(one)))
        self._patterns = tuple(dict.fromkeys(pattern for one in chosen for pattern in one.patterns))
        self._may_go_on = may_go_on

    def value(self, value: Any) -> Any:
        """Return a JSON value, redacted.

        Raises:
            Withheld: it is nested too deeply, or there was no time to search all of it.
        """
        try:
            return self._value(value, 0)
        except RecursionError:
            raise Withheld("what the tool server said is nested too deeply to be searched") from None

    def _value(self, value: Any, depth: int) -> Any:
        match value:
            case str():
                return self._text(value, depth)
            case bool() | None:
                return value
            case int() | float():
                return REDACTED if self._finds(json.dumps(value)) else value
            case Mapping():
                return self._withheld(value) or dict(self._member(*pair, depth) for pair in value.items())
            case list() | tuple():
                return [self._value(item, depth) for item in value]
            case _:
                raise Withheld("what the tool server said is no JSON")

    def _member(self, name: str, value: Any, depth: int) -> tuple[str, Any]:
        if value is not None and any(one.names(name) for one in self._chosen):
            self.count += 1
            return name, REDACTED
        if name in _NUMBERS and isinstance(value, int | float) and depth == 0:
            return name, value
        return self._text(name, _NESTED), self._value(value, max(depth, 1) if name in _ANYTHING else depth)

    def _withheld(self, value: Mapping[str, Any]) -> dict[str, Any] | None:
        """What stands for an object that carries bytes, which nobody can search; None where it carries none."""
        if isinstance(value.get("blob"), str):
            self.count += 1
            return {"uri": self._text(str(value.get("uri", "")), _NESTED), "mimeType": "text/plain", "text": REDACTED}
        carries = isinstance(value.get("data"), str) and isinstance(value.get("mimeType"), str)
        if carries or value.get("type") in ("image", "audio"):
            self.count += 1
            return {"type": "text", "text": REDACTED}
        return None

    def _text(self, text: str, depth: int) -> str:
        if text in WORDS:
            return text
        parsed = _json_in(text) if depth < _NESTED and text.lstrip()[:1] in _OPENS else None
        if parsed is not None:
            before = self.count
            inside = self._value(parsed, depth + 1)
            if self.count > before:
                text = json.dumps(inside, ensure_ascii=False)
            return self._cut(text, ())
        return self._cut(text, self._named)

    def _finds(self, text: str) -> bool:
        self._require_time()
        found = any(_compiled(pattern).search(text.encode()) is not None for pattern in self._patterns)
        self.count += found
        return found

    def _cut(self, text: str, named: Iterable[str]) -> str:
        """Return the text without what is found in it; every search is of the text as it came, or as it is read."""
        self._require_time()
        raw, named = text.encode("utf-8", "replace"), tuple(named)  # a lone surrogate is nothing that patterns mean
        spans = self._found(raw, named)
        if (read := bare(text)) is not None:
            spans += [read.in_text(*span) for span in self._found(read.raw, named)]
        if not spans:
            return text
        pieces, at = [], 0
        for start, end in _merged(spans):
            self.count += 1
            pieces += [raw[at:start], _CUT]
            at = end
        return b"".join([*pieces, raw[at:]]).decode("utf-8", "replace")

    def _found(self, raw: bytes, named: Iterable[str]) -> list[tuple[int, int]]:
        spans = [span for pattern in self._patterns for span in self._spans(_compiled(pattern), raw, 0)]
        return spans + [span for pattern in named for span in self._spans(_compiled(pattern), raw, 1)]

    def _require_time(self) -> None:
        if not self._may_go_on():
            raise Withheld("what the tool server said could not be searched in time")

    def _spans(self, pattern: Any, raw: bytes, group: int) -> Iterable[tuple[int, int]]:
        for found in pattern.finditer(raw):
            self._require_time()
            start, end = found.span(group)
            if start < end and raw[start:end] != _CUT:
                yield start, end


def _merged(spans: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """The spans in their order; those that overlap are one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _json_in(text: str) -> Any:
    """The JSON value that a text is, if it is one that two readers would read alike; else None."""
    try:
        return json.loads(text, object_pairs_hook=_members_once)
    except (ValueError, RecursionError):
        return None


def _members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member occurs twice")
    return members


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


_AFTER: Final = r"""\\*["']?[ \t]*[:=]\s*([^\r\n]+)"""  # a colon or an equals sign, and the rest of the line
# What only ends like a field may also be a word of another kind, such as a scope: `secret:read`.
_AFTER_LIKE: Final = r"""(?:\\*["'][ \t]*[:=]\s*|[ \t]*=\s*|[ \t]*:[ \t]+)([^\r\n]+)"""


@lru_cache(maxsize=256)
def _of_fields(redaction: Redaction) -> tuple[str, ...]:
    """Patterns that find the rest of a line after a field's name, as their first group."""
    found = [rf"(?i)(?:^|[^0-9A-Za-z_]){re2.escape(field)}{_AFTER}" for field in sorted(redaction.fields)]
    if redaction.endings:
        found.append(rf"(?i)(?:{'|'.join(re2.escape(ending) for ending in redaction.endings)}){_AFTER_LIKE}")
    return tuple(found)


def finds(redaction: Redaction) -> Callable[[Sequence[str]], bool]:
    """What tells of some texts whether something may have to be taken out of one: in one search, wrong only to yes."""
    every = (*redaction.patterns, *_of_fields(redaction))
    # Texts are looked at as lines of one. Some patterns mean the whole text, or would change the one beside them.
    alone = tuple(_compiled(pattern).search for pattern in every if _ALONE.search(pattern))
    joined = "|".join(f"(?:{pattern})" for pattern in every if not _ALONE.search(pattern))
    search = _compiled(f"(?m){joined}").search if joined else None

    def suspects(texts: Sequence[str]) -> bool:
        if any(text.lstrip()[:1] in _OPENS for text in texts):  # in JSON any character may be written in another way
            return True
        if not all(text.isascii() for text in texts):
            texts = [*texts, *(read for text in texts if (read := without_unseen(text)) != text)]
        if search is not None and search("\n".join(texts).encode("utf-8", "replace")) is not None:
            return True
        return any(one(text.encode("utf-8", "replace")) is not None for one in alone for text in texts)

    return suspects


_ALONE: Final = re2.compile(r"\\[AzQ]|\(\?[A-Za-z]*-")  # anchors of the whole, quoting, flags that are taken back
