"""What pages show of a session: its links as a tree, how each stands, what ended it, and all of that as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from mcp_authz import limits
from mcp_authz.administration import Actor, Administration
from mcp_authz.audit_reading import newest
from mcp_authz.principals import AgentName, Link, LinkId, Session, Thumbprint
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.constraint_words import tool_words
from mcp_authz.rules.display import visible
from mcp_authz.rules.forest import Forest, Node, laid_out, wrapped
from mcp_authz.rules.session_tree import LinkState, Stands, Surroundings, over, standing_of
from mcp_authz.store.ports import Store

_ID: Final = 12  # characters of an id in a picture; the tree beside it has the whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the log says of a revocation."""

    at: datetime
    by: str
    reason: str
    of: str  # `link l_4kq`


@dataclass(slots=True, kw_only=True)
class ShownLink:
    """One link of the tree, everything in it visible; `below` is what was handed on from it."""

    id: LinkId
    holder: str
    state: LinkState
    because: str
    scopes: list[str]
    tools: list[tuple[str, str]] | None  # each with what its arguments have to be; None: every tool of the scopes
    calls: str
    deeper: int  # how many further steps it may start
    issued_at: datetime
    expires_at: datetime
    reason: str
    ending: Ending | None
    may_prune: bool
    below: list[ShownLink] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSession:
    """A session with its tree."""

    session: Session
    whom: str  # in whose name: the person, or the agent itself
    over: str
    ending: Ending | None
    may_end: bool
    roots: list[ShownLink]
    left_out: int
    picture: Forest
    told: str  # the picture in words


async def shown_session(
    administration: Administration, store: Store, actor: Actor, found: tuple[Session, tuple[Link, ...]], now: datetime
) -> ShownSession:
    """Return a session as far as a page has room for it: those links first that are nearest to its root."""
    session, links = found
    shown = links[: limits.TREE_SHOWN]
    around = await _around(store, session, shown, now)
    stands = standing_of(shown, around)
    endings = await _endings(store, session)
    may_end = await administration.may_revoke(actor, "session", session.id)
    rows: dict[LinkId, ShownLink] = {}
    for link in shown:
        state = stands[link.id]
        # Whoever may end the session may end whatever is in it.
        may = state.state is LinkState.OPEN and (may_end or await administration.may_revoke(actor, "link", link.id))
        ending = _first(endings, ("link", link.id), ("agent", link.holder), ("key", link.holder_key))
        rows[link.id] = _row(link, state, None if state.state is LinkState.OPEN else ending, may_prune=may)
        if link.parent in rows:
            rows[link.parent].below.append(rows[link.id])
    whole = over(around)
    whose = (("session", session.id), ("grant", session.grant), ("person", session.subject))
    picture = laid_out(_nodes(session, shown, stands), most=limits.TREE_SHOWN + 1)
    return ShownSession(
        session=session,
        whom=visible(whom(session)),
        over=visible(whole),
        ending=_first(endings, *whose) if whole else None,
        may_end=may_end and not whole,
        roots=[rows[link.id] for link in shown if link.parent not in rows],
        left_out=len(links) - len(shown),
        picture=picture,
        told=_told(session, shown, stands),
    )


def whom(session: Session) -> str:
    """In whose name the session is."""
    return f"{session.agent} itself" if session.subject is None else session.subject


def calls(link: Link | Session) -> str:
    """How many calls were made, of how many."""
    made = f"{link.calls_made} {'call' if link.calls_made == 1 else 'calls'} made"
    return made if link.max_calls is None else f"{link.calls_made} of {link.max_calls} calls made"


def _row(link: Link, stands: Stands, ending: Ending | None, *, may_prune: bool) -> ShownLink:
    tools = None
    if link.tools is not None:
        tools = [(visible(name), tool_words(arguments)) for name, arguments in sorted(link.tools.items())]
    return ShownLink(
        id=link.id,
        holder=visible(link.holder),
        state=stands.state,
        because=visible(stands.because),
        scopes=[visible(scope) for scope in sorted(link.scope)],
        tools=tools,
        calls=calls(link),
        deeper=max(0, link.max_depth - link.depth),
        issued_at=link.issued_at,
        expires_at=link.expires_at,
        reason=visible(link.reason),
        ending=ending,
        may_prune=may_prune,
    )


async def _around(store: Store, session: Session, links: Sequence[Link], now: datetime) -> Surroundings:
    agents = {name: known for name in _holders(session, links) if (known := await store.agent(name)) is not None}
    prints = {it for link in links for it in (link.holder_key, link.signed_by) if it is not None}
    first = agents.get(session.agent)
    person = session.subject or (None if first is None else first.owner)
    return Surroundings(
        session=session,
        grant=await store.grant(session.grant),
        person=None if person is None else await store.person(person),
        agents=agents,
        revoked_keys=frozenset([it for it in prints if await _is_revoked(store, it)]),
        at=now,
    )


async def _is_revoked(store: Store, print_: Thumbprint) -> bool:
    key = await store.key(print_)
    return key is None or key.status != "active"


def _holders(session: Session, links: Iterable[Link]) -> dict[AgentName, None]:
    return dict.fromkeys((session.agent, *(link.holder for link in links)))


async def _endings(store: Store, session: Session) -> Mapping[tuple[str, str], Ending]:
    """The revocations since the session began, by what was revoked; of something that was revoked twice the last."""
    wanted = Filter(kind="revocation", since=session.started_at)
    found: dict[tuple[str, str], Ending] = {}
    for record in await newest(store, wanted, limits.ENDINGS_READ):
        fields = record.event.fields
        of, name = str(fields.get("of")), str(fields.get("name"))
        found[of, name] = Ending(
            at=record.event.at,
            by=visible(str(fields.get("by")).removeprefix("user:")),
            reason=visible(str(fields.get("reason", ""))),
            of=visible(f"{of} {name}"),
        )
    return found


def _first(endings: Mapping[tuple[str, str], Ending], *things: tuple[str, str | None]) -> Ending | None:
    return next((endings[kind, name] for kind, name in things if name is not None and (kind, name) in endings), None)


def _nodes(session: Session, links: Iterable[Link], stands: Mapping[LinkId, Stands]) -> Iterable[Node]:
    """The person first, then each link; the root stands below the person."""
    start = f"session:{session.id}"
    notes = (f"session {session.id[:_ID]}…" if len(session.id) > _ID else f"session {session.id}",)
    yield Node(id=start, above=None, name=wrapped(visible(whom(session))), notes=notes, look="person")
    for link in links:
        state = stands[link.id].state
        id_ = link.id if len(link.id) <= _ID else f"{link.id[:_ID]}…"
        yield Node(
            id=link.id,
            above=link.parent or start,
            name=wrapped(visible(link.holder)),
            notes=(*_what(link), f"{MARKS[state]}{state.value}", id_),
            look=state.value,
        )


def _what(link: Link) -> tuple[str, ...]:
    """What the link gives, as far as a box has room; the tree below the picture has it whole."""
    scopes = wrapped(visible(" ".join(sorted(link.scope)) or "nothing"))
    lines = scopes if len(scopes) <= _SCOPE_LINES else (*scopes[: _SCOPE_LINES - 1], "…")
    tools = "" if link.tools is None else f"only {len(link.tools)} tool{'s' * (len(link.tools) != 1)}"
    return (*lines, *([tools] if tools else []))


_SCOPE_LINES: Final = 3
MARKS: Final = {LinkState.OPEN: "", LinkState.REVOKED: "\u00d7 ", LinkState.ENDED: "\u00b7 "}


def _told(session: Session, links: Sequence[Link], stands: Mapping[LinkId, Stands]) -> str:
    """The picture as sentences, for whoever cannot see it."""
    names: dict[LinkId, str] = {link.id: link.holder for link in links}
    parts = [
        f"{link.holder} from {whom(session) if link.parent is None else names.get(link.parent, 'an agent above')}, "
        f"may use {' '.join(sorted(link.scope)) or 'nothing'}, {stands[link.id].state.value}"
        for link in links
    ]
    return visible("; ".join(parts) + ".")
