"""The process in which Rego is evaluated, and the only door to regopy.

It runs as a program of its own, without the gateway's environment, because the library can crash, has no limit of time,
and shows a policy the environment of its process. One JSON object per line comes in, one goes out. Nothing of ours is
imported, so that it starts fast and alone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any, BinaryIO

import regopy

_DEPTH = 4000  # Python frames: how deep an input may be nested


def _quiet(*, strict: bool = False) -> regopy.Interpreter:
    interpreter = regopy.Interpreter()
    interpreter.log_level = regopy.LogLevel.NONE
    interpreter.strict_built_in_errors = strict  # an error of a builtin is an error, and not merely undefined
    return interpreter


class _Policy:
    """The bundle that questions are put to."""

    bundle: regopy.Bundle | None = None
    loader: regopy.Interpreter  # kept as long as the bundle

    def compile(self, *, sources: dict[str, str], query: str, directory: str) -> None:
        """Leave the plan of these modules, by their names, in the directory; whatever was in it is gone."""
        interpreter = _quiet()
        for name, text in sources.items():
            interpreter.add_module(name, text)
        bundle = interpreter.build(query)
        if not bundle.ok():
            raise regopy.RegoError("cannot be compiled")
        interpreter.save_bundle(directory, bundle)

    def load(self, *, directory: str) -> None:
        """Take the plan in the directory as what is asked from now on."""
        self.loader = _quiet(strict=True)
        self.bundle = self.loader.load_bundle(directory)

    def ask(self, *, document: Any) -> str | None:
        """Return the answer as the library writes it; None: it came to none."""
        if self.bundle is None:
            raise regopy.RegoError("nothing is loaded")
        interpreter = _quiet(strict=True)
        interpreter.set_input(regopy.Input(document))
        output = interpreter.query_bundle(self.bundle)
        return str(output) if output.ok() else None


def _answered(policy: _Policy, line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
        return {"ok": getattr(policy, request.pop("do"))(**request)}
    except (regopy.RegoError, ValueError, RecursionError, MemoryError) as error:
        return {"error": str(error)[:4000]}


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    policy = _Policy()
    for line in questions:
        answers.write(json.dumps(_answered(policy, line)).encode() + b"\n")
        answers.flush()


def main() -> None:
    """Answer until the other side is gone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(_DEPTH)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever the library prints is no answer
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
