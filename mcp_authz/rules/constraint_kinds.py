"""The kinds of argument constraint: frozen values that say which argument values pass.

JSON values are held in canonical form (RFC 8785), so that two are the same exactly when their bytes are: 1 is 1.0,
`true` is not 1, strings compare by code point.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from mcp_authz.errors import ConstraintError, InputError
from mcp_authz.rules import strict_json
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.strict_json import JsonObject

Literals = frozenset[bytes]  # JSON values in canonical form

_SCALARS: Final = frozenset({str, int, bool, type(None)})
_HOME_OR_DRIVE: Final = "~:"  # `~/x`, `C:/x`, `file:///x`: not relative, whatever they are


def literal(value: Any) -> bytes:
    """Return the canonical form of a JSON value that a constraint names.

    Raises:
        ConstraintError: it is no JSON value, or one that `strict_json` would refuse in a call.
    """
    try:
        spelling = canonical(value)
        if type(value) not in _SCALARS or b"\\" in spelling:  # any other scalar that has a spelling, a call can have
            strict_json.parse_value(spelling)
    except InputError as error:
        raise ConstraintError(f"a constraint names a value that no call can have: {error}") from None
    return spelling


def value_of(spelling: bytes) -> Any:
    """Return the JSON value whose canonical form this is."""
    return json.loads(spelling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """One value passes."""

    value: bytes  # canonical form

    def permits(self, value: Any) -> bool:
        """Whether `value` is this one."""
        return _spelling(value) == self.value

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it."""
        return {"constraint_type": "exact", "value": value_of(self.value)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers within the bounds pass; a bound that is None does not bound."""

    min: int | float | None
    max: int | float | None
    min_inclusive: bool = True
    max_inclusive: bool = True

    def permits(self, value: Any) -> bool:
        """Whether `value` is a number, no boolean, within the bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if self.min is not None and not (value > self.min or (self.min_inclusive and value == self.min)):
            return False
        return self.max is None or value < self.max or (self.max_inclusive and value == self.max)

    def permits_spelled(self, spelling: bytes) -> bool:
        """Whether the value of this canonical form passes."""
        return self.permits(value_of(spelling))

    def is_within(self, outer: Range) -> bool:
        """Whether each bound of `outer` is kept or tightened."""
        if outer.min is not None and not (
            self.min is not None
            and (self.min > outer.min or (self.min == outer.min and (outer.min_inclusive or not self.min_inclusive)))
        ):
            return False
        return outer.max is None or (
            self.max is not None
            and (self.max < outer.max or (self.max == outer.max and (outer.max_inclusive or not self.max_inclusive)))
        )

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it; inclusive bounds are the default and left out."""
        written: JsonObject = {"constraint_type": "range"}
        if self.min is not None:
            written |= {"min": self.min} | ({} if self.min_inclusive else {"min_inclusive": False})
        if self.max is not None:
            written |= {"max": self.max} | ({} if self.max_inclusive else {"max_inclusive": False})
        return written


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """The listed values pass."""

    values: Literals

    def permits(self, value: Any) -> bool:
        """Whether `value` is listed."""
        return _spelling(value) in self.values

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it, values in the order of their canonical forms."""
        return {"constraint_type": "one_of", "values": _values_of(self.values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NotOneOf:
    """All but the listed values pass."""

    excluded: Literals

    def permits(self, value: Any) -> bool:
        """Whether `value` is known not to be listed; what has no canonical form cannot be known."""
        spelling = _spelling(value)
        return spelling is not None and spelling not in self.excluded

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it, values in the order of their canonical forms."""
        return {"constraint_type": "not_one_of", "excluded": _values_of(self.excluded)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contains:
    """Arrays that hold every required value pass."""

    required: Literals

    def permits(self, value: Any) -> bool:
        """Whether `value` is an array with all that is required."""
        return isinstance(value, list) and self.required <= {_spelling(item) for item in value}

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it, values in the order of their canonical forms."""
        return {"constraint_type": "contains", "required": _values_of(self.required)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Arrays that hold nothing but allowed values pass."""

    allowed: Literals

    def permits(self, value: Any) -> bool:
        """Whether `value` is an array of allowed values."""
        return isinstance(value, list) and all(_spelling(item) in self.allowed for item in value)

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it, values in the order of their canonical forms."""
        return {"constraint_type": "subset", "allowed": _values_of(self.allowed)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wildcard:
    """Every value passes; the argument must be there."""

    def permits(self, _: Any) -> bool:
        """Yes."""
        return True

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it."""
        return {"constraint_type": "wildcard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AllOf:
    """Values that pass every clause pass."""

    clauses: tuple[Constraint, ...]

    def permits(self, value: Any) -> bool:
        """Whether every clause permits `value`."""
        return all(clause.permits(value) for clause in self.clauses)

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it."""
        return {"constraint_type": "all", "constraints": [clause.to_json() for clause in self.clauses]}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """Values that pass one clause pass."""

    clauses: tuple[Constraint, ...]

    def permits(self, value: Any) -> bool:
        """Whether some clause permits `value`."""
        return any(clause.permits(value) for clause in self.clauses)

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it."""
        return {"constraint_type": "any", "constraints": [clause.to_json() for clause in self.clauses]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Optionally:
    """The argument may be absent; when it is there, the inner constraint decides. Stands only at an argument."""

    constraint: Constraint

    def permits(self, value: Any) -> bool:
        """Whether the inner constraint permits the `value` that is there."""
        return self.constraint.permits(value)

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it."""
        return {"constraint_type": "optional", "constraint": self.constraint.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Under:
    """Paths at the root or below it pass, compared segment by segment after `.` and `..` are resolved.

    Only text is compared: a symbolic link that leads out of the root is the tool server's to refuse. A relative path
    passes only under a relative root, because nobody here knows against which directory the server resolves it.
    """

    absolute: bool
    segments: tuple[str, ...]

    @classmethod
    def parse(cls, root: str) -> Under:
        """Return the constraint for this root.

        Raises:
            ConstraintError: the root climbs with `..`, or is no path that has one reading.
        """
        place = _place(root)
        if place is None or ".." in root.split("/"):
            raise ConstraintError("the `root` of `under` is not a plain path: `/` between segments and no `..`")
        return cls(absolute=place[0], segments=place[1])

    def permits(self, value: Any) -> bool:
        """Whether `value` is the path of the root or of something below it."""
        place = _place(value) if isinstance(value, str) else None
        return place is not None and self._holds(*place)

    def permits_spelled(self, spelling: bytes) -> bool:
        """Whether the value of this canonical form passes; where it leads is remembered for the next root."""
        place = _place_spelled(spelling)
        return place is not None and self._holds(*place)

    def is_within(self, outer: Under) -> bool:
        """Whether this root is the root of `outer` or below it."""
        return outer._holds(self.absolute, self.segments)

    def _holds(self, absolute: bool, segments: tuple[str, ...]) -> bool:
        return absolute == self.absolute and segments[: len(self.segments)] == self.segments

    def to_json(self) -> JsonObject:
        """The constraint as a link carries it, the root in normal form."""
        path = "/".join(self.segments)
        return {"constraint_type": "under", "root": f"/{path}" if self.absolute else path or "."}


Constraint = (
    Exact | Range | OneOf | NotOneOf | Contains | Subset | Wildcard | AllOf | AnyOf | Optionally | Under
)  # fmt: skip


def _spelling(value: Any) -> bytes | None:
    try:
        return canonical(value)
    except InputError:
        return None  # equal to nothing that a constraint can name


def _values_of(literals: Literals) -> list[Any]:
    return [value_of(spelling) for spelling in sorted(literals)]


@lru_cache(maxsize=4096)
def _place_spelled(spelling: bytes) -> tuple[bool, tuple[str, ...]] | None:
    value = value_of(spelling)
    return _place(value) if isinstance(value, str) else None


def _place(path: str) -> tuple[bool, tuple[str, ...]] | None:
    """Return whether the path is absolute, and its resolved segments; None when it could be read in two ways."""
    absolute = path.startswith("/")
    if not path or path.startswith("//") or "\\" in path or "\0" in path:
        return None
    if not absolute and any(mark in path.partition("/")[0] for mark in _HOME_OR_DRIVE):
        return None
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if not segments and not absolute:
                return None  # climbs above where it starts
            del segments[-1:]  # the parent of `/` is `/`
        elif segment not in ("", "."):
            segments.append(segment)
    return absolute, tuple(segments)
