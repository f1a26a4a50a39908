"""What a delegation says of arguments: read strictly, compared by the table of permitted pairs, asked for each call.

The vocabulary is that of the Attenuating Agent Token draft (section 3.4), with two extension types: `optional` and
`under`. A pair of kinds that `narrows` does not name is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import ConstraintError, DelegationError, InputError
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.constraint_kinds import (
    AllOf,
    AnyOf,
    Constraint,
    Contains,
    Exact,
    Literals,
    NotOneOf,
    OneOf,
    Optionally,
    Range,
    Subset,
    Under,
    Wildcard,
    literal,
)
from mcp_authz.rules.strict_json import JsonObject

__all__ = [
    "AllOf",
    "AnyOf",
    "Constraint",
    "Contains",
    "Exact",
    "NotOneOf",
    "OneOf",
    "Optionally",
    "Range",
    "Subset",
    "ToolsMap",
    "Under",
    "Wildcard",
    "narrows",
    "parse_constraint",
    "parse_tools",
    "permits_call",
    "require_bounded",
    "to_json",
    "tools_narrow",
]

_TOO_MANY_VALUES: Final = f"a constraint names more than {limits.CONSTRAINT_VALUES} values"

ToolsMap = Mapping[str, Mapping[str, Constraint]]  # tool -> argument -> constraint; no argument named: any arguments


def parse_constraint(value: object) -> Constraint:
    """Return the constraint that `value` is, every member of it understood.

    Raises:
        ConstraintError: an unknown type or member, a missing one, one of the wrong kind, or too much of them.
    """
    constraint = _parse(value, 1)
    clauses, values = _size(constraint)
    if clauses > limits.CONSTRAINT_CLAUSES:
        raise ConstraintError(f"a constraint has more than {limits.CONSTRAINT_CLAUSES} clauses")
    if values > limits.CONSTRAINT_VALUES:
        raise ConstraintError(_TOO_MANY_VALUES)
    return constraint


def narrows(child: Constraint, parent: Constraint) -> bool:
    """Whether every value that `child` permits is known to be permitted by `parent`.

    What stands here and in `_PAIRS` is the whole table: a pair that is in neither is refused.
    """
    if isinstance(parent, Optionally):
        return narrows(child.constraint if isinstance(child, Optionally) else child, parent.constraint)
    if isinstance(child, Optionally):  # an absent argument would pass, and did not
        return False
    if isinstance(parent, Wildcard):  # it permits every value there is
        return True
    does = _PAIRS.get((type(child), type(parent)))
    return does is not None and does(child, parent)


def parse_tools(value: object) -> ToolsMap:
    """Return the tools map that `value` is: tool names, argument names, constraints.

    Raises:
        ConstraintError: it is no object of objects of constraints, or too long to be compared at every call.
    """
    _require_short(value)
    return {tool: _parse_arguments(tool, arguments) for tool, arguments in _object(value, "the tools map").items()}


def require_bounded(tools: ToolsMap | None) -> None:
    """Return only if the tools map is one that `parse_tools` reads back: for maps that were made here.

    Raises:
        ConstraintError: it is too long, or a constraint of it has too many clauses or values.
    """
    if tools is not None:
        parse_tools(to_json(tools))


def to_json(tools: ToolsMap) -> JsonObject:
    """Return the tools map as a link carries it; `parse_tools` reads it back."""
    return {
        tool: {name: constraint.to_json() for name, constraint in arguments.items()}
        for tool, arguments in tools.items()
    }


def tools_narrow(child: ToolsMap, parent: ToolsMap) -> None:
    """Return only if every call that `child` permits is known to be permitted by `parent`.

    Raises:
        DelegationError: a tool, an argument or a value is added; the message names tool and argument.
    """
    for tool, arguments in child.items():
        if tool not in parent:
            raise DelegationError(f"link adds tool {_shown(tool)}, which its parent does not have")
        if parent[tool]:
            _arguments_narrow(tool, arguments, parent[tool])


def permits_call(tools: ToolsMap, tool: str, arguments: Mapping[str, Any]) -> str | None:
    """Return None when the call is permitted, else why it is not, without any argument's value."""
    if tool not in tools:
        return f"tool {_shown(tool)} is not part of the delegation"
    constraints = tools[tool]
    if not constraints:
        return None
    for name in sorted(arguments.keys() - constraints.keys()):
        return f"argument {_shown(name)} of {_shown(tool)} is not among those that the delegation names"
    for name, constraint in constraints.items():
        if name not in arguments:
            if not isinstance(constraint, Optionally):
                return f"argument {_shown(name)} of {_shown(tool)} is missing, and the delegation limits it"
        elif not constraint.permits(arguments[name]):
            return f"argument {_shown(name)} of {_shown(tool)} has a value that the delegation does not permit"
    return None


def _arguments_narrow(tool: str, child: Mapping[str, Constraint], parent: Mapping[str, Constraint]) -> None:
    for name in sorted(child.keys() ^ parent.keys()):
        change = "adds" if name in child else "drops"
        raise DelegationError(f"link {change} argument {_shown(name)} of {_shown(tool)}; its parent closed the list")
    for name, constraint in child.items():
        if not narrows(constraint, parent[name]):
            raise DelegationError(f"link does not narrow argument {_shown(name)} of {_shown(tool)}")


def _each_parent_has_its_own_child(child: tuple[Constraint, ...], parent: tuple[Constraint, ...]) -> bool:
    """Whether each parent clause can be given a distinct child clause that narrows it.

    Augmenting paths over sets of child clauses as bits, in which no clause is looked at twice: the work is that of the
    comparisons.
    """
    if len(child) < len(parent):
        return False
    fitting = [sum(1 << i for i, clause in enumerate(child) if narrows(clause, wanted)) for wanted in parent]
    given: dict[int, int] = {}  # child clause -> parent clause
    free = untried = (1 << len(child)) - 1

    def give(wanted: int) -> bool:
        nonlocal free, untried
        while left := fitting[wanted] & untried:
            lowest = (left & free or left) & -(left & free or left)
            untried &= ~lowest
            i = lowest.bit_length() - 1
            if lowest & free or give(given[i]):
                free &= ~lowest
                given[i] = wanted
                return True
        return False

    for wanted in range(len(parent)):
        untried = (1 << len(child)) - 1
        if not give(wanted):
            return False
    return True


def _parse(value: object, depth: int) -> Constraint:
    if depth > limits.CONSTRAINT_DEPTH:
        raise ConstraintError(f"a constraint is nested deeper than {limits.CONSTRAINT_DEPTH} levels")
    members = _object(value, "a constraint")
    kind = members.get("constraint_type")
    form = _FORMS.get(kind) if isinstance(kind, str) else None
    if form is None:
        raise ConstraintError(f"unknown constraint_type {_shown(kind) if isinstance(kind, str) else 'that is no text'}")
    present = members.keys() - {"constraint_type"}
    for name in sorted(form.required - present):
        raise ConstraintError(f"constraint `{kind}` lacks `{name}`")
    for name in sorted(present - form.required - form.optional):
        raise ConstraintError(f"constraint `{kind}` has an unknown member {_shown(name)}")
    return form.read(members, depth)


def _require_short(value: object) -> None:
    try:
        size = len(canonical(value))
    except InputError as error:
        raise ConstraintError(f"the tools map is no JSON: {error}") from None
    if size > limits.TOOLS_BYTES:
        raise ConstraintError(f"a tools map is longer than {limits.TOOLS_BYTES} bytes; name fewer tools or values")


def _parse_arguments(tool: str, value: object) -> Mapping[str, Constraint]:
    arguments = {}
    for name, constraint in _object(value, f"the entry of {_shown(tool)}").items():
        try:
            arguments[name] = parse_constraint(constraint)
        except ConstraintError as error:
            raise ConstraintError(f"argument {_shown(name)} of {_shown(tool)}: {error}") from None
    return arguments


def _range(members: JsonObject, _: int) -> Range:
    bounds = {name: members[name] for name in ("min", "max") if name in members}
    for name, bound in bounds.items():
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise ConstraintError(f"`{name}` of a range is not a number")
        literal(bound)  # finite, and a number that a call can have
    for flag in ("min_inclusive", "max_inclusive"):
        if not isinstance(members.get(flag, True), bool):
            raise ConstraintError(f"`{flag}` of a range is not true or false")
    return Range(
        min=bounds.get("min"),
        max=bounds.get("max"),
        # On a side without a bound the flag says nothing; dropping it leaves one value for one meaning.
        min_inclusive=members.get("min_inclusive", True) or "min" not in bounds,
        max_inclusive=members.get("max_inclusive", True) or "max" not in bounds,
    )


def _optional(members: JsonObject, depth: int) -> Optionally:
    return Optionally(constraint=_inner(members["constraint"], depth))


def _under(members: JsonObject, _: int) -> Under:
    if not isinstance(members["root"], str):
        raise ConstraintError("the `root` of `under` is not text")
    return Under.parse(members["root"])


def _literals(value: object) -> Literals:
    if not isinstance(value, list):
        raise ConstraintError("a constraint has something else where a list of values belongs")
    if len(value) > limits.CONSTRAINT_VALUES:  # before each of them is read
        raise ConstraintError(_TOO_MANY_VALUES)
    return frozenset(literal(item) for item in value)


def _clauses(members: JsonObject, depth: int) -> tuple[Constraint, ...]:
    clauses = members["constraints"]
    if not isinstance(clauses, list) or not clauses:
        raise ConstraintError("`constraints` is not a list with at least one constraint")
    return tuple(_inner(clause, depth) for clause in clauses)


def _inner(value: object, depth: int) -> Constraint:
    constraint = _parse(value, depth + 1)
    if isinstance(constraint, Optionally):
        raise ConstraintError("`optional` stands directly at an argument, not inside another constraint")
    return constraint


def _size(constraint: Constraint) -> tuple[int, int]:
    """How many clauses the constraint has on all levels, and how many values they name."""
    match constraint:
        case AllOf(clauses=clauses) | AnyOf(clauses=clauses):
            sizes = [_size(clause) for clause in clauses]
            return 1 + sum(size[0] for size in sizes), sum(size[1] for size in sizes)
        case Optionally(constraint=inner):
            count, values = _size(inner)
            return 1 + count, values
        case (
            OneOf(values=literals)
            | NotOneOf(excluded=literals)
            | Contains(required=literals)
            | Subset(allowed=literals)
        ):
            return 1, len(literals)
        case _:
            return 1, 1


def _object(value: object, what: str) -> JsonObject:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ConstraintError(f"{what} is not a JSON object")
    return value


def _shown(name: str) -> str:
    """Return a name from outside as it may stand in a message: short, printable, in backticks."""
    return f"`{name[:64].encode('unicode_escape').decode()}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """The members of one constraint type, and how they are read once they are known to be there."""

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    read: Callable[[JsonObject, int], Constraint]


_FORMS: Final[Mapping[str, _Form]] = {
    "exact": _Form(required=frozenset({"value"}), read=lambda m, _: Exact(value=literal(m["value"]))),
    "range": _Form(optional=frozenset({"min", "max", "min_inclusive", "max_inclusive"}), read=_range),
    "one_of": _Form(required=frozenset({"values"}), read=lambda m, _: OneOf(values=_literals(m["values"]))),
    "not_one_of": _Form(
        required=frozenset({"excluded"}), read=lambda m, _: NotOneOf(excluded=_literals(m["excluded"]))
    ),
    "contains": _Form(required=frozenset({"required"}), read=lambda m, _: Contains(required=_literals(m["required"]))),
    "subset": _Form(required=frozenset({"allowed"}), read=lambda m, _: Subset(allowed=_literals(m["allowed"]))),
    "wildcard": _Form(read=lambda _m, _d: Wildcard()),
    "all": _Form(required=frozenset({"constraints"}), read=lambda m, d: AllOf(clauses=_clauses(m, d))),
    "any": _Form(required=frozenset({"constraints"}), read=lambda m, d: AnyOf(clauses=_clauses(m, d))),
    "optional": _Form(required=frozenset({"constraint"}), read=_optional),
    "under": _Form(required=frozenset({"root"}), read=_under),
}

_PAIRS: Final[Mapping[tuple[type, type], Callable[[Any, Any], bool]]] = {
    # (child, parent): values are compared as they are spelled, none is read again for each clause
    (Exact, Exact): lambda child, parent: child.value == parent.value,
    (Exact, OneOf): lambda child, parent: child.value in parent.values,
    (Exact, Range): lambda child, parent: parent.permits_spelled(child.value),
    (Exact, Under): lambda child, parent: parent.permits_spelled(child.value),
    (OneOf, OneOf): lambda child, parent: child.values <= parent.values,
    (OneOf, Under): lambda child, parent: all(map(parent.permits_spelled, child.values)),
    (Range, Range): Range.is_within,
    (NotOneOf, NotOneOf): lambda child, parent: child.excluded >= parent.excluded,
    (Contains, Contains): lambda child, parent: child.required >= parent.required,
    (Subset, Subset): lambda child, parent: child.allowed <= parent.allowed,
    (AllOf, AllOf): lambda child, parent: _each_parent_has_its_own_child(child.clauses, parent.clauses),
    (AnyOf, AnyOf): lambda child, parent: all(
        any(narrows(one, other) for other in parent.clauses) for one in child.clauses
    ),
    (Under, Under): Under.is_within,
}
