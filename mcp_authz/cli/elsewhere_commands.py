"""What commands do with `--at URL`: the same as here, at a gateway elsewhere, as far as the person's roles reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Final

from mcp_authz.cli.elsewhere import elsewhere
from mcp_authz.cli.output import note, print_json
from mcp_authz.cli.states import Open, link_state, session_state
from mcp_authz.client.administering import Elsewhere, segment
from mcp_authz.principals import AgentName, GrantId, Link, LinkId, Mode, PersonName, Session, SessionId
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.scope import Scope

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


async def sessions(url: str, show: Callable[[list[Session], Open], None], *, json: bool) -> None:
    """The sessions that may be looked at are shown, oldest first; whether one is open is what the gateway says."""
    async with elsewhere(url) as there:
        are_open = [it async for it in _each(there, "sessions", "before", state="open")]
        over = [it async for it in _each(there, "sessions", "before", state="over")]
        told = sorted([*are_open, *over], key=lambda it: it["started_at"])
        named = frozenset(SessionId(it["id"]) for it in are_open)
        found, is_open = [_session(it) for it in told], Open(at=datetime.now(UTC), links=frozenset(), sessions=named)
        if json:
            states = [session_state(one, is_open) for one in found]
            print_json([{**it, "state": state} for it, state in zip(told, states, strict=True)])
        else:
            show(found, is_open)


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


async def session(url: str, id_: str, show: Callable[[Session, list[Link], Open], None], *, json: bool) -> None:
    """One session and its links are shown, parents first."""
    async with elsewhere(url) as there:
        told = await there.read(f"/sessions/{segment(id_)}")
        found, links = _session(told), [_link(it, SessionId(told["id"])) for it in told["links"]]
        newest = _each(there, "sessions", "before", state="open")
        among_them = found.status == "active" and found.id in {it["id"] async for it in newest}
        is_open = _open(found, links, is_open=among_them)
        if json:
            tree = [{**it, "state": link_state(link, is_open)} for it, link in zip(told["links"], links, strict=True)]
            print_json({**told, "state": session_state(found, is_open), "links": tree})
        else:
            show(found, links, is_open)


def _open(session: Session, links: list[Link], *, is_open: bool) -> Open:
    """What is open of one session: a link that says nothing else of itself, where the one above it is."""
    now, standing = datetime.now(UTC), set[LinkId]()
    for link in links if is_open else ():
        is_left = link.status == "active" and now < link.expires_at and link.calls_made != link.max_calls
        if is_left and (link.parent is None or link.parent in standing):
            standing.add(link.id)
    return Open(at=now, links=frozenset(standing), sessions=frozenset({session.id} if is_open else ()))


def _session(it: dict[str, Any]) -> Session:
    return Session(
        id=SessionId(it["id"]),
        grant=GrantId(it["grant"]),
        subject=None if it["subject"] is None else PersonName(it["subject"]),
        agent=AgentName(it["agent"]),
        mode=Mode(it["mode"]),
        purpose=it["purpose"],
        started_at=datetime.fromisoformat(it["started_at"]),
        expires_at=datetime.fromisoformat(it["expires_at"]),
        last_used_at=datetime.fromisoformat(it["last_used_at"]),
        max_calls=_count(it["max_calls"]),
        calls_made=int(it["calls_made"]),
        status=it["status"],
    )


def _link(it: dict[str, Any], session: SessionId) -> Link:
    return Link(
        id=LinkId(it["id"]),
        session=session,
        parent=None if it["parent"] is None else LinkId(it["parent"]),
        holder=AgentName(it["holder"]),
        scope=frozenset(Scope(one) for one in it["scope"]),
        tools=None if it["tools"] is None else parse_tools(it["tools"]),
        depth=int(it["depth"]),
        max_depth=int(it["max_depth"]),
        issued_at=datetime.fromisoformat(it["issued_at"]),
        expires_at=datetime.fromisoformat(it["expires_at"]),
        max_calls=_count(it["max_calls"]),
        calls_made=int(it["calls_made"]),
        reason=it["reason"],
        status=it["status"],
    )


def _count(told: Any) -> int | None:
    return None if told is None else int(told)
