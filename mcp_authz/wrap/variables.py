"""Variables in a client's file, filled in as that client would; what cannot be known here is said in a sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mcp_authz.errors import InputError

_VARIABLE: Final = re.compile(r"\$\{([^{}]*)\}")
_SHELL: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A text without variables, and whether part of it came from outside the file."""

    text: str = field(repr=False)
    foreign: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """What variables stand for, for one client and one project."""

    expands: str  # `none`, `shell` or `editor`, as `known.Client` has it
    project: Path | None
    environment: Mapping[str, str] = field(repr=False)
    answers: Mapping[str, str] = field(default_factory=dict, repr=False)  # to what the client would ask, by id

    def fill(self, text: str) -> Filled:
        """Return `text` with every variable filled in.

        Raises:
            InputError: a variable is not known here; the message says what to do.
        """
        foreign = False

        def one(found: re.Match[str]) -> str:
            nonlocal foreign
            value, outside = self._value(found[1])
            foreign = foreign or outside
            return value

        return Filled(text=_VARIABLE.sub(one, text), foreign=foreign)

    def _value(self, name: str) -> tuple[str, bool]:
        if self.expands == "shell" and (found := _SHELL.fullmatch(name)):
            default: str | None = found[2]
            if found[1] not in self.environment and default is not None:
                return default, False
            return self._variable(found[1]), True
        if self.expands == "editor":
            kind, _, rest = name.partition(":")
            match kind:
                case "env":
                    return self._variable(rest), True
                case "input":
                    return self._answer(rest), True
            if (value := self._place(name)) is not None:
                return value, False
        raise InputError(f"it uses `${{{name}}}`, which is not known here; write the value itself")

    def _variable(self, name: str) -> str:
        if name not in self.environment:
            raise InputError(f"it takes the variable {name} from the environment, and that is not set here; set it")
        return self.environment[name]

    def _answer(self, name: str) -> str:
        if name not in self.answers:
            raise InputError(f"its client asks you for `{name}`; run this at a terminal without --yes to be asked here")
        return self.answers[name]

    def _place(self, name: str) -> str | None:
        match name:
            case "userHome":
                return str(Path.home())
            case "pathSeparator" | "/":
                return os.sep
        if self.project is not None:
            match name:
                case "workspaceFolder":
                    return str(self.project)
                case "workspaceFolderBasename":
                    return self.project.name
        return None


def inputs_in(text: str) -> frozenset[str]:
    """Return the ids of what the client would ask the user for: `${input:ID}`."""
    found = (name.partition(":") for name in _VARIABLE.findall(text))
    return frozenset(rest for kind, _, rest in found if kind == "input" and rest)
