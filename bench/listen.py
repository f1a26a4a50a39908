"""One ASGI application on a free port, on uvloop and httptools, in one worker; its port is the first line it prints."""

from __future__ import annotations

import os
import socket
from typing import Any

import uvicorn


def listen(app: Any) -> None:
    """The application has served until it was told to stop."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", int(os.environ.get("PORT", "0"))))
        listening.listen(256)
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="error", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])
