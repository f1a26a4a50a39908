"""The digest of a tool's definition: what pins, presets and quarantine compare (DESIGN section 8)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from mcp_authz.errors import InputError
from mcp_authz.rules.canonical import digest

# What a model or a person relies on when it calls the tool. `title`, `icons`, `execution` and `_meta` are display and
# transport; a change of those is no change of what the tool claims to do.
DEFINITION_MEMBERS: Final = ("name", "description", "inputSchema", "outputSchema", "annotations")


def definition_digest(definition: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 (32 bytes) over the RFC 8785 form of `definition`, reduced to `DEFINITION_MEMBERS`.

    A member that is absent stays absent; nothing is filled in, so `null` and absent differ.

    Raises:
        InputError: the definition has no text as `name`, no object as `inputSchema`, or no canonical form.
    """
    if not isinstance(definition.get("name"), str):
        raise InputError("tool definition without a text `name`")
    if not isinstance(definition.get("inputSchema"), Mapping):
        raise InputError("tool definition without an object as `inputSchema`")
    return digest({member: definition[member] for member in DEFINITION_MEMBERS if member in definition})


def definition_lines(definition: Mapping[str, Any]) -> list[str]:
    """Return a definition as lines that can be compared: text as text, the rest as JSON with its members in order."""
    lines = []
    for member in DEFINITION_MEMBERS:
        if member not in definition:
            continue
        value = definition[member]
        if not isinstance(value, str):
            value = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
        lines += [f"{member}:", *(f"  {line}" for line in value.splitlines())]
    return lines
