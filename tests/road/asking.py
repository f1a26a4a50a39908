"""A tool server on standard input and output that asks by its result, in the manner of 2026-07-28, without any SDK.

`ask` answers `input_required` with the questions and the state that its arguments name, as often as `rounds` says, and
then with the parameters that the last call came with. `block` writes a line to the file named on the command line and
never answers. `raw` answers with bytes that a test wants answered. `change` says that the tools changed; what they are
stands in the file with `.tools` behind its name, if there is one.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("ask", "block", "raw", "change")]
MODERN = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}
RAW = {
    "nan": '{"content":[],"structuredContent":{"n":NaN}}',
    "big": '{"content":[],"structuredContent":{"n":1180591620717411303424}}',
    "text": '"no object"',
}
_output = threading.Lock()


def say(number: Any, member: str, text: str) -> None:
    with _output:
        sys.stdout.write(f'{{"jsonrpc":"2.0","id":{json.dumps(number)},"{member}":{text}}}\n')
        sys.stdout.flush()


def tools() -> Any:
    written = Path(f"{sys.argv[1]}.tools")
    return json.loads(written.read_text()) if written.exists() else TOOLS


def call(number: Any, params: dict[str, Any]) -> None:
    arguments = params["arguments"]
    match params["name"]:
        case "ask":
            before = json.loads(params.get("requestState") or '{"round": 0}')
            if before["round"] < arguments.get("rounds", 1):
                state = {**before, "round": before["round"] + 1, "secret": "of the tool server"}
                if context := params["_meta"].get("dev.mcp-authz/context"):
                    state["contexts"] = [*before.get("contexts", []), context]
                asked = {"resultType": "input_required", "requestState": json.dumps(state), **arguments["asked"]}
                say(number, "result", json.dumps(asked))
            else:
                said = {"resultType": "complete", "content": [], "structuredContent": {"received": params}}
                say(number, "result", json.dumps(said))
        case "block":
            with Path(sys.argv[1]).open("a") as file:
                file.write(json.dumps(arguments) + "\n")
        case "change":
            with _output:
                sys.stdout.write('{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n')
            say(number, "result", '{"resultType":"complete","content":[]}')
        case "raw":
            say(number, "result", RAW[arguments["kind"]])


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "server/discover":
                say(message["id"], "result", json.dumps({**MODERN, "resultType": "complete"}))
            case "tools/list":
                listed = {"resultType": "complete", "tools": tools(), "ttlMs": 0, "cacheScope": "private"}
                say(message["id"], "result", json.dumps(listed))
            case "tools/call":
                call(message["id"], message["params"])
            case _ if "id" in message and "method" in message:
                say(message["id"], "error", '{"code":-32601,"message":"Method not found"}')


if __name__ == "__main__":
    main()
