"""What commands do with `--at URL`: the same as here, at a gateway elsewhere, as far as the person's roles reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final

from mcp_authz.cli.elsewhere import elsewhere
from mcp_authz.cli.output import local, note, print_json, say, table
from mcp_authz.cli.states import shown_words
from mcp_authz.client.administering import Elsewhere, segment
from mcp_authz.rules.display import visible

_PAGE: Final = 500  # what one answer has at most
_PAGES: Final = 50  # answers that are asked for
_FRESH: Final = 2.0  # seconds between two looks at the log there


async def listed(url: str, what: str, show: Callable[[list[dict[str, Any]]], None]) -> None:
    """Everything of a list there, such as `agents`, is shown."""
    async with elsewhere(url) as there:
        show([it async for it in _each(there, what, "after")])


async def one(url: str, what: str, name: str, show: Callable[[dict[str, Any]], None]) -> None:
    """One thing of a list there is shown."""
    async with elsewhere(url) as there:
        show(await there.read(f"/{what}/{segment(name)}"))


async def sessions(url: str, *, json: bool) -> None:
    """The sessions that may be looked at are printed, oldest first; their ids whole, as they are asked for there."""
    async with elsewhere(url) as there:
        are_open = [{**it, "open": True} async for it in _each(there, "sessions", "before", state="open")]
        over = [{**it, "open": False} async for it in _each(there, "sessions", "before", state="over")]
        found = sorted([*are_open, *over], key=lambda it: it["started_at"])
        if json:
            print_json(found)
            return
        table(
            ("SESSION", "STATE", "AGENT", "FOR", "PURPOSE", "UNTIL"),
            (
                (
                    it["id"],
                    "open" if it["open"] else "revoked" if it["status"] == "revoked" else "over",
                    it["agent"],
                    it["subject"] or "itself",
                    it["purpose"],
                    _local(it["expires_at"]),
                )
                for it in found
            ),
            empty="no sessions are there that you may look at",
        )


async def _each(there: Elsewhere, what: str, behind: str, **query: str) -> AsyncIterator[dict[str, Any]]:
    """Everything of a list that comes a page at a time."""
    at: str | None = None
    for _ in range(_PAGES):
        told = await there.read(f"/{what}", **query, **{behind: at}, limit=_PAGE)
        for it in told[what]:
            yield it
        if (at := told["next"]) is None:
            return
    note(f"there are more {what} than these")


async def session(url: str, id_: str, *, json: bool) -> None:
    """One session and its links are printed, parents first."""
    async with elsewhere(url) as there:
        found = await there.read(f"/sessions/{segment(id_)}")
        if json:
            print_json(found)
            return
        say(visible(f"session {found['id']}: {found['status']}"))
        say(visible(f"purpose: {found['purpose']}"))
        whom = found["subject"] or "itself"
        say(visible(f"{found['agent']} works for {whom} until {_local(found['expires_at'])}"))
        for link in found["links"]:
            above = "  " * (min(int(link["depth"]), 32) + 1)
            told = f"{link['holder']}: {shown_words(link['scope'])}, link {link['id']}, {link['status']}"
            say(f"{above}{visible(told)}")


def _local(at: str) -> str:
    return local(datetime.fromisoformat(at))
