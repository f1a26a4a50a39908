"""A tool server that starts at once: a process of its own, forked from one that has its imports behind it.

What the gateway starts is `HAND_OVER`. It gives its pipes, words and surroundings to the process that is loaded, whose
fork is the server; it ends as the server ends, and the server with it. So each test has a server that nobody used
before, on the pipes that the gateway made, and no import of the SDK to wait for.
"""

from __future__ import annotations

import array
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
import traceback
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
HAND_OVER = Path(__file__).parent / "hand_over.py"
WORDS = 64 * 1024  # bytes that words and surroundings of a command may have
LATE = ("anyio._backends._asyncio", "rich.logging")  # what a server would import as it starts to serve


def command(module: str, *words: str) -> list[str]:
    """What is started instead of `python -m module words`."""
    return [sys.executable, "-I", "-S", str(HAND_OVER), _loaded(module), *words]


@functools.cache
def _loaded(module: str) -> str:
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
            env={},
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    atexit.register(process.communicate)
    return str(path)


def _serve(module: str, listener: socket.socket) -> None:
    """Fork for each connection, until our standard input ends."""
    for name in (module, *LATE):
        import_module(name)
    gc.freeze()  # no collection of a fork has to look at it, and so to copy it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork but the one who asked for it
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return shutil.rmtree(Path(listener.getsockname()).parent)
        asked, _ = listener.accept()
        with asked:
            if os.fork() == 0:
                listener.close()
                os._exit(_become(module, asked))


def _become(module: str, asked: socket.socket) -> int:
    """Be the server of one connection; its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    said, pipes, _, _ = socket.recv_fds(asked, WORDS, 3)
    folder, surroundings, *sys.argv[1:] = json.loads(said)
    for ours, theirs in enumerate(pipes):
        os.dup2(theirs, ours)
        os.close(theirs)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(surroundings)
    threading.Thread(target=_end_with, args=(asked,), daemon=True).start()
    code: object = 0
    try:
        import_module(module).main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - it ends the process, as it would have
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    number = code if isinstance(code, int) else int(code is not None)
    asked.sendall(array.array("B", [number & 0xFF]).tobytes())
    return number


def _end_with(asked: socket.socket) -> None:
    """Die as soon as the process is gone whose pipes we have."""
    asked.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
