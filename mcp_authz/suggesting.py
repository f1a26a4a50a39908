"""What calls needed, gathered one by one: the narrowest scopes, and permits for exactly what was done.

Nothing is invented: what stands in a suggestion was seen. Where more than `most` different values were seen, a scope
has `*` in their place, and a permit leaves the attribute open; both say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_authz.inputs import Kept
from mcp_authz.model import Obligation
from mcp_authz.policy.cedar_writing import Permitted, Plain, Values
from mcp_authz.rules.scope import Scope, covers

MOST: Final = 8  # different values that are still listed one by one
_LONG: Final = range(-(2**63), 2**63)  # what Cedar has for integers
_TEXT: Final = 128  # characters of a value that a policy can still be read with


@dataclass(slots=True, kw_only=True)
class ScopesOfOne:
    """The scopes that one template was filled to; a segment with more than `most` values is `*`."""

    most: int
    scopes: set[tuple[str, ...]] = field(default_factory=set)
    wide: set[int] = field(default_factory=set)
    _values: dict[int, set[str]] = field(default_factory=dict)

    def add(self, scope: Scope) -> None:
        """One more was needed."""
        segments = tuple(scope.split(":"))
        for index, segment in enumerate(segments):
            if index in self.wide:
                continue
            values = self._values.setdefault(index, set())
            values.add(segment)
            if len(values) > self.most:
                self.wide.add(index)
                del self._values[index]
                self.scopes = {self._widened(known) for known in self.scopes}
        self.scopes.add(self._widened(segments))

    def _widened(self, segments: tuple[str, ...]) -> tuple[str, ...]:
        return tuple("*" if index in self.wide else segment for index, segment in enumerate(segments))


@dataclass(slots=True, kw_only=True)
class Scopes:
    """The scopes that calls needed, those of each template of each tool apart."""

    most: int
    _by: dict[tuple[str, int, int], ScopesOfOne] = field(default_factory=dict)

    def add(self, kept: Kept) -> None:
        """Those of one more call."""
        for index, scope in enumerate(kept.needed):
            key = kept.tool, index, scope.count(":")
            self._by.setdefault(key, ScopesOfOne(most=self.most)).add(scope)

    @property
    def narrowest(self) -> tuple[Scope, ...]:
        """The scopes that cover all of it; none that another one covers."""
        found = {Scope(":".join(segments)) for one in self._by.values() for segments in one.scopes}
        return tuple(sorted(s for s in found if not any(o != s and covers(o, s) for o in found)))

    @property
    def widened(self) -> tuple[Scope, ...]:
        """Those that have a `*` in the place of many values."""
        return tuple(scope for scope in self.narrowest if "*" in scope.split(":"))


@dataclass(slots=True, kw_only=True)
class _Attribute:
    most: int
    values: set[Plain] = field(default_factory=set)
    open: bool = False  # it cannot be listed: too many values, or one that cannot be written
    seen: int = 0

    def add(self, value: object) -> None:
        self.seen += 1
        if self.open or not isinstance(value, str | int) or not _is_writable(value) or self.kinds - {type(value)}:
            self.open, self.values = True, set()
            return
        self.values = {*self.values, value}
        if len(self.values) > self.most:
            self.open, self.values = True, set()

    @property
    def kinds(self) -> set[type]:
        return {type(value) for value in self.values}


def _is_writable(value: str | int) -> bool:
    return len(value) <= _TEXT if isinstance(value, str) else value in _LONG


@dataclass(slots=True, kw_only=True)
class _Deed:
    """One action with one tool, as far as policy asked the same for it."""

    calls: int = 0
    attributes: dict[str, _Attribute] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Needs:
    """What the calls of one agent needed; it grows with what is different in them, and not with their number."""

    agent: str
    most: int = MOST
    calls: int = 0
    decided: Counter[str] = field(
        default_factory=Counter
    )  # `permit`, `hold`, and `observed` for those that only ran so
    delegated: int = 0  # calls at the end of a chain of several
    ceiling: Scopes = field(init=False)
    by_subject: dict[str, Scopes] = field(default_factory=dict)
    _deeds: dict[tuple[str, str, tuple[tuple[str, str], ...]], _Deed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ceiling = Scopes(most=self.most)

    def add(self, kept: Kept, fields: Mapping[str, Any]) -> None:
        """One more call; `fields` is its decision record."""
        self.calls += 1
        self.decided["observed" if "observed" in fields else kept.gist.outcome] += 1
        self.delegated += len(fields.get("chain", ())) > 1
        self.ceiling.add(kept)
        self.by_subject.setdefault(str(fields.get("subject")), Scopes(most=self.most)).add(kept)
        asks = tuple(sorted({(one.kind, one.argument) for one in kept.asks}))
        deed = self._deeds.setdefault((str(kept.document["action"]), kept.tool, asks), _Deed())
        deed.calls += 1
        for name in kept.declared:
            attribute = deed.attributes.setdefault(name, _Attribute(most=self.most))
            if (value := kept.document["resource"].get(name)) is not None:
                attribute.add(value)

    @property
    def permitted(self) -> tuple[Permitted, ...]:
        """What a policy has to permit, with what was asked for along with it."""
        mixed = self._mixed
        return tuple(
            Permitted(
                agent=self.agent,
                action=action,
                tool=tool,
                attributes={
                    name: Values(values=frozenset(one.values), absent=one.seen < deed.calls)
                    for name, one in deed.attributes.items()
                    if not one.open and name not in mixed
                },
                asks=tuple(Obligation(kind=kind, argument=argument) for kind, argument in asks),
            )
            for (action, tool, asks), deed in sorted(self._deeds.items(), key=lambda pair: pair[0])
        )

    @property
    def left_open(self) -> tuple[tuple[str, str], ...]:
        """Tools, and attributes of theirs that the permits do not limit."""
        mixed = self._mixed
        return tuple(
            dict.fromkeys(
                (tool, name)
                for (_, tool, _), deed in sorted(self._deeds.items(), key=lambda pair: pair[0])
                for name, one in sorted(deed.attributes.items())
                if one.open or name in mixed
            )
        )

    @property
    def _mixed(self) -> frozenset[str]:
        """Attributes that are text in one place and a number in another: one set of policies has one type for each."""
        return frozenset(name for name, kinds in _kinds(self._deeds.values()).items() if len(kinds) > 1)


def _kinds(deeds: Iterable[_Deed]) -> dict[str, set[type]]:
    kinds: dict[str, set[type]] = {}
    for deed in deeds:
        for name, one in deed.attributes.items():
            kinds.setdefault(name, set()).update(one.kinds)
    return kinds
