"""Notes that belong to people: a tool server that asks the gateway's context token who is served, and by whom.

Run: python -m examples.context.server --gateway URL [--http PORT] [--writer AGENT]...

Each person reads and writes their own notes and nobody else's, whichever agent acts for them. Writing takes more:
every agent in the chain must be a `--writer`. A call without a token, with somebody else's, or with a used one is
refused. The notes are in memory, by subject: this server learns no names, only that two calls are for the same person.
PORT 0 takes a free port; the port is printed on the first line.
"""

from __future__ import annotations

import argparse
import socket
from collections import defaultdict

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from mcp_authz.verify import CallContext, NotAuthorized, Verifier


class Notes:
    """The tools, over everybody's notes."""

    def __init__(self, verifier: Verifier, writers: frozenset[str]) -> None:
        self._verifier = verifier
        self._writers = writers
        self._notes: dict[str, list[str]] = defaultdict(list)

    async def list_notes(self, ctx: Context) -> list[str]:
        """List your notes."""
        context = await self._checked(ctx)
        return self._notes[context.subject]

    async def add_note(self, text: str, ctx: Context) -> str:
        """Add a note to yours."""
        context = await self._checked(ctx)
        if not context.actors or not self._writers.issuperset(context.actors):
            raise ToolError(f"{context.actor or 'nobody'} may not write notes")
        self._notes[context.subject].append(text)
        return f"{len(self._notes[context.subject])} notes"

    async def _checked(self, ctx: Context) -> CallContext:
        try:
            return await self._verifier.check_request(ctx)
        except NotAuthorized as error:
            raise ToolError(f"not authorized: {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description="tool server that authorises by actor and subject")
    parser.add_argument("--gateway", required=True, metavar="URL", help="the gateway's public_url")
    parser.add_argument("--http", type=int, metavar="PORT")
    parser.add_argument("--writer", action="append", default=[], metavar="AGENT")
    options = parser.parse_args()
    verifier = Verifier(options.gateway, audience="notes")
    notes = Notes(verifier, frozenset(f"agent:{name}" for name in options.writer))
    server = MCPServer("notes", version="1.0.0")
    server.add_tool(notes.list_notes)
    server.add_tool(notes.add_note)
    if options.http is None:
        return server.run("stdio")
    listener = socket.create_server(("127.0.0.1", options.http))
    print(listener.getsockname()[1], flush=True)
    web = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning"))
    return anyio.run(web.serve, [listener])


if __name__ == "__main__":
    main()
