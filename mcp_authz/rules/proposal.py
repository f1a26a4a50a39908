"""Which class a tool is proposed to have, and why: the operator classifies, this only says what is known beforehand.

A preset speaks first, because somebody has read the definition that it knows. What a server says of its own tool
(annotations) can be believed or not; where it contradicts itself, the more careful reading counts. Of the rest nothing
is known, and it is destructive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

from mcp_authz.model import Hazard

By = Literal["configuration", "preset", "annotations", "warning", "nobody"]

_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
# What a tool is called that does more than read; only looked at when its server says that it only reads.
_CHANGES: Final = frozenset(
    {
        "add",
        "append",
        "apply",
        "cancel",
        "change",
        "clear",
        "close",
        "commit",
        "copy",
        "create",
        "delete",
        "deploy",
        "destroy",
        "drop",
        "edit",
        "erase",
        "exec",
        "execute",
        "insert",
        "install",
        "kill",
        "merge",
        "modify",
        "move",
        "overwrite",
        "patch",
        "post",
        "publish",
        "purge",
        "push",
        "put",
        "remove",
        "rename",
        "replace",
        "reset",
        "restart",
        "revoke",
        "run",
        "send",
        "set",
        "stop",
        "submit",
        "truncate",
        "uninstall",
        "update",
        "upload",
        "write",
    }
)
_RUNNERS: Final = frozenset({"npx", "bunx", "pnpx", "pnpm", "npm", "uvx", "uv", "pipx"})
_RUN: Final = frozenset({"run", "exec", "dlx", "tool"})  # subcommands of those
_FROM: Final = frozenset({"--from", "-p", "--package", "--spec"})  # the package, where the program is called otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One tool with the class that is proposed for it."""

    tool: str  # as its server calls it
    hazard: Hazard
    by: By  # what the proposal rests on
    why: str
    warnings: tuple[str, ...] = ()


def propose(
    definition: Mapping[str, Any],
    *,
    preset: tuple[str, Hazard] | None = None,
    warnings: Sequence[str] = (),
    believe: bool = True,
) -> Proposal:
    """Return what to take the tool for that is listed as `definition`.

    `preset` is a preset that knows exactly this definition, with the class it gives; `warnings` say what is suspicious
    about the definition; `believe` is whether the server's own word counts: not where nobody looks at the proposal.
    """
    tool, told = str(definition["name"]), tuple(warnings)
    if preset is not None:
        name, hazard = preset
        return Proposal(tool=tool, hazard=hazard, by="preset", why=f"preset {name}", warnings=told)
    if told:
        return Proposal(tool=tool, hazard=Hazard.DESTRUCTIVE, by="warning", why="see the warning", warnings=told)
    hazard, why = _said(tool, definition.get("annotations"))
    if hazard is Hazard.DESTRUCTIVE:
        return Proposal(tool=tool, hazard=hazard, by="nobody", why=why)
    if not believe:
        return Proposal(tool=tool, hazard=Hazard.DESTRUCTIVE, by="nobody", why=f"only its server says: {hazard.value}")
    return Proposal(tool=tool, hazard=hazard, by="annotations", why=why)


def _said(tool: str, annotations: object) -> tuple[Hazard, str]:
    """What the server says of its tool, read carefully: a class below destructive needs a plain word for it."""
    hints = annotations if isinstance(annotations, Mapping) else {}
    reads, destroys, outside = (hints.get(name) for name in ("readOnlyHint", "destructiveHint", "openWorldHint"))
    if reads is True and destroys is True:
        return Hazard.DESTRUCTIVE, "its server says both: only reads, and destroys"
    if reads is True:
        changes = sorted(_CHANGES & {word.lower() for word in _WORD.findall(tool)})
        if changes:
            return Hazard.DESTRUCTIVE, f"its server says it only reads, its name says `{changes[0]}`"
        if outside is True:  # what is sent to read something in the open world can carry anything out
            return Hazard.WRITE, "its server says it reads from the open world"
        return Hazard.READ, "its server says it only reads"
    if destroys is False:
        return Hazard.WRITE, "its server says it writes and destroys nothing"
    if destroys is True:
        return Hazard.DESTRUCTIVE, "its server says it destroys"
    return Hazard.DESTRUCTIVE, "nobody says what it does"


def names_package(command: Sequence[str], package: str) -> bool:
    """Whether a command runs this published package: by its program, a package runner, as a module or from its folder.

    `/usr/bin/mcp-server-x`, `npx -y @scope/server-x@1.2`, `uvx mcp-server-x`, `python -m mcp_server_x` and
    `node .../node_modules/@scope/server-x/dist/index.js` do. Other arguments say nothing: anybody can write them.
    """
    if not command:
        return False
    program, arguments = command[0].rpartition("/")[2], command[1:]
    if program in _programs(package) or f"/node_modules/{package}/" in command[0]:
        return True
    if program in _RUNNERS:
        named = _value_of(_FROM, arguments) or _first(arguments, _RUN)
        return re.fullmatch(rf"{re.escape(package)}(?:\[\w,]*\])?(?:(?:@|==|>=|~=)[\w.^~*+-]+)?", named) is not None
    if program.startswith("python"):
        return not package.startswith("@") and _value_of({"-m"}, arguments) == package.replace("-", "_")
    return program in {"node", "bun"} and f"/node_modules/{package}/" in _first(arguments, frozenset())


def _programs(package: str) -> frozenset[str]:
    """What a package's program is called: like the package, or for `@scope/server-x` as its makers do."""
    scope, _, bare = package.rpartition("/")
    return frozenset({f"mcp-{bare}"} if scope and bare.startswith("server-") else {bare})


def _value_of(flags: Set[str], arguments: Sequence[str]) -> str:
    return next((value for flag, value in pairwise(arguments) if flag in flags), "")


def _first(arguments: Sequence[str], skipped: Set[str]) -> str:
    return next((word for word in arguments if not word.startswith("-") and word not in skipped), "")
