"""Constraints of every kind, drawn at random, and what narrows each of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mcp_authz.rules.constraint import Constraint, parse_constraint
from mcp_authz.rules.constraint_kinds import (
    AllOf,
    AnyOf,
    Contains,
    Exact,
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

Json = dict[str, Any]


def exact(value: object) -> Json:
    return {"constraint_type": "exact", "value": value}


def within(**members: object) -> Json:
    return {"constraint_type": "range", **members}


def one_of(*values: object) -> Json:
    return {"constraint_type": "one_of", "values": list(values)}


def not_one_of(*values: object) -> Json:
    return {"constraint_type": "not_one_of", "excluded": list(values)}


def contains(*values: object) -> Json:
    return {"constraint_type": "contains", "required": list(values)}


def subset(*values: object) -> Json:
    return {"constraint_type": "subset", "allowed": list(values)}


def all_of(*clauses: Json) -> Json:
    return {"constraint_type": "all", "constraints": list(clauses)}


def any_of(*clauses: Json) -> Json:
    return {"constraint_type": "any", "constraints": list(clauses)}


def optional(inner: Json) -> Json:
    return {"constraint_type": "optional", "constraint": inner}


def under(root: str) -> Json:
    return {"constraint_type": "under", "root": root}


WILDCARD: Json = {"constraint_type": "wildcard"}

words = st.sampled_from([0, 1, 2, 3, 1.5, -1, True, False, None, "a", "b", "1", "/r", "/r/a", "/r/../s", "r", ""])
lists = st.lists(words, max_size=3)
arguments = words | lists | st.dictionaries(st.sampled_from("ab"), words, max_size=2)
numbers = st.sampled_from([0, 1, 2, 3, 1.5, -1])
roots = st.sampled_from(["/", "/r", "/r/a", "/s", "r", "r/a", "."])
ranges = st.fixed_dictionaries(
    {"constraint_type": st.just("range")},
    optional={"min": numbers, "max": numbers, "min_inclusive": st.booleans(), "max_inclusive": st.booleans()},
)
leaves = (
    arguments.map(exact)
    | ranges
    | lists.map(lambda v: one_of(*v))
    | lists.map(lambda v: not_one_of(*v))
    | lists.map(lambda v: contains(*v))
    | lists.map(lambda v: subset(*v))
    | st.just(WILDCARD)
    | roots.map(under)
)
inner_constraints = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda c: all_of(*c))
        | st.lists(inner, min_size=1, max_size=3).map(lambda c: any_of(*c))
    ),
    max_leaves=6,
)
constraints = (inner_constraints | inner_constraints.map(optional)).map(parse_constraint)
inner_only = inner_constraints.map(parse_constraint)
literals = st.frozensets(words.map(literal), max_size=3)


def narrower(constraint: Constraint, data: st.DataObject) -> Constraint:
    """Draw a constraint that permits no more than this one; made from it, so that it is a true part more often."""
    match constraint:
        case Range():
            return _narrower_range(constraint, data)
        case OneOf(values=values) if values:
            some = data.draw(st.frozensets(st.sampled_from(sorted(values))))
            return Exact(value=sorted(values)[0]) if data.draw(st.booleans()) else OneOf(values=some)
        case NotOneOf(excluded=excluded):
            return NotOneOf(excluded=excluded | data.draw(literals))
        case Contains(required=required):
            return Contains(required=required | data.draw(literals))
        case Subset(allowed=allowed) if allowed:
            return Subset(allowed=data.draw(st.frozensets(st.sampled_from(sorted(allowed)))))
        case Wildcard():
            return data.draw(inner_only)
        case AllOf(clauses=clauses):
            more = data.draw(st.lists(inner_only, max_size=1))
            return AllOf(clauses=tuple(data.draw(st.permutations([*(narrower(c, data) for c in clauses), *more]))))
        case AnyOf(clauses=clauses):
            some_clauses = data.draw(st.lists(st.sampled_from(clauses), min_size=1, max_size=3))
            return AnyOf(clauses=tuple(narrower(clause, data) for clause in some_clauses))
        case Optionally(constraint=inner):
            less = narrower(inner, data)
            return Optionally(constraint=less) if data.draw(st.booleans()) else less
        case Under():
            root = str(constraint.to_json()["root"])
            plain = f"{root.rstrip('/')}/a"
            value = literal(data.draw(st.sampled_from([root, plain, f"{plain}/../b"])))
            kinds: list[Constraint] = [Under.parse(plain), Exact(value=value), OneOf(values=frozenset([value]))]
            return data.draw(st.sampled_from(kinds))
        case _:
            return constraint


def _narrower_range(constraint: Range, data: st.DataObject) -> Constraint:
    fitting = [number for number in (-1, 0, 1, 1.5, 2, 3) if constraint.permits(number)]
    if not fitting:
        return constraint
    low, high = sorted(data.draw(st.lists(st.sampled_from(fitting), min_size=2, max_size=2)))
    inclusive = data.draw(st.booleans())
    tighter = Range(min=low, max=high, min_inclusive=inclusive)
    return Exact(value=literal(low)) if data.draw(st.booleans()) else tighter


def near(constraint: Constraint) -> list[Any]:
    """Values that the constraint itself names, which are more telling than random ones."""
    match constraint:
        case Exact(value=value):
            return [value_of(value)]
        case Range(min=low, max=high):
            return [number for number in (low, high) if number is not None]
        case OneOf(values=named) | NotOneOf(excluded=named):
            return [value_of(one) for one in sorted(named)]
        case Contains(required=named) | Subset(allowed=named):
            return [[value_of(one) for one in sorted(named)]]
        case AllOf(clauses=clauses) | AnyOf(clauses=clauses):
            return [value for clause in clauses for value in near(clause)]
        case Optionally(constraint=inner):
            return near(inner)
        case Under():
            root = constraint.to_json()["root"]
            return [root, f"{root}/a", f"{root}/../s"]
        case _:
            return []
