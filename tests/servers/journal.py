"""A tool server that keeps a journal of its own of every call that reached it: `journal.py JOURNAL [STORE]`.

A line is on the disk before the call runs. It says which call it was (its argument `n`), and how far the log of the
gateway's store had come by then, read as anybody reads the file; -1 where it could not be read. The call then takes as
many milliseconds as its argument `for` says.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("look", "drop")]
_output = threading.Lock()


def say(number: Any, result: Any) -> None:
    with _output:
        print(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}), flush=True)


def head() -> int:
    """The number of the newest record."""
    try:
        with closing(sqlite3.connect(f"file:{sys.argv[2]}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT sequence FROM log_head").fetchone()[0])
    except (sqlite3.Error, IndexError):
        return -1


def call(number: Any, params: dict[str, Any]) -> None:
    arguments = params["arguments"]
    line = json.dumps({"tool": params["name"], "n": arguments["n"], "head": head()})
    journal = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(journal, f"{line}\n".encode())
    os.fsync(journal)
    os.close(journal)
    time.sleep(arguments.get("for", 0) / 1000)
    text = "x" * arguments.get("size", 0) or "ran"
    say(number, {"content": [{"type": "text", "text": text}]})


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                own = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
                say(message["id"], {**own, "serverInfo": {"name": Path(__file__).stem, "version": "1"}})
            case "tools/list":
                say(message["id"], {"tools": TOOLS})
            case "tools/call":
                threading.Thread(target=call, args=(message["id"], message["params"])).start()
            case _ if "id" in message:
                refused = {"code": -32601, "message": "no such method"}
                with _output:
                    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": refused}), flush=True)


if __name__ == "__main__":
    main()
