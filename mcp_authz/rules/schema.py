"""Whether arguments fit a tool's pinned input schema; the only door to jsonschema.

Schemas come from tool servers and arguments from agents, and together they could keep the gateway busy for hours: every
check has a budget, and patterns are matched by an engine whose time grows with the text alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from pydantic_core import SchemaError as PatternRefused
from pydantic_core import SchemaValidator, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.plain_schema import plain

Check = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


class TooMuchWork(Exception):
    """The check of one call's arguments has used up its budget."""


class ArgumentSchema:
    """A compiled input schema. References outside the schema itself are never fetched: they make the check fail."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        chosen = validator_for(schema, default=Draft202012Validator)
        self._problem: str | None = None
        self._left = 0
        try:
            chosen.check_schema(dict(schema))
        except (SchemaError, RecursionError):
            self._problem = "the tool's input schema is not a valid JSON Schema; its server has to correct it"
        self._passes = None if self._problem is not None else plain(dict(schema), steps=limits.SCHEMA_STEPS)
        self._validator: Validator = self._bounded(chosen, dict(schema))(dict(schema), registry=Registry())

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """One sentence that a model can act on, without any argument value; None when the arguments fit."""
        if self._problem is not None:
            return self._problem
        if self._passes is not None and self._passes(arguments):
            return None
        self._left = limits.SCHEMA_STEPS
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except (Unresolvable, RecursionError):
            return "the tool's input schema refers to something that cannot be resolved; its server has to correct it"
        except TooMuchWork:
            return "the arguments are too large to be checked against the tool's input schema; send less at once"
        if error is None:
            return None
        return _sentence(error)

    def _bounded(self, chosen: type[Validator], schema: dict[str, Any]) -> Any:
        """The validator of this dialect, each of its keywords paid for, and its costly ones replaced."""
        checks: dict[str, Check] = {**chosen.VALIDATORS, **_LINEAR}
        if _PATTERNS in json.dumps(schema):  # the library follows these names by backtracking
            checks["unevaluatedProperties"] = _left_to_the_server
        bounded = extend(chosen, {keyword: self._paid(keyword, check) for keyword, check in checks.items()})  # type: ignore[no-untyped-call]
        evolve = bounded.evolve

        def evolved(validator: Any, **changes: Any) -> Any:
            # A part of a schema that names a dialect would be checked by the library's own validator, without bounds.
            schema = changes.get("schema")
            if isinstance(schema, dict) and "$schema" in schema:
                changes["schema"] = {name: value for name, value in schema.items() if name != "$schema"}
            return evolve(validator, **changes)

        bounded.evolve = evolved
        return bounded

    def _paid(self, keyword: str, check: Check) -> Check:
        def paid(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            self._left -= 1 + _size(value) + _size(instance) // 16
            if keyword in _EACH_BY_EACH:
                self._left -= _size(schema.get("patternProperties")) * _size(instance)
            if self._left < 0:
                raise TooMuchWork
            yield from check(validator, value, instance, schema) or ()

        return paid


def _size(value: Any) -> int:
    if isinstance(value, list | dict):
        return len(value)
    return len(value) // 64 if isinstance(value, str) else 0


@lru_cache(maxsize=1024)
def _pattern(pattern: str) -> SchemaValidator | None:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except PatternRefused:
        return None


def _matches(pattern: str, text: str) -> bool:
    """Whether the pattern is found in the text, in time linear in the text.

    Look-around and references back need backtracking, which one short text can keep busy for hours: what the engine
    does not know is left to the tool server, which has to check its arguments in any case.
    """
    compiled = _pattern(pattern)
    return compiled is None or compiled.isinstance_python(text)


def _check_pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError("does not match")


def _check_pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            if _matches(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _check_additional(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [name for name in instance if name not in named and not any(_matches(p, name) for p in patterns)]
    if isinstance(allowed, dict):
        for name in extra:
            yield from validator.descend(instance[name], allowed, path=name)
    elif allowed is False and extra:
        yield ValidationError("there is one more")


def _check_unique(validator: Any, unique: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if unique is True and isinstance(instance, list) and len({_written(item) for item in instance}) < len(instance):
        yield ValidationError("an item occurs twice")


def _written(value: Any) -> bytes:
    try:
        return canonical(value)
    except InputError:  # not from a reader of ours
        return repr(value).encode()


def _left_to_the_server(validator: Any, value: Any, instance: Any, schema: Any) -> None:
    """Nothing is checked here; the tool server has to check its arguments in any case."""


_LINEAR: Final[dict[str, Check]] = {
    "pattern": _check_pattern,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_additional,
    "uniqueItems": _check_unique,
}

_EACH_BY_EACH: Final = {"patternProperties", "additionalProperties"}  # they try every pattern on every name
_PATTERNS: Final = '"patternProperties"'


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    subject = f"argument `{where}`" if where else "the arguments"
    match error.validator:
        case "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            return f"{subject}: `{missing[0]}` is missing" if missing else f"{subject}: something is missing"
        case "additionalProperties" | "unevaluatedProperties":
            return f"{subject}: there is one that the tool does not know"
        case "type":
            return f"{subject} must be of type {_words(error.validator_value)}"
        case "enum":
            return f"{subject} must be one of {_words(error.validator_value)}"
        case "const":
            return f"{subject} must be {_words([error.validator_value])}"
        case keyword:
            limit = error.validator_value
            detail = f" {limit}" if isinstance(limit, str | int | float) else ""
            return f"{subject} must satisfy {keyword}{detail}"


def _words(value: Any) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
