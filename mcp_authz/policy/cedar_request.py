"""The input document as Cedar reads it: principal, action, resource, entities and context, all of it data.

null is absent (in a list, an empty record, so that the list does not get shorter); an integral float is an integer, as
in the canonical form; another float is a decimal if four digits hold it, else text; an integer beyond 64 bits is text;
a list is a set; times are datetimes; `chain` is the set of its agents' names. An object with a key by which Cedar would
read it as something else is refused.

Cedar is given only what some policy mentions (`names`): reading a file's content into Cedar costs more than deciding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import PolicyError
from mcp_authz.model import Assurance
from mcp_authz.policy.engine import PolicyInput

_RESERVED: Final = frozenset({"__entity", "__extn", "__expr"})
_LONG: Final = range(-(2**63), 2**63)
_INTEGER_BITS: Final = 4096  # far beyond the strict reader's bound; Python refuses to print much longer ones
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_OBJECT: Final = (dict, Mapping)  # the first is what nearly all are, and costs nothing to ask for
_DECIMAL: Final = 4  # digits after the point that a Cedar decimal has
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CedarRequest:
    """A document in Cedar's JSON form; whatever it holds, Cedar reads it as data."""

    principal: Mapping[str, str]
    action: Mapping[str, str]
    resource: Mapping[str, str]
    context: Mapping[str, Any]  # without the approval
    time: Mapping[str, Any]  # of the decision
    entities: str
    approval: Mapping[str, Any] | None
    rules: frozenset[str]  # that the approval meets

    @classmethod
    def of(cls, document: PolicyInput, names: frozenset[str]) -> CedarRequest:
        """Return the request that this document stands for, with the attributes that are among `names`.

        Raises:
            PolicyError: it is not an input document, or has something in it that Cedar would not read as data.
        """
        if not isinstance(document, _OBJECT):
            raise PolicyError("the input is not a document")
        actor, tool = _record(document, "actor"), _record(document, "resource")
        if actor.get("type") != "agent":
            raise PolicyError("the input's `actor` is not an agent")
        principal = {"type": "Agent", "id": _text(actor, "id")}
        resource = {"type": "Tool", "id": _text(tool, "tool")}
        entities = [
            {"uid": principal, "attrs": _among(names, actor), "parents": []},
            {"uid": resource, "attrs": _among(names, tool), "parents": []},
        ]
        approval = _approval(document)
        return cls(
            principal=principal,
            action={"type": "Action", "id": _text(document, "action")},
            resource=resource,
            context=_context(document, names),
            time=_time(document, "time"),
            entities=_json(entities),
            approval=approval,
            rules=frozenset() if approval is None else frozenset(approval["rules"]),
        )

    def supposing(self, rules: Iterable[str]) -> Mapping[str, Any]:
        """An approval that meets these rules as well as any could: by passkey, now."""
        return {"rules": sorted(rules), "assurance": Assurance.PASSKEY.label, "approved_at": self.time}

    def with_approval(self, approval: Mapping[str, Any] | None) -> dict[str, Any]:
        """The request as cedarpy takes it.

        Raises:
            PolicyError: there is text in it that is not Unicode.
        """
        context = self.context if approval is None else {**self.context, "approval": approval}
        return {
            "principal": self.principal,
            "action": self.action,
            "resource": self.resource,
            "context": _json(context),
        }


def _context(document: PolicyInput, names: frozenset[str]) -> dict[str, Any]:
    context: dict[str, Any] = {
        "arguments": _among(names, _record(document, "arguments")),
        "scope": _words(document, "scope"),
        "method": _text(document, "method"),
        "time": _time(document, "time"),
        "chain": [_text(step, "id") for step in _records(document, "chain")],
    }
    if document.get("session") is not None:
        session = _record(document, "session")
        times = {"started_at": _time(session, "started_at"), "expires_at": _time(session, "expires_at")}
        context["session"] = _mentioned(names, {**_normal_record(session), **times})
    if document.get("on_behalf_of") is not None:
        context["on_behalf_of"] = _mentioned(names, _person(_record(document, "on_behalf_of")))
    return _mentioned(names, context)


def _person(person: Mapping[str, Any]) -> dict[str, Any]:
    normal = _normal_record(person)
    if "auth" in normal:
        auth = _record(person, "auth")
        normal["auth"] = {**_normal_record(auth), "at": _time(auth, "at")}
    return normal


def _among(names: frozenset[str], record: Mapping[str, Any]) -> dict[str, Any]:
    """The whole record is checked; what no policy mentions is left out afterwards."""
    return _mentioned(names, _normal_record(record))


def _mentioned(names: frozenset[str], record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name in names}


def _approval(document: PolicyInput) -> dict[str, Any] | None:
    if document.get("approval") is None:
        return None
    approval = _record(document, "approval")
    if not _words(approval, "rules"):
        raise PolicyError("the input's `approval` meets no rule")
    return {
        "rules": _words(approval, "rules"),
        "assurance": _text(approval, "assurance"),
        "approved_at": _time(approval, "approved_at"),
    }


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not _is_unicode(value):
        raise PolicyError(f"the input's `{name}` is not text")
    return value


def _record(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    if not isinstance(value, _OBJECT):
        raise PolicyError(f"the input's `{name}` is not an object")
    return value


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list):
        raise PolicyError(f"the input's `{name}` is not a list")
    return value


def _records(record: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    items = _list(record, name)
    if not all(isinstance(item, _OBJECT) for item in items):
        raise PolicyError(f"the input's `{name}` is not a list of objects")
    return items


def _words(record: Mapping[str, Any], name: str) -> list[str]:
    words = _list(record, name)
    if not all(isinstance(word, str) for word in words):
        raise PolicyError(f"the input's `{name}` is not a list of words")
    return words


def _time(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    text = _text(record, name)
    if not _TIME.fullmatch(text):
        raise PolicyError(f"the input's `{name}` is not a time in UTC")
    return {"__extn": {"fn": "datetime", "arg": text}}


def _normal(value: Any, depth: int = 0) -> Any:
    """Return the JSON value as Cedar can read it, null only at the top.

    Raises:
        PolicyError: a reserved key, something that is not JSON, or more than `limits.JSON_DEPTH` levels.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value if value in _LONG else _digits(value)
    if depth > limits.JSON_DEPTH:
        raise PolicyError("the input is nested too deeply")
    if isinstance(value, _OBJECT):
        return _normal_record(value, depth)
    if isinstance(value, list):
        return [{} if item is None else _normal(item, depth + 1) for item in value]
    if kind is float and isfinite(value):
        return _normal_float(value)
    raise PolicyError("the input has a value that is not JSON")


def _normal_record(record: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    normal = {}
    for name, value in record.items():
        if type(name) is not str:
            raise PolicyError("the input has a key that is not text")
        if name in _RESERVED:
            raise PolicyError(f"the input has a key `{name}`, which Cedar would not read as data")
        if value is not None:
            normal[name] = _normal(value, depth + 1)
    return normal


def _digits(value: int) -> str:
    if value.bit_length() > _INTEGER_BITS:
        raise PolicyError("the input has an integer that is too long")
    return str(value)


def _normal_float(value: float) -> Any:
    if value.is_integer() and int(value) in _LONG:
        return int(value)
    number = Decimal(repr(value))
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and -_DECIMAL <= exponent < 0 and int(number.scaleb(_DECIMAL)) in _LONG:
        return {"__extn": {"fn": "decimal", "arg": f"{number:f}"}}
    return repr(value)


def _json(value: Any) -> str:
    text = _ENCODER.encode(value)
    if not _is_unicode(text):
        raise PolicyError("the input has text that is not Unicode")
    return text


def _is_unicode(text: str) -> bool:
    """Whether there is no lone surrogate in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
