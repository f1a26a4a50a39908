"""Whoever takes values of arguments out of the store, for others to read, is on record before they have them."""

from __future__ import annotations

from mcp_authz.cli.invocation import operator
from mcp_authz.installation import Installation
from mcp_authz.store.ports import Event


async def record_taking(here: Installation, what: str, of: str) -> None:
    """The record is there: this operator took `what` of a call or a hold, with its arguments."""
    fields = {"summary": f"{operator()} took {what} of {of}, with its arguments", "by": operator(), "taken": what}
    await here.store.append(Event(kind="administration", at=here.clock(), fields=fields))
