"""An OpenID provider in a few lines that says whatever a test wants: what no honest provider would."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

SECRET = "a secret that gateway and provider share"


@dataclass
class Liar:
    """What it says; tests change it between sign-ins."""

    issuer: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)  # over those of an honest ID token; None takes one away
    userinfo: dict[str, Any] = field(default_factory=lambda: {"sub": "1001", "preferred_username": "alice"})
    header: dict[str, Any] = field(default_factory=lambda: {"alg": "ES256", "kid": "1"})
    key: Any = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "1"}))
    signs_with: Any = None  # another key than the one that it publishes
    id_token: str | None = None  # instead of one that is signed
    nonce: str = ""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    answer: bytes | None = None  # of the token endpoint, instead of a token

    def document(self) -> dict[str, Any]:
        told = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/me",
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }
        return {name: value for name, value in told.items() if value is not None}

    def token(self) -> str:
        now = int(time.time())
        honest = {
            "iss": self.issuer, "sub": "1001", "aud": "gateway", "exp": now + 60, "iat": now, "auth_time": now,
            "nonce": self.nonce, "preferred_username": "alice",
        }  # fmt: skip
        claims = {name: value for name, value in {**honest, **self.claims}.items() if value is not None}
        if self.header["alg"] == "none":
            parts = (json.dumps(part).encode() for part in (self.header, claims))
            return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])
        key = OctKey.import_key(SECRET) if self.header["alg"] == "HS256" else self.signs_with or self.key
        return jwt.encode(self.header, claims, key)

    def answers(self, path: str, body: bytes) -> bytes:
        if path.endswith("/openid-configuration"):
            return json.dumps(self.document()).encode()
        if path == "/jwks":
            return json.dumps({"keys": [self.key.as_dict(private=False)]}).encode()
        if path == "/me":
            return json.dumps(self.userinfo).encode()
        self.asked.append((path, parse_qs(body.decode())))
        if self.answer is not None:
            return self.answer
        told = {"access_token": "x", "token_type": "Bearer", "id_token": self.id_token or self.token()}
        return json.dumps({name: value for name, value in told.items() if value != "left out"}).encode()

    def comes_back(self, sent_to: str, **query: str | None) -> str:
        """The path at the gateway that it sends a browser to which came by this address."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(sent_to).query).items()}
        self.nonce = asked["nonce"]
        told = {"code": "the-code", "state": asked["state"], "iss": self.issuer, **query}
        return f"/sign-in/callback?{urlencode({name: value for name, value in told.items() if value is not None})}"


@contextmanager
def lying_provider() -> Iterator[Liar]:
    """It listens, and says what it is told to."""
    liar = Liar()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = liar.answers(self.path, self.rfile.read(int(self.headers.get("content-length", 0))))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    liar.issuer = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield liar
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
