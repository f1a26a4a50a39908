"""A program that starts at once: a process of its own, forked from one that has its imports behind it.

What is started is `HAND_OVER`. It gives its pipes, words and surroundings to the process that is loaded, whose fork is
the program; it ends as the program ends, and the program with it. So each test has a tool server that nobody used
before, on the pipes that the gateway made, and no import of the SDK to wait for; and each command line likewise.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
HAND_OVER = Path(__file__).parent / "hand_over.py"
WORDS = 64 * 1024  # bytes that words and surroundings of a command may have
LATE = {  # what a program imports as it runs, and what is worth having loaded, too
    "tests.clients.conformance_client": ("anyio._backends._asyncio",),
    "tests.servers.bookshelf": ("anyio._backends._asyncio",),
    "examples.incident.server": ("anyio._backends._asyncio", "rich.logging"),
    "mcp_authz.cli.main": (
        "anyio._backends._asyncio",
        "mcp_authz.cli.doctor",
        "mcp_authz.cli.invocation",
        "mcp_authz.cli.output",
        "mcp_authz.cli.serve",
        "mcp_authz.cli.wrap",
        "mcp_authz.installation",
        "mcp_authz.settings",
    ),
}


def command(module: str, *words: str, surroundings: tuple[tuple[str, str], ...] = ()) -> list[str]:
    """What is started instead of `python -m module words`; `surroundings` are what Python reads before it runs."""
    return [sys.executable, "-I", "-S", str(HAND_OVER), _loaded(module, surroundings), *words]


@functools.cache
def _loaded(module: str, surroundings: tuple[tuple[str, str], ...]) -> str:
    """The socket of the process that has this module loaded; it ends with ours."""
    path = Path(tempfile.mkdtemp(prefix="loaded-")) / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.loaded", module, str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env=dict(surroundings),
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    atexit.register(process.communicate)
    return str(path)


def _serve(module: str, listener: socket.socket) -> int:
    """Fork for each connection, until our standard input ends; the exit code, of a fork too."""
    for name in (module, *LATE.get(module, ())):
        import_module(name)
    gc.collect()
    gc.freeze()  # else each fork looks through all that is loaded as it ends, which takes longer than most programs
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork but the one who asked for it
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            shutil.rmtree(Path(listener.getsockname()).parent)
            return 0
        asked, _ = listener.accept()
        with asked:
            if os.fork() == 0:
                listener.close()  # it is closed twice, which does nothing
                return _become(module, asked)


def _become(module: str, asked: socket.socket) -> int:
    """Be the process of one connection, until its interpreter ends as any does; its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    said, pipes, _, _ = socket.recv_fds(asked, WORDS, 3)
    folder, surroundings, *words = json.loads(said)
    program = import_module(module)
    sys.argv = [str(program.__file__), *words]
    for ours, theirs in enumerate(pipes):
        os.dup2(theirs, ours)
        os.close(theirs)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(surroundings)
    time.tzset()
    who = asked.detach()
    threading.Thread(target=_end_with, args=(who,), daemon=True).start()
    code = 1
    try:
        program.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    finally:
        os.write(who, bytes([code & 0xFF]))
    return code


def _end_with(who: int) -> None:
    """Die as soon as the process is gone whose pipes we have."""
    os.read(who, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[2])) as listening:
        sys.exit(_serve(sys.argv[1], listening))
