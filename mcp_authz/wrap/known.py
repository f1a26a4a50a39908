"""Clients that are known: where they keep their tool servers, and how to make them read the file again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One kind of LLM client."""

    name: str  # also of the agent that it becomes
    title: str
    expands: str  # which variables its file may use: `none`, `shell` (`${VAR:-default}`), `editor` (`${env:VAR}`)
    restart: str  # what a person does after its file has changed


CLAUDE_DESKTOP: Final = Client(
    name="claude-desktop", title="Claude Desktop", expands="none", restart="quit Claude Desktop and start it again"
)
CLAUDE_CODE: Final = Client(
    name="claude-code", title="Claude Code", expands="shell", restart="start a new session of Claude Code"
)
CURSOR: Final = Client(name="cursor", title="Cursor", expands="editor", restart="restart Cursor")
VSCODE: Final = Client(
    name="vscode", title="VS Code", expands="editor", restart="restart VS Code (or run `MCP: List Servers`)"
)
OTHER: Final = Client(name="client", title="an MCP client", expands="none", restart="restart your client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A file that is there, of a client that is known."""

    client: Client
    path: Path


def client_of(path: Path) -> Client:
    """Return whose file this is, judged by its name and folder."""
    match path.name, path.parent.name:
        case "claude_desktop_config.json", _:
            return CLAUDE_DESKTOP
        case ((".claude.json" | ".mcp.json"), _):
            return CLAUDE_CODE
        case "mcp.json", ".cursor":
            return CURSOR
        case "mcp.json", (".vscode" | "User"):
            return VSCODE
    return OTHER


def project_of(path: Path) -> Path | None:
    """Return the folder of the project that the file belongs to; None for a file of the whole user."""
    if path.parent in {Path.home(), Path.home() / ".cursor"}:
        return None
    if path.name == ".mcp.json":
        return path.parent
    if path.name == "mcp.json" and path.parent.name in {".cursor", ".vscode"}:
        return path.parent.parent
    return None


def files_here() -> tuple[Kept, ...]:
    """Return the files of known clients that this user has, in a stable order."""
    home = Path.home()
    support = home / "Library" / "Application Support" if sys.platform == "darwin" else home / ".config"
    places = (
        (CLAUDE_DESKTOP, support / "Claude" / "claude_desktop_config.json"),
        (CLAUDE_CODE, home / ".claude.json"),
        (CURSOR, home / ".cursor" / "mcp.json"),
        (VSCODE, support / "Code" / "User" / "mcp.json"),
        (VSCODE, support / "Code - Insiders" / "User" / "mcp.json"),
    )
    return tuple(Kept(client=client, path=path) for client, path in places if path.is_file())
