"""Things by the names that people have for them, where the store has them under others: a tool, a client, a subject."""

from __future__ import annotations

import difflib
from typing import Final

from mcp_authz.errors import NotFound
from mcp_authz.rules.classify import tool_name
from mcp_authz.store.ports import Pin, Store

_CLIENT: Final = "client:"


async def pin_called(store: Store, name: str) -> Pin:
    """The pin of the tool that the gateway calls so.

    Raises:
        NotFound: there is none.
    """
    pins = {tool_name(pin.server, pin.tool, pin.digest): pin for pin in await store.pins()}
    for known, pin in pins.items():
        if known == name:
            return pin
    near = difflib.get_close_matches(name, pins, n=1)
    meant = f"did you mean `{near[0]}`?" if near else "`mcp-authz tools list` has them all"
    raise NotFound(f"there is no tool `{name}`; {meant}")


async def client_called(store: Store, name: str) -> str:
    """The id of the client that has this handle; what is no handle is returned as it is."""
    return {client.handle: str(client.id) for client in await store.clients()}.get(name, name)


async def subject_called(store: Store, subject: str) -> str:
    """`user:NAME`, `agent:NAME` or `client:ID`, where a client may be named by its handle."""
    if not subject.startswith(_CLIENT):
        return subject
    return _CLIENT + await client_called(store, subject.removeprefix(_CLIENT))
