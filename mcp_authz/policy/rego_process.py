"""The child process that evaluates Rego: started when needed, asked one thing at a time, ended when it is late."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import libc_ver, machine, system
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import ConfigError, PolicyError

_PROGRAM: Final = Path(__file__).with_name("rego_child.py")
_READ: Final = 1 << 16
_GLIBC: Final = (2, 34)
_LOOK: Final = 0.05  # seconds between two looks at the memory of a child that takes its time


class LibraryRefusal(PolicyError):
    """What the library says of modules that it does not compile, in its own words."""


def library_version() -> str:
    """Return the version of the installed library.

    Raises:
        ConfigError: there is none; it says how to get one, or that this machine can have none.
    """
    try:
        return version("regopy")
    except PackageNotFoundError:
        pass
    if _has_a_wheel():
        raise ConfigError("Rego needs the extra `rego`; run `pip install 'mcp-authz[rego]'`")
    raise ConfigError(
        "Rego in process needs Linux on x86_64 with glibc 2.34 or later; "
        'use Cedar here, or OPA: `policy = "opa+http://localhost:8181/v1/data/agent/authz"`'
    )


def _has_a_wheel() -> bool:
    libc, release = libc_ver()
    numbers = tuple(int(part) for part in release.split(".")[:2] if part.isdigit())
    return (system(), machine(), libc) == ("Linux", "x86_64", "glibc") and numbers >= _GLIBC


class RegoProcess:
    """One plan in one child process at a time; whoever asks may be any thread."""

    def __init__(self, plan: str) -> None:
        """The process for this plan; nothing is started yet."""
        self._plan = plan
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._end_child: Callable[[], object] = _nothing

    def ask(self, document: Any) -> str | None:
        """Return what the policy answers to the document, as the library writes it; None: it came to no answer.

        Raises:
            PolicyError: the child ended, was not done in time, or cannot read the document.
        """
        question = _line({"do": "ask", "document": document})
        with self._turn:
            child = self._started()
            try:
                answer = _exchange(child, question, limits.REGO_SECONDS)
            except PolicyError:
                self._child = None
                self._end_child()
                raise
        if "error" in answer:
            raise PolicyError("the policy could not be evaluated")  # what the library says may quote arguments
        text = answer["ok"]
        return text if isinstance(text, str) else None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            child = _start()
            end = weakref.finalize(self, _end, child)
            with tempfile.TemporaryDirectory(prefix="mcp-authz-rego-") as directory:
                Path(directory, "plan.json").write_text(self._plan, "utf-8")
                Path(directory, "data.json").write_text("{}", "utf-8")
                try:
                    _expect(child, {"do": "load", "directory": directory})
                except PolicyError:
                    end()
                    raise
            self._child, self._end_child = child, end
        return self._child


def _nothing() -> None:
    """No child is there to be ended."""


Compile = Callable[[Mapping[str, str], str], str]
"""Modules, and the query that is put to them, to the plan that answers it, as JSON text; raises PolicyError."""


@contextmanager
def compiler() -> Iterator[Compile]:
    """A child that compiles; what the library says of a module that it refuses is the message of the error."""
    child = _start()
    try:
        with tempfile.TemporaryDirectory(prefix="mcp-authz-rego-") as directory:
            plan = Path(directory, "plan")

            def compile_(sources: Mapping[str, str], query: str) -> str:
                _expect(child, {"do": "compile", "sources": dict(sources), "query": query, "directory": str(plan)})
                return (plan / "plan.json").read_text("utf-8")

            yield compile_
    finally:
        _end(child)


def _start() -> subprocess.Popen[bytes]:
    """Return a child that is waiting: isolated, with an empty environment, in a session of its own (Ctrl-C is ours)."""
    child = subprocess.Popen(
        [sys.executable, "-I", str(_PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        start_new_session=True,
        bufsize=0,
    )
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None  # noqa: S101 - both are pipes, as said above
        os.set_blocking(pipe.fileno(), False)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    child.wait()


def _expect(child: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
    answer = _exchange(child, _line(request), limits.REGO_LOAD_SECONDS)
    if "error" in answer:
        raise LibraryRefusal(str(answer["error"]))


def _line(request: Mapping[str, Any]) -> bytes:
    return json.dumps(request).encode() + b"\n"


def _exchange(child: subprocess.Popen[bytes], question: bytes, seconds: float) -> Mapping[str, Any]:
    """Return the one line that answers the question.

    Raises:
        PolicyError: there is none in time, or never.
    """
    assert child.stdin is not None and child.stdout is not None  # noqa: S101 - both are pipes
    written, read = child.stdin.fileno(), child.stdout.fileno()
    until = time.monotonic() + seconds
    left, answer = memoryview(question), bytearray()
    waiting = select.poll()
    waiting.register(read, select.POLLIN)
    waiting.register(written, select.POLLOUT)
    try:
        while not answer.endswith(b"\n"):
            events = waiting.poll(_LOOK * 1000)
            if not events:
                _require_within_bounds(child, until, seconds)
            for pipe, _ in events:
                if pipe == read:
                    answer += _some(read)
                elif not (left := left[os.write(written, left) :]):
                    waiting.unregister(written)
    except OSError:
        raise PolicyError("the process that evaluates the policy ended") from None
    parsed: Mapping[str, Any] = json.loads(answer)
    return parsed


def _require_within_bounds(child: subprocess.Popen[bytes], until: float, seconds: float) -> None:
    if time.monotonic() > until:
        raise PolicyError(f"the policy was not evaluated within {seconds:g} s")
    # No limit of the system serves: the library reserves address space without end when it starts.
    pages = int(Path(f"/proc/{child.pid}/statm").read_text("ascii").split()[1])
    if pages * resource.getpagesize() > limits.REGO_BYTES:
        raise PolicyError("the policy takes more memory than it may")


def _some(pipe: int) -> bytes:
    """Return what has come; nothing is the end."""
    data = os.read(pipe, _READ)
    if not data:
        raise BrokenPipeError
    return data
