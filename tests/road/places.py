"""Tool servers for the road's tests: what stands behind the gateway, and how the operator classified it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.world import LEGACY, MODERN

SERVERS = Path(__file__).parent.parent / "servers"
BOTH = pytest.mark.parametrize("mode", [MODERN, LEGACY])

READ = {"*": {"hazard": "read", "scopes": ["use"]}}
DESTRUCTIVE = {"*": {"hazard": "destructive", "scopes": ["use"]}}


def plain(*words: str, tools: Any = READ, **more: Any) -> dict[str, Any]:
    """The server that says exactly what it is told to, over stdio; `modern` speaks 2026-07-28."""
    return {"command": [sys.executable, str(SERVERS / "plain.py"), *words], "cwd": str(SERVERS), "tools": tools, **more}


def at(url: str, *, tools: Any = READ, **more: Any) -> dict[str, Any]:
    """A server over Streamable HTTP."""
    return {"url": url, "tools": tools, **more}


def asking(file: Path, *, tools: Any = READ, **more: Any) -> dict[str, Any]:
    """The server that asks by its result; `file` has a line for each call that blocks."""
    command = [sys.executable, str(Path(__file__).parent / "asking.py"), str(file)]
    return {"command": command, "cwd": str(SERVERS), "tools": tools, **more}
