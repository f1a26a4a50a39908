"""Compare a preset with what the server really lists: for the maintainer who raises a version.

    python -m tool_adapters.presets.refresh git -- mcp-server-git --repository DIR

Prints one line a tool; a `changed` or `new` line carries the digest to put under `definitions` once the definition has
been read and the tool classified. The exit code is 0 when every listed tool is covered and none is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from mcp import Client, MCPError, StdioServerParameters
from mcp.types import INVALID_REQUEST, ErrorData, ListToolsRequest, PaginatedRequestParams
from pydantic import RootModel

from mcp_authz.errors import AuthzError, DownstreamError
from mcp_authz.rules.definition import definition_digest
from tool_adapters.presets import Preset, load_preset

START: Final = timedelta(seconds=60)  # a node server on a cold disk takes several seconds
PAGES: Final = 100  # a paginator that never ends must not hang the listing

Standing = Literal["match", "changed", "new", "missing"]


class Page(RootModel[dict[str, Any]]):
    """One page of `tools/list` as it came; the SDK's own models drop members that they do not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How one tool stands: listed with a known definition, with another one, not in the preset, or not listed."""

    tool: str
    standing: Standing
    digest: bytes | None  # of the listed definition; None when the tool is not listed


async def refuse(*_: object, **__: object) -> ErrorData:
    """Answer every question of a server with a refusal.

    Declared all the same: some servers list certain tools only to clients that can be asked.
    """
    return ErrorData(code=INVALID_REQUEST, message="nobody to ask")


async def list_definitions(server: StdioServerParameters) -> tuple[Mapping[str, Any], ...]:
    """Return every tool definition exactly as `server` lists it, all pages, every member kept.

    Raises:
        DownstreamError: the server pages without end.
        MCPError: it ended, or answered with an error.
        TimeoutError: it has not answered within `START`.
    """
    definitions: list[Mapping[str, Any]] = []
    cursor: str | None = None
    async with (
        asyncio.timeout(START.total_seconds()),
        Client(
            server,
            cache=None,
            elicitation_callback=refuse,
            sampling_callback=refuse,
            list_roots_callback=refuse,
        ) as client,
    ):
        for _ in range(PAGES):
            request = ListToolsRequest(params=PaginatedRequestParams(cursor=cursor))
            page = (await client.session.send_request(request, Page)).root
            definitions.extend(page["tools"])
            cursor = page.get("nextCursor")
            if cursor is None:
                return tuple(definitions)
    raise DownstreamError(f"server lists more than {PAGES} pages of tools")


def compare(preset: Preset, definitions: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """Yield a line for each listed tool in the server's order, then for each tool that only the preset knows."""
    for definition in definitions:
        name: str = definition["name"]
        yield Line(tool=name, standing=_standing(preset, definition), digest=definition_digest(definition))
    listed = {definition["name"] for definition in definitions}
    for name in preset.tools:
        if name not in listed:
            yield Line(tool=name, standing="missing", digest=None)


def _standing(preset: Preset, definition: Mapping[str, Any]) -> Standing:
    if definition["name"] not in preset.tools:
        return "new"
    return "changed" if preset.covering(definition) is None else "match"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tool_adapters.presets.refresh", description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("command", nargs="+", help="the server's command line, after --")
    options = parser.parse_args(arguments)
    server = StdioServerParameters(command=options.command[0], args=options.command[1:])
    try:
        preset = load_preset(options.preset)
        lines = list(compare(preset, asyncio.run(list_definitions(server))))
    except (AuthzError, MCPError, OSError) as error:  # TimeoutError is an OSError
        print(f"refresh: {error}", file=sys.stderr)
        return 2
    for line in lines:
        shown = line.digest.hex() if line.digest is not None and line.standing in ("changed", "new") else ""
        print(f"{line.standing:<8} {line.tool:<32} {shown}".rstrip())
    return 0 if all(line.standing == "match" for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
