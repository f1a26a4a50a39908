"""Reads what a policy says as JSON: a boolean, or the decision object that Rego policies and engines elsewhere give.

```json
{"allow": true, "because": ["writes-are-approved"], "obligations": [{"kind": "approval", "argument": "destructive"}]}
```

Only `allow` is needed; without it nothing is permitted. `policy` may name the revision that decided. Whatever else is
in the object is refused, since a misspelt obligation would else be none. No value is ever quoted in an error: it may
be an argument of the call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import PolicyError
from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.engine import PolicyAnswer

SILENCE: Final = PolicyAnswer(permit=False, because=())
"""The answer of a policy that says nothing: a denial, and no error."""

_MEMBERS: Final = frozenset({"allow", "because", "obligations", "policy"})
_RULE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_REVISION: Final = re.compile(r"[!-~]{1,128}", re.ASCII)


def policy_answer(value: Any) -> PolicyAnswer:
    """Return what the policy's value says.

    Raises:
        PolicyError: it is neither a boolean nor a decision object.
    """
    if isinstance(value, bool):
        return PolicyAnswer(permit=value, because=())
    if not isinstance(value, Mapping):
        raise PolicyError("the policy's value is neither a boolean nor an object with `allow`; name the rule to ask")
    if not value.keys() <= _MEMBERS:
        raise PolicyError(
            "the policy's object has members beside allow, because, obligations and policy; "
            "ask a rule that gives nothing else"
        )
    return decision(value.get("allow", False), value)


def decision(permit: Any, details: Mapping[str, Any]) -> PolicyAnswer:
    """Return the answer for this verdict, with `because`, `obligations` and `policy` of `details`.

    Raises:
        PolicyError: the verdict is no boolean, or a member is not of its form or too long.
    """
    if not isinstance(permit, bool):
        raise PolicyError("the policy's verdict is not true or false")
    answer = PolicyAnswer(
        permit=permit, because=_because(details.get("because", [])), revision=_revision(details.get("policy", ""))
    )
    obligations = _obligations(details.get("obligations", []))
    return replace(answer, obligations=obligations) if permit else answer


def _because(value: Any) -> tuple[RuleId, ...]:
    if not isinstance(value, list) or len(value) > limits.POLICY_RULES:
        raise PolicyError(f"`because` is not a list of at most {limits.POLICY_RULES} rule ids")
    if not all(isinstance(one, str) and _RULE.fullmatch(one) for one in value):
        raise PolicyError("`because` has something that is no rule id: 1 to 128 of letters, digits, dot, _ and -")
    return tuple(RuleId(one) for one in dict.fromkeys(value))


def _obligations(value: Any) -> tuple[Obligation, ...]:
    if not isinstance(value, list) or len(value) > limits.POLICY_OBLIGATIONS:
        raise PolicyError(f"`obligations` is not a list of at most {limits.POLICY_OBLIGATIONS} obligations")
    return tuple(dict.fromkeys(_obligation(one) for one in value))


def _obligation(value: Any) -> Obligation:
    if not isinstance(value, Mapping) or not {"kind"} <= value.keys() <= {"kind", "argument"}:
        raise PolicyError('an obligation is not of the form {"kind": "...", "argument": "..."}')
    kind, argument = value["kind"], value.get("argument", "")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise PolicyError("the kind of an obligation is no word of a-z, 0-9 and _")
    if not isinstance(argument, str) or len(argument) > limits.POLICY_ARGUMENT or not argument.isprintable():
        raise PolicyError(f"the argument of an obligation is no text of at most {limits.POLICY_ARGUMENT} characters")
    return Obligation(kind=kind, argument=argument)


def _revision(value: Any) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or not _REVISION.fullmatch(value):
        raise PolicyError("`policy` is no revision: 1 to 128 printable characters without spaces")
    return value
