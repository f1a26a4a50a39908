"""Resources, prompts and completion as tools: each method of a server is one tool, so that all take the same road."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from mcp_authz.model import Classification, Hazard
from mcp_authz.rules.scope import ScopeTemplate

READ: Final = "resources/read"
GET: Final = "prompts/get"
COMPLETE: Final = "completion/complete"

_TEXT: Final = {"type": "string"}

DEFINITIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    READ: {
        "name": READ,
        "inputSchema": {"type": "object", "properties": {"uri": _TEXT}, "required": ["uri"]},
    },
    GET: {
        "name": GET,
        "inputSchema": {
            "type": "object",
            "properties": {"name": _TEXT, "arguments": {"type": "object", "additionalProperties": _TEXT}},
            "required": ["name"],
        },
    },
    COMPLETE: {
        "name": COMPLETE,
        "inputSchema": {
            "type": "object",
            "properties": {"ref": {"type": "object"}, "argument": {"type": "object"}, "context": {"type": "object"}},
            "required": ["ref", "argument"],
        },
    },
}
"""What is pinned for these methods: they are the protocol's own, the same for every server."""

_DEFAULTS: Final[Mapping[str, tuple[str, str, Mapping[str, str]]]] = {
    READ: ("resource.read", "{server}:resources", {"uri": "{uri}"}),
    GET: ("prompt.get", "{server}:prompts", {"prompt": "{name}"}),
    COMPLETE: ("completion.complete", "{server}:completion", {}),
}


def default_classification(server: str, method: str) -> Classification:
    """How a server's method is classified where the operator says nothing: it reads, and takes a scope of its own."""
    action, scope, resource = _DEFAULTS[method]
    return Classification(
        action=action,
        hazard=Hazard.READ,
        scopes=(ScopeTemplate.parse(scope.format(server=server)),),
        resource=resource,
        by="gateway",
    )


def fits_template(uri: str, template: str) -> bool:
    """Whether a URI may come from a URI template (RFC 6570): `{x}` is one segment, `{+x}` and the like anything."""
    parts = re.split(r"(\{[^{}]*\})", template) if len(template) <= _LONGEST else []
    if len(uri) > _LONGEST or not 0 < len(parts) <= _VARIABLES:
        return False
    # Where in the URI each part may end, all at once: backtracking would give a hostile template hours.
    ends = {0}
    for part in parts:
        ends = _after(part, uri, ends)
    return len(uri) in ends


_LONGEST: Final = 2048  # characters of a URI that is matched against templates
_VARIABLES: Final = 17  # parts of a template: eight variables; more could make matching slow


def _after(part: str, uri: str, starts: set[int]) -> set[int]:
    if not part.startswith("{"):
        return {start + len(part) for start in starts if uri.startswith(part, start)}
    if not starts:
        return set()
    if not (part[1:2].isalnum() or part[1:2] == "_"):
        return set(range(min(starts), len(uri) + 1))
    ends, inside = set(), False
    for at, character in enumerate(uri):  # one segment: at least one character, and no slash
        inside = (inside or at in starts) and character != "/"
        if inside:
            ends.add(at + 1)
    return ends
