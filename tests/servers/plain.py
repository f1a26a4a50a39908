"""A tool server on standard input and output, written without any SDK: it says exactly what a test wants said.

`plain.py` speaks 2025-11-25; `plain.py modern` answers `server/discover` and speaks 2026-07-28. With the word `book`
it has one resource; the newer server lets everybody keep it for a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any

MODERN = "modern" in sys.argv[1:]
CALLER_TOOLS = (
    "say",
    "fail",
    "received",
    "notify",
    "wait",
    "cancelled",
    "ask",
    "who",
    "spawn",
    "exit",
    "print",
    "huge",
)
TOOLS = [{"name": name, "inputSchema": {"type": "object"}, "x-unknown": {"kept": True}} for name in CALLER_TOOLS]
RESOURCES: dict[str, Any] = {"resources": {}} if "book" in sys.argv[1:] else {}
CAPABILITIES = {"tools": {"listChanged": True}, "logging": {}, **RESOURCES}
CACHEABLE = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"} if MODERN else {}

_output = threading.Lock()
_ids = count(1000)
_answers: dict[Any, Any] = {}
_answered = threading.Condition()
_cancelled: list[Any] = []
_cancellation = threading.Condition()
_waiting: dict[Any, Any] = {}


def write(message: dict[str, Any]) -> None:
    print_line(json.dumps(message, ensure_ascii=False))


def print_line(text: str) -> None:
    with _output:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def notify(method: str, params: dict[str, Any]) -> None:
    write({"jsonrpc": "2.0", "method": method, "params": params})


def ask(method: str, params: dict[str, Any]) -> Any:
    number = next(_ids)
    write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    with _answered:
        _answered.wait_for(lambda: number in _answers, timeout=20)
        return _answers[number]


def text(value: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": json.dumps(value)}], "structuredContent": {"value": value}}


def call(request: Any, params: dict[str, Any]) -> dict[str, Any] | None:  # noqa: PLR0912
    """Return the result of one tool, or None if there will be none."""
    arguments = params["arguments"]
    match params["name"]:
        case "say":
            result: dict[str, Any] = arguments["result"]
            return result
        case "received":
            return text(params)
        case "notify":
            for notification in arguments["notifications"]:
                said = dict(notification["params"])
                if notification["method"] == "notifications/progress":
                    said["progressToken"] = params["_meta"]["progressToken"]
                notify(notification["method"], said)
            return text("done")
        case "wait":
            _waiting[request] = arguments.get("tag")
            notify("notifications/progress", {"progressToken": params["_meta"]["progressToken"], "progress": 1})
            return None
        case "cancelled":
            with _cancellation:
                _cancellation.wait_for(lambda: bool(_cancelled), timeout=20)
                return text(_cancelled)
        case "ask":
            return text(ask(arguments["method"], arguments["params"]))
        case "who":
            who = {"env": dict(os.environ), "argv": sys.argv, "cwd": str(Path.cwd())}
            return text({**who, "pid": os.getpid(), "group": os.getpgrp(), "session": os.getsid(0)})
        case "spawn":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            return text(child.pid)
        case "exit":
            os._exit(arguments["code"])
        case "print":
            getattr(sys, arguments["to"]).write(arguments["text"] + "\n")
            getattr(sys, arguments["to"]).flush()
            return text("done") if arguments.get("answer", True) else None
        case "huge":
            return text("x" * arguments["bytes"])
    raise LookupError


def answer(message: dict[str, Any]) -> None:
    number, method, params = message["id"], message["method"], message.get("params", {})
    reply: dict[str, Any] | None = None
    if method == "initialize":
        info = {"name": "plain", "version": "1"}
        reply = {"result": {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": info}}
    elif method == "server/discover" and MODERN:
        capabilities = {"tools": {}, **RESOURCES}
        reply = {
            "result": {"supportedVersions": ["2026-07-28"], "capabilities": capabilities, "resultType": "complete"}
        }
        reply["result"] |= {"ttlMs": 0, "cacheScope": "private"}
    elif method == "tools/list":
        pages = {None: ("2", TOOLS[:5]), "2": (None, TOOLS[5:])}
        following, tools = pages[params.get("cursor")]
        reply = {"result": {"tools": tools} | ({"nextCursor": following} if following else {})}
    elif method == "resources/list" and RESOURCES:
        reply = {"result": {"resources": [{"uri": "book://one", "name": "one"}], **CACHEABLE}}
    elif method == "resources/read" and RESOURCES:
        reply = {"result": {"contents": [{"uri": params["uri"], "text": "Call me Ishmael."}], **CACHEABLE}}
    elif method == "tools/call" and params["name"] == "fail":
        reply = {"error": params["arguments"]["error"]}
    elif method == "tools/call":
        result = call(number, params)
        reply = {"result": result} if result is not None else None
    else:
        reply = {"error": {"code": -32601, "message": "Method not found"}}
    if reply is not None:
        write({"jsonrpc": "2.0", "id": number, **reply})


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "method" not in message:
            with _answered:
                _answers[message["id"]] = message.get("result", message.get("error"))
                _answered.notify_all()
        elif message["method"] == "notifications/cancelled":
            with _cancellation:
                _cancelled.append(_waiting.get(message["params"]["requestId"]))
                _cancellation.notify_all()
        elif "id" in message:
            threading.Thread(target=answer, args=(message,), daemon=True).start()


if __name__ == "__main__":
    main()
