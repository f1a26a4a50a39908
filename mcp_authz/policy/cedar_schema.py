"""The Cedar schema that a policy set is validated against: the input document, and what its policies say of the rest.

Cedar types every attribute, but arguments, labels and a resource's own attributes are the operator's to name. So those
three are open: an attribute there is optional, and has the type that the policies use it as (`== true` a boolean,
`like` a string). Strict validation then demands two things that matter for safety: that each such attribute is tested
with `has` before it is read, and that all policies agree on its type. Everything else is fixed, and a name that does
not exist there is refused even in a `has`, where Cedar itself would take the misspelling for "is absent".

`names_read` is every attribute name that some policy mentions; what none mentions, none can read, because a record of
the document is never compared or passed on as a whole.

Policies are read in Cedar's JSON form; nothing is evaluated here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_authz.errors import PolicyError

OTHER_ACTION: Final = "any other action"
"""Stands in the schema for the actions that no policy names, so that rules for every action are validated too."""

_JSON_KINDS: Final = frozenset({"String", "Long", "Boolean", "decimal"})  # what a value from outside can become
_EXTENSIONS: Final = frozenset({"decimal", "datetime", "duration", "ipaddr"})
_RESULTS: Final = {
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "&&", "||", "!", "in", "is", "has", "like"), "Boolean"),
    **dict.fromkeys(("contains", "containsAll", "containsAny", "isEmpty"), "Boolean"),
    **dict.fromkeys(("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"), "Boolean"),
    **dict.fromkeys(("isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange"), "Boolean"),
    **dict.fromkeys(("+", "-", "*", "neg", "toMilliseconds", "toSeconds"), "Long"),
    **dict.fromkeys(("toMinutes", "toHours", "toDays"), "Long"),
    **dict.fromkeys(("datetime", "offset", "toDate"), "datetime"),
    **dict.fromkeys(("duration", "durationSince", "toTime"), "duration"),
    "decimal": "decimal",
    "ip": "ipaddr",
}
_OPERANDS: Final = {
    "like": "String",
    **dict.fromkeys(("&&", "||", "!"), "Boolean"),
    **dict.fromkeys(("+", "-", "*", "neg", "<", "<=", ">", ">="), "Long"),  # unless the other side says otherwise
    **dict.fromkeys(("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"), "decimal"),
    **dict.fromkeys(("isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange"), "ipaddr"),
    **dict.fromkeys(("toDate", "toTime", "durationSince"), "datetime"),
    **dict.fromkeys(("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"), "duration"),
    **dict.fromkeys(("containsAll", "containsAny", "isEmpty"), "Set"),
}


_OPERATORS: Final = frozenset({".", "Value", "Var", "Set", "Record", "if-then-else", *_RESULTS, *_OPERANDS})


@dataclass(slots=True)
class Shape:
    """What is known of the type at one place of the document; an empty `kind` means nothing yet."""

    kind: str = ""
    required: bool = False
    open: bool = False  # a record in which policies may name attributes
    attributes: dict[str, Shape] = field(default_factory=dict)
    element: Shape | None = None


def schema(policies: Mapping[str, Mapping[str, Any]], actions: Iterable[str] | None) -> dict[str, Any]:
    """Return the schema, in Cedar's JSON form, of the input document as these policies use it.

    Args:
        policies: policies in Cedar's JSON form, by the words that say where each one stands.
        actions: the actions there are; None takes every action that a policy names for one.

    Raises:
        PolicyError: a policy names an attribute that the document does not have, or uses an open one as something that
            JSON cannot give.
    """
    document = _document()
    for place, policy in (*policies.items(), *policies.items()):  # the second time with what the first has learnt
        try:
            _learn(policy, document)
        except PolicyError as error:
            raise PolicyError(f"{place}: {error}") from None
    named = {OTHER_ACTION, "delegate", *(_actions(list(policies.values())) if actions is None else actions)}
    applies_to = {
        "principalTypes": ["Agent"],
        "resourceTypes": ["Tool"],
        "context": _rendered(document["context"], "context"),
    }
    return {
        "": {
            "entityTypes": {
                "Agent": {"shape": _rendered(document["principal"], "principal")},
                "Tool": {"shape": _rendered(document["resource"], "resource")},
            },
            "actions": {name: {"appliesTo": applies_to} for name in sorted(named)},
        }
    }


def names_read(policies: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Every attribute name that one of these policies mentions, wherever it reads it."""
    return frozenset(name for policy in policies for name in _names(policy["conditions"]))


def _names(expression: Any) -> Iterator[str]:
    if isinstance(expression, list):
        for item in expression:
            yield from _names(item)
    elif isinstance(expression, dict):
        if isinstance(expression.get("attr"), str):
            yield expression["attr"]
        for item in expression.values():
            yield from _names(item)


def _learn(policy: Mapping[str, Any], document: Mapping[str, Shape]) -> None:
    for condition in policy["conditions"]:
        _visit(condition["body"], document)
        _unify(_shape_of(condition["body"], document), Shape("Boolean"))


def _actions(expression: Any) -> Iterator[str]:
    """Every action that is named in policies, in their heads and in their conditions."""
    if isinstance(expression, Mapping):
        if expression.get("type") == "Action" and isinstance(expression.get("id"), str):
            yield expression["id"]
        expression = expression.values()
    elif not isinstance(expression, list):
        return
    for item in expression:
        yield from _actions(item)


def _text() -> Shape:
    return Shape("String", required=True)


def _time() -> Shape:
    return Shape("datetime", required=True)


def _words() -> Shape:
    return Shape("Set", required=True, element=Shape("String"))


def _record(*, required: bool = True, **attributes: Shape) -> Shape:
    return Shape("Record", required=required, attributes=attributes)


def _open_record(**attributes: Shape) -> Shape:
    return Shape("Record", required=True, open=True, attributes=attributes)


def _document() -> dict[str, Shape]:
    """The fixed part of the document, as Cedar sees it (`docs/policy-input.md`)."""
    return {
        "principal": _record(id=_text(), key=Shape("String"), labels=_open_record(), roles=_words(), proof=_text()),
        "resource": _resource(),
        "context": _record(
            chain=_words(),
            on_behalf_of=_record(
                required=False,
                user_id=_text(),
                issuer=Shape("String"),
                groups=_words(),
                auth=_record(required=False, amr=_words(), at=_time()),
            ),
            session=_record(
                required=False,
                id=_text(),
                purpose=_text(),
                mode=_text(),
                started_at=_time(),
                expires_at=_time(),
                calls_made=Shape("Long", required=True),
            ),
            method=_text(),
            arguments=_open_record(),
            scope=_words(),
            approval=_record(required=False, rules=_words(), assurance=_text(), approved_at=_time()),
            time=_time(),
        ),
    }


def _resource() -> Shape:
    return _open_record(
        server=_text(),
        tool=_text(),
        environment=_text(),
        hazard=_text(),
        # Of the action `delegate` alone, so that a rule about delegation is checked as strictly as any other.
        delegate=Shape("String"),
        delegate_owner=Shape("String"),
        delegate_labels=Shape("Record", open=True),
        delegate_roles=Shape("Set", element=Shape("String")),
        delegate_parent=Shape("String"),
        delegate_steps=Shape("Long"),
        delegate_minutes=Shape("Long"),
    )


def _operands(body: Any) -> list[Any]:
    """The operands of an operator or a function, left to right."""
    if isinstance(body, list):
        return body
    return [body[name] for name in ("left", "arg", "right", "if", "then", "else") if name in body]


def _visit(expression: Mapping[str, Any], document: Mapping[str, Shape]) -> None:
    """Learn from one expression what the open attributes below it are."""
    ((operator, body),) = expression.items()
    if operator not in _OPERATORS:
        raise PolicyError(f"uses `{operator}`, for which the document has nothing")
    if operator in ("Value", "Var"):
        return
    operands = list(body.values()) if operator == "Record" else _operands(body)
    for operand in operands:
        _visit(operand, document)
    shapes = [_shape_of(operand, document) for operand in operands]
    if operator == "has":
        _attribute(shapes[0], body["attr"], operands[0])
    elif operator != ".":
        _refuse_records(operands, shapes)
        _relate(operator, shapes)


def _relate(operator: str, shapes: list[Shape | None]) -> None:
    """Learn what an operator says of its operands: of each one, and that two of them are of one type."""
    match operator:
        case "contains":
            _unify(shapes[0], Shape("Set", element=shapes[1] or Shape()))
        case "offset":
            _unify(shapes[0], Shape("datetime"))
            _unify(shapes[1], Shape("duration"))
        case "if-then-else":
            _unify(shapes[0], Shape("Boolean"))
            _unify(shapes[1], shapes[2])
        case "==" | "!=" | "<" | "<=" | ">" | ">=" | "containsAll" | "containsAny" | "Set":
            for shape in shapes[1:]:
                _unify(shapes[0], shape)
    if operator in _OPERANDS:
        for shape in shapes:
            _unify(shape, Shape(_OPERANDS[operator]))


def _refuse_records(operands: list[Any], shapes: list[Shape | None]) -> None:
    for operand, shape in zip(operands, shapes, strict=True):
        if shape is not None and shape.kind == "Record" and operand not in ({"Var": "principal"}, {"Var": "resource"}):
            raise PolicyError(f"`{_path(operand)}` is a record; compare its attributes, not the whole")


def _shape_of(expression: Mapping[str, Any], document: Mapping[str, Shape]) -> Shape | None:
    """What the value of one expression is, as far as it is known; None where it cannot be an open attribute."""
    ((operator, body),) = expression.items()
    match operator:
        case "Var":
            return document.get(body)
        case ".":
            return _attribute(_shape_of(body["left"], document), body["attr"], body["left"])
        case "Value":
            return _literal(body)
        case "Set":
            return Shape("Set", element=_shape_of(body[0], document) if body else Shape())
        case "if-then-else":
            return _shape_of(body["then"], document) or _shape_of(body["else"], document)
        case _:
            return Shape(_RESULTS[operator]) if operator in _RESULTS else None


def _literal(value: object) -> Shape | None:
    kinds: dict[type, str] = {bool: "Boolean", int: "Long", str: "String"}
    return Shape(kinds[type(value)]) if type(value) in kinds else None


def _attribute(base: Shape | None, name: str, expression: Mapping[str, Any]) -> Shape | None:
    if base is None:
        return None
    if not base.kind:
        base.kind, base.open = "Record", True
    if base.kind != "Record":
        return None  # the validator has the better words for it
    if name not in base.attributes:
        if not base.open:
            raise PolicyError(_no_such(name, expression, base))
        base.attributes[name] = Shape()
    return base.attributes[name]


def _no_such(name: str, expression: Mapping[str, Any], base: Shape) -> str:
    where = _path(expression)
    if (where, name) == ("context.approval", "rule"):
        return "one approval may meet several rules: write `context.approval.rules.contains(...)`, not `.rule`"
    return f"`{where}` has no attribute `{name}`; there is {', '.join(f'`{key}`' for key in base.attributes)}"


def _path(expression: Mapping[str, Any]) -> str:
    ((operator, body),) = expression.items()
    return f"{_path(body['left'])}.{body['attr']}" if operator == "." else str(body)


def _unify(one: Shape | None, other: Shape | None) -> None:
    """Let each side learn what only the other knows; a contradiction is left for the validator to report."""
    if one is None or other is None:
        return
    if not one.kind:
        one.kind = other.kind
    elif not other.kind:
        other.kind = one.kind
    if one.kind == other.kind == "Set":
        one.element = one.element or other.element or Shape()
        other.element = other.element or one.element
        if one.element is not other.element:
            _unify(one.element, other.element)


def _rendered(shape: Shape, path: str) -> dict[str, Any]:
    required = {} if path in ("context", "principal", "resource") else {"required": shape.required}
    match shape.kind:
        case "Record":
            attributes = {name: _rendered(inner, f"{path}.{name}") for name, inner in shape.attributes.items()}
            return {"type": "Record", "attributes": attributes, **required}
        case "Set":
            element = _rendered(shape.element or Shape(), f"{path}[]")
            return {"type": "Set", "element": {k: v for k, v in element.items() if k != "required"}, **required}
        case kind if kind in _EXTENSIONS:
            if not shape.required and kind not in _JSON_KINDS:
                raise PolicyError(f"`{path}` is used as {kind}, which a JSON value never is")
            return {"type": "Extension", "name": kind, **required}
        case kind:
            return {"type": kind or "String", **required}
