"""Classifications of published tool servers, each tied to the tool definitions that a maintainer has read.

A preset is chosen by name in the configuration. It names tools exactly, and covers a tool only while the server lists
it with a definition that the preset knows; every other tool is as unclassified as if there were no preset.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from mcp_authz.errors import ConfigError, ScopeError
from mcp_authz.model import Hazard
from mcp_authz.rules.attributes import parse_template
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.scope import ScopeTemplate

PRESET_KEYS: Final = frozenset({"preset", "server", "checked_with", "tools"})
TOOL_KEYS: Final = frozenset({"action", "hazard", "scopes", "definitions"})
OPTIONAL_TOOL_KEYS: Final = frozenset({"resource", "approval"})

ACTION: Final = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
WORD: Final = re.compile(r"\S+")
ATTRIBUTE: Final = re.compile(r"[a-z][a-z0-9_]*")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetTool:
    """What a preset says of one tool, and which definitions of that tool it says it of."""

    name: str
    action: str
    hazard: Hazard
    scopes: tuple[ScopeTemplate, ...]
    resource: Mapping[str, str]  # attribute -> template over arguments
    definitions: frozenset[bytes]  # SHA-256 (`rules.definition`), 32 bytes each
    approval: str | None = None  # the approval rule that the tool needs whatever its hazard; the configuration has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The classification of one published server's tools."""

    name: str
    server: str  # the package
    checked_with: tuple[str, ...]  # versions of the package whose tool list was read
    tools: Mapping[str, PresetTool]  # by exact tool name, without the configured server's name

    def covering(self, definition: Mapping[str, Any]) -> PresetTool | None:
        """Return the entry of the tool listed as `definition`; None when the tool or this definition is unknown.

        Raises:
            InputError: `definition` is no tool definition.
        """
        digest = definition_digest(definition)
        tool = self.tools.get(definition["name"])
        return tool if tool is not None and digest in tool.definitions else None


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets that are shipped, sorted."""
    return tuple(sorted(f.name.removesuffix(".toml") for f in files(__name__).iterdir() if f.name.endswith(".toml")))


def load_preset(name: str) -> Preset:
    """Return the shipped preset called `name`.

    Raises:
        ConfigError: there is no such preset, or its file breaks the format.
    """
    if name not in preset_names():
        raise ConfigError(f"no preset `{name}`; there are: {', '.join(preset_names())}")
    return parse_preset(name, files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def parse_preset(name: str, text: str) -> Preset:
    """Return the preset that the TOML document `text` describes under the name `name`.

    Raises:
        ConfigError: not TOML, another name, a missing or unknown key, or a value that breaks its form.
    """
    where = f"preset `{name}`"
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from error
    _check_keys(where, document, required=PRESET_KEYS)
    if document["preset"] != name:
        raise ConfigError(f"{where} calls itself `{document['preset']}`")
    tools = _table(f"{where}: `tools`", document["tools"])
    return Preset(
        name=name,
        server=_text(f"{where}: `server`", document["server"], WORD),
        checked_with=_texts(f"{where}: `checked_with`", document["checked_with"], WORD),
        tools=MappingProxyType({tool: _tool(f"{where}, tool `{tool}`", tool, tools[tool]) for tool in tools}),
    )


def _tool(where: str, name: str, entry: object) -> PresetTool:
    table = _table(where, entry)
    _check_keys(where, table, required=TOOL_KEYS, optional=OPTIONAL_TOOL_KEYS)
    return PresetTool(
        name=name,
        action=_text(f"{where}: `action`", table["action"], ACTION),
        hazard=_hazard(where, table["hazard"]),
        scopes=tuple(_scope(where, text) for text in _texts(f"{where}: `scopes`", table["scopes"], WORD)),
        resource=_resource(f"{where}: `resource`", table.get("resource", {})),
        definitions=frozenset(
            bytes.fromhex(text) for text in _texts(f"{where}: `definitions`", table["definitions"], DIGEST)
        ),
        approval=_text(f"{where}: `approval`", table["approval"], WORD) if "approval" in table else None,
    )


def _hazard(where: str, value: object) -> Hazard:
    if value not in [hazard.value for hazard in Hazard]:
        raise ConfigError(f"{where}: `hazard` must be one of {', '.join(Hazard)}")
    return Hazard(value)


def _scope(where: str, text: str) -> ScopeTemplate:
    try:
        return ScopeTemplate.parse(text)
    except ScopeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _resource(where: str, value: object) -> Mapping[str, str]:
    attributes: dict[str, str] = {}
    for name, template in _table(where, value).items():
        attributes[_text(where, name, ATTRIBUTE)] = _text(where, template, WORD)
        parse_template(template)  # refuses what no arguments could fill
    return MappingProxyType(attributes)


def _text(where: str, value: object, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ConfigError(f"{where}: `{value}` is no text of the form {form.pattern}")
    return value


def _texts(where: str, value: object, form: re.Pattern[str]) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{where} must be a list of at least one text")
    texts = tuple(_text(where, text, form) for text in value)
    if len(set(texts)) != len(texts):
        raise ConfigError(f"{where} names something twice")
    return texts


def _table(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table")
    return value


def _check_keys(
    where: str, table: Mapping[str, Any], *, required: frozenset[str], optional: frozenset[str] = frozenset()
) -> None:
    if missing := sorted(required - table.keys()):
        raise ConfigError(f"{where} lacks {missing}")
    if unknown := sorted(table.keys() - required - optional):
        raise ConfigError(f"{where} has unknown keys {unknown}")
