"""An MCP server and authorization servers that do what a test says, in one process, each on its own origin."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Said = tuple[int, dict[str, str], Any]  # status, headers, JSON


@dataclass
class Strange:
    """A server: what it was asked, and what it answers."""

    origin: str
    answer: Callable[[str, dict[str, str], dict[str, str]], Said]  # path, headers, form
    heard: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)

    def forms(self, path: str) -> list[dict[str, str]]:
        """What was sent there."""
        return [form for asked, _, form in self.heard if asked == path]


@contextmanager
def serving(answer: Callable[[str, dict[str, str], dict[str, str]], Said] | None = None) -> Iterator[Strange]:
    """A server on a free port; the answers may be set later."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            form = dict(parse_qsl(raw)) if "form" in headers.get("content-type", "") else {"raw": raw}
            path = urlsplit(self.path).path
            here.heard.append((path, headers, form))
            status, lines, body = here.answer(path, headers, form)
            text = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **lines, "content-length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    here = Strange(f"http://127.0.0.1:{server.server_port}", answer or (lambda *_: (404, {}, {})))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@dataclass
class Issuing:
    """An authorization server that gives what it is asked for; each refresh token counts once."""

    server: Strange
    issued: int = 0
    refresh: str = ""
    error: Said | None = None  # what the token endpoint answers instead
    scope: str | None = None  # what it gives, whatever was asked
    metadata: dict[str, Any] = field(default_factory=dict)

    def __call__(self, path: str, _: dict[str, str], form: dict[str, str]) -> Said:
        origin = self.server.origin
        if path.startswith("/.well-known/oauth-authorization-server"):
            named = {
                "issuer": origin,
                "authorization_endpoint": f"{origin}/authorize",
                "token_endpoint": f"{origin}/token",
            }
            more = {"code_challenge_methods_supported": ["S256"], "registration_endpoint": f"{origin}/register"}
            return 200, {}, {**named, **more, **self.metadata}
        if path == "/register":
            return 201, {}, {"client_id": f"client-of-{origin}", "client_secret": f"secret-of-{origin}"}
        if path != "/token":
            return 404, {}, {}
        if self.error is not None:
            return self.error
        if form.get("grant_type") == "refresh_token" and form["refresh_token"] != self.refresh:
            return 400, {}, {"error": "invalid_grant"}
        self.issued += 1
        self.refresh = f"refresh-{self.issued}-of-{origin}"
        given = {"access_token": f"access-{self.issued}-of-{origin}", "token_type": "Bearer", "expires_in": 600}
        return 200, {}, {**given, "refresh_token": self.refresh, **({"scope": self.scope} if self.scope else {})}


@contextmanager
def issuing() -> Iterator[Issuing]:
    """An authorization server."""
    with serving() as server:
        server.answer = one = Issuing(server)
        yield one


@dataclass
class Tools:
    """An MCP server that takes tokens of one authorization server, and names it."""

    server: Strange
    issuer: str
    scope: str = "first"
    needs: str | None = None  # a scope that no token has
    takes: Callable[[str], bool] = lambda token: True

    @property
    def url(self) -> str:
        return f"{self.server.origin}/mcp"

    def __call__(self, path: str, headers: dict[str, str], _: dict[str, str]) -> Said:
        if path == "/.well-known/oauth-protected-resource/mcp":
            return 200, {}, {"resource": self.url, "authorization_servers": [self.issuer]}
        if path != "/mcp":
            return 404, {}, {}
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if not token.endswith(f"of-{self.issuer}") or not self.takes(token):
            return 401, {"www-authenticate": f'Bearer scope="{self.scope}"'}, {}
        if self.needs is not None:
            return 403, {"www-authenticate": f'Bearer error="insufficient_scope", scope="{self.needs}"'}, {}
        return 200, {}, {"jsonrpc": "2.0", "id": 1, "result": {}}


@contextmanager
def tools(issuer: str) -> Iterator[Tools]:
    """An MCP server."""
    with serving() as server:
        server.answer = one = Tools(server, issuer)
        yield one


@dataclass
class Obliging:
    """A person who agrees at once; `changes` are made to what the authorization server would say."""

    changes: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    uri: str = "http://127.0.0.1:9/callback"

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[Obliging]:
        """An answer is waited for while the body runs."""
        async with AsyncExitStack():
            yield self

    async def answer(self, url: str, state: str) -> str:
        """Return the URL that the person was sent back to."""
        self.asked.append(dict(parse_qsl(urlsplit(url).query)))
        said = {"code": "the-code", "state": state, **self.changes}
        return f"{self.uri}?{'&'.join(f'{name}={value}' for name, value in said.items() if value)}"
