"""A plain HTTP server that remembers what it was sent, for tests of what must not go there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Elsewhere:
    """A server, where it is, and the headers of each request it got."""

    url: str
    heard: list[dict[str, str]] = field(default_factory=list)
    redirect: str | None = None  # where it sends everybody


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """A server on a free port that answers everything with 200, or with a redirect."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            here.heard.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200 if here.redirect is None else 307)
            if here.redirect is not None:
                self.send_header("location", here.redirect)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    here = Elsewhere(url=f"http://localhost:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
