"""What the gateway last answered about itself, kept for the times when it cannot be asked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mcp_authz.client.messages import Message, dump

LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
ANSWERED: Final = frozenset({"initialize", "server/discover", *LISTS})
"""What can be answered from memory."""

MODERN: Final = "2026-07-28"
HANDSHAKES: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
_SERVER_INFO: Final = {"name": "mcp-authz", "title": "mcp-authz gateway", "version": "0"}
_LARGEST: Final = 32 * 1024 * 1024  # bytes; a larger file is none of ours


class Known:
    """The last answers of one gateway to one agent; `path` is a file of our own, which need not be there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: dict[str, Mapping[str, Any]] = _read(path)

    def learn(self, message: Message, result: Mapping[str, Any]) -> None:
        """The gateway answered so; kept if it is a whole answer that the next start can use."""
        if message.params.get("cursor") is not None or result.get("nextCursor") is not None:
            return
        kept = dict(result)
        if (member := LISTS.get(message.method or "")) is not None:
            kept = {member: result.get(member)} if isinstance(result.get(member), list) else {}
        if kept and message.method is not None and self._answers.get(message.method) != kept:
            self._answers[message.method] = kept
            _write(self._path, self._answers)

    def listed(self, method: str) -> Any:
        """The items of a list as they were last seen; None when they never were."""
        return self._answers.get(method, {}).get(LISTS[method])

    def answer(self, message: Message, trouble: str) -> dict[str, Any] | None:
        """The result to answer with, or None when there is none; `trouble` says why the gateway does not itself."""
        method = message.method or ""
        known = self._answers.get(method)
        if method in LISTS:
            if known is None and method != "tools/list":
                return None
            listed: dict[str, Any] = {LISTS[method]: [], **(known or {})}
            return _cacheable(listed) if message.is_modern else listed
        told = {**(known or {}), "instructions": _instructions(known, trouble)}
        if method == "initialize":
            asked = message.params.get("protocolVersion")
            told = {"serverInfo": _SERVER_INFO, "capabilities": {"tools": {"listChanged": True}}, **told}
            return {**told, "protocolVersion": asked if asked in HANDSHAKES else HANDSHAKES[-1]}
        told = {"supportedVersions": [MODERN], "capabilities": {"tools": {"listChanged": True}}, **told}
        return {**_cacheable(told), "serverInfo": told.get("serverInfo", _SERVER_INFO)}


def file_name(*parts: str | None) -> str:
    """The name of the file for a gateway, an agent and a person."""
    return f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.json"


def _instructions(known: Mapping[str, Any] | None, trouble: str) -> str:
    before = known.get("instructions") if known is not None else None
    return f"{before} {trouble}".strip() if isinstance(before, str) else trouble


def _cacheable(result: Mapping[str, Any]) -> dict[str, Any]:
    """As 2026-07-28 has it; nobody keeps what may be out of date already."""
    return {"resultType": "complete", **result, "ttlMs": 0, "cacheScope": "private"}


def _read(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        kept = json.loads(raw) if len(raw) <= _LARGEST else {}
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {method: answer for method, answer in kept.items() if method in ANSWERED and isinstance(answer, dict)}


def _write(path: Path, answers: Mapping[str, Any]) -> None:
    """The file has these answers, or the ones it had; a disk that is full is no reason to stop."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(dump(answers))
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
