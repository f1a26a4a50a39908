"""Whether arguments fit a tool's pinned input schema; the only door to jsonschema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable


class ArgumentSchema:
    """A compiled input schema. References outside the schema itself are never fetched: they make the check fail."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        chosen = validator_for(schema, default=Draft202012Validator)
        self._problem: str | None = None
        try:
            chosen.check_schema(dict(schema))
        except SchemaError:
            self._problem = "the tool's input schema is not a valid JSON Schema; its server has to correct it"
        self._validator: Validator = chosen(schema, registry=Registry())

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """One sentence that a model can act on, without any argument value; None when the arguments fit."""
        if self._problem is not None:
            return self._problem
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except (Unresolvable, RecursionError):
            return "the tool's input schema refers to something that cannot be resolved; its server has to correct it"
        if error is None:
            return None
        return _sentence(error)


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
