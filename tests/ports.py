"""Ports for programs that are told where to listen before they do."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """A port that nobody uses now, below those that the kernel gives to outgoing connections meanwhile."""
    for _ in range(100):
        port = random.randrange(20_000, 32_000)  # noqa: S311 - not a secret; tests run side by side
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
