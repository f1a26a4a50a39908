"""What a delegation says of arguments: read strictly, compared by the table of permitted pairs, asked for each call.

The vocabulary is that of the Attenuating Agent Token draft (section 3.4), with two extension types: `optional` and
`under`. A pair of kinds that `narrows` does not name is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import ConstraintError, DelegationError
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
    value_of,
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
    "to_json",
    "tools_narrow",
]

ToolsMap = Mapping[str, Mapping[str, Constraint]]  # tool -> argument -> constraint; no argument named: any arguments


def parse_constraint(value: object) -> Constraint:
    """Return the constraint that `value` is, every member of it understood.

    Raises:
        ConstraintError: an unknown type or member, a missing one, one of the wrong kind, or too much nesting.
    """
    constraint = _parse(value, 1)
    if _clauses_in(constraint) > limits.CONSTRAINT_CLAUSES:
        raise ConstraintError(f"a constraint has more than {limits.CONSTRAINT_CLAUSES} clauses")
    return constraint


def narrows(child: Constraint, parent: Constraint) -> bool:  # noqa: PLR0912 - the branches are the table
    """Whether every value that `child` permits is known to be permitted by `parent`.

    The cases are the whole table: a pair that is not written here is refused.
    """
    match child, parent:
        case Optionally(constraint=inner), Optionally(constraint=outer):
            return narrows(inner, outer)
        case _, Optionally(constraint=outer):
            return narrows(child, outer)
        case Optionally(), _:  # an absent argument would pass, and did not
            return False
        case Exact(), Exact() | Range() | OneOf() | Under():
            return parent.permits(value_of(child.value))
        case OneOf(), OneOf() | Under():
            return all(parent.permits(value_of(spelling)) for spelling in child.values)
        case Range(), Range():
            return child.is_within(parent)
        case NotOneOf(), NotOneOf():
            return child.excluded >= parent.excluded
        case Contains(), Contains():
            return child.required >= parent.required
        case Subset(), Subset():
            return child.allowed <= parent.allowed
        case _, Wildcard():  # it permits every value there is
            return True
        case AllOf(), AllOf():
            return _each_parent_has_its_own_child(child.clauses, parent.clauses)
        case AnyOf(), AnyOf():
            return all(any(narrows(one, other) for other in parent.clauses) for one in child.clauses)
        case Under(), Under():
            return child.is_within(parent)
        case _:
            return False


def parse_tools(value: object) -> ToolsMap:
    """Return the tools map that `value` is: tool names, argument names, constraints.

    Raises:
        ConstraintError: it is no object of objects of constraints.
    """
    return {tool: _parse_arguments(tool, arguments) for tool, arguments in _object(value, "the tools map").items()}


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
    """Whether each parent clause can be given a distinct child clause that narrows it (augmenting paths)."""
    fitting = [[i for i, clause in enumerate(child) if narrows(clause, wanted)] for wanted in parent]
    given: dict[int, int] = {}  # child clause -> parent clause

    def give(wanted: int, tried: set[int]) -> bool:
        for i in fitting[wanted]:
            if i not in tried:
                tried.add(i)
                if i not in given or give(given[i], tried):
                    given[i] = wanted
                    return True
        return False

    return all(give(wanted, set()) for wanted in range(len(parent)))


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


def _clauses_in(constraint: Constraint) -> int:
    match constraint:
        case AllOf(clauses=clauses) | AnyOf(clauses=clauses):
            return 1 + sum(_clauses_in(clause) for clause in clauses)
        case Optionally(constraint=inner):
            return 1 + _clauses_in(inner)
        case _:
            return 1


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
