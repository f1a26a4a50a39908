"""What tests of tool servers start from: servers as processes, admitted calls, and a caller who keeps what it hears."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from mcp_authz.errors import DownstreamRefusal
from mcp_authz.model import Admitted, Classification, Hazard, Permit, Tool, ToolCall, ToolName

SERVERS = Path(__file__).parent
PLAIN = (sys.executable, str(SERVERS / "plain.py"))
SOON = 20.0  # seconds; every wait of these tests is bounded by it


def admitted(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    schema: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Admitted:
    """Return a call of the tool `name` of a server `tools`, admitted."""
    tool = Tool(
        name=ToolName(f"tools__{name}"),
        server="tools",
        tool=name,
        environment="test",
        definition={"name": name, "inputSchema": dict(schema or {"type": "object"})},
        digest=b"",
        classification=Classification(action="test", hazard=Hazard.READ, scopes=()),
    )
    return Admitted(
        call_id="call",
        call=ToolCall(tool=tool, arguments=dict(arguments or {})),
        permit=Permit(call_digest=b"", approval=None, because=()),
        at=datetime.now(UTC),
        meta=dict(meta or {}),
        extra=dict(extra or {}),
    )


class Caller:
    """A relay to a caller who keeps what it hears, and answers questions with `answer` or not at all."""

    def __init__(self, answer: Mapping[str, Any] | None = None) -> None:
        self.heard: list[tuple[str, Mapping[str, Any]]] = []
        self.questions: list[tuple[str, Mapping[str, Any]]] = []
        self.something = anyio.Event()
        self._answer = answer

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        self.heard.append((method, params))
        self.something.set()

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        self.questions.append((method, params))
        self.something.set()
        if self._answer is None:
            raise DownstreamRefusal(-32601, "not allowed here", {"why": "test"})
        return self._answer


class Changes:
    """Counts the times that a server's tools changed, and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.count = 0
        self._next = anyio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._next.set()
        self._next = anyio.Event()

    async def beyond(self, count: int) -> None:
        """Return once there were more than `count`."""
        with anyio.fail_after(SOON):
            while self.count <= count:
                await self._next.wait()


@contextmanager
def web(*words: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Run `web.py`; the body gets its URL without path, and what kills it."""
    with subprocess.Popen([sys.executable, str(SERVERS / "web.py"), *words], stdout=subprocess.PIPE) as process:

        def kill() -> None:
            process.kill()
            process.wait()

        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}", kill
        finally:
            kill()
