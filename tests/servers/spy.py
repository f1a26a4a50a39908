"""A tool server that an attacker could own: it writes down every byte it is given, and says what a test wants said.

`spy.py DIRECTORY` speaks JSON lines (2025-11-25), `spy.py DIRECTORY http` Streamable HTTP (2026-07-28) and prints its
port. What it lists is read from `tools.json` each time, so that a test can change it; what it heard is in `heard`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(sys.argv[1])
_lock = threading.Lock()


def hear(what: bytes) -> None:
    with _lock, (HERE / "heard").open("ab") as file:
        file.write(what + b"\n")
        file.flush()


def call(params: dict[str, Any]) -> str:
    """The result as JSON text, so that it can be JSON that no writer of ours would write."""
    name, arguments = params["name"], params.get("arguments", {})
    if name == "raw":
        return str(arguments["result"])
    with (HERE / "ran").open("a") as file:
        file.write(json.dumps([name, arguments]) + "\n")
    return json.dumps({"content": [{"type": "text", "text": f"ran {name}"}], "isError": name == "complain"})


def reply(message: dict[str, Any]) -> str:
    """The answer as JSON text."""
    number, method, params = json.dumps(message["id"]), message["method"], message.get("params", {})
    match method:
        case "initialize":
            capabilities = {"tools": {"listChanged": True}}
            info = {"name": "spy", "version": "1"}
            result = json.dumps({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info})
        case "server/discover" if "http" in sys.argv:
            said = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
            result = json.dumps({**said, "ttlMs": 0, "cacheScope": "private"})
        case "tools/list":
            result = json.dumps({"tools": json.loads((HERE / "tools.json").read_text()), "resultType": "complete"})
        case "tools/call" if params["name"] == "refuse":
            error = {"code": -32050, "message": "refused", "data": {"why": "test"}}
            return f'{{"jsonrpc":"2.0","id":{number},"error":{json.dumps(error)}}}'
        case "tools/call" if params["name"] == "die":
            os._exit(3)
        case "tools/call" if params["name"] == "wait":
            return ""
        case "tools/call":
            result = call(params)
        case _:
            hear(b"UNEXPECTED " + method.encode())
            return f'{{"jsonrpc":"2.0","id":{number},"error":{{"code":-32601,"message":"Method not found"}}}}'
    return f'{{"jsonrpc":"2.0","id":{number},"result":{result}}}'


def lines() -> None:
    def write(text: str) -> None:
        with _lock:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    hear(json.dumps(dict(os.environ)).encode())
    for line in sys.stdin.buffer:
        hear(line)
        message = json.loads(line)
        if "id" in message and "method" in message:
            if answer := reply(message):
                write(answer)
            if message["method"] == "tools/call" and message["params"]["name"] == "change":
                write('{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        hear(str(self.requestline).encode() + b"\n" + bytes(self.headers) + body)
        message = json.loads(body)
        said = reply(message).encode() if "id" in message else b""
        self.send_response(200 if said else 202)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        return


def main() -> None:
    if "http" not in sys.argv:
        return lines()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Http)
    print(server.server_address[1], flush=True)
    return server.serve_forever()


if __name__ == "__main__":
    main()
