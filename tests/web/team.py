"""A session with a tree: planner works for alice and handed on to coder and writer, coder to tester."""

from __future__ import annotations

from dataclasses import dataclass

from mcp_authz.ids import new_id
from mcp_authz.principals import AgentName, Link, LinkId, Session
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import Event
from tests.world import Actor, World

PURPOSE = "fix issue 41"
SCOPE = "pr deploy:production"
ONLY = {
    "acme__list_pull_requests": {
        "owner": {"constraint_type": "exact", "value": "acme"},
        "repo": {"constraint_type": "exact", "value": "api"},
    }
}


@dataclass(frozen=True)
class Team:
    """The session, who is in it, and the link that each of them holds."""

    session: Session
    actors: dict[str, Actor]
    links: dict[str, Link]


async def team(w: World) -> Team:
    """Everything is there: alice, the agents' owners, the session and its links."""
    for name in ("alice", "owen", "carl"):
        await w.person(name)
    actors = {}
    for name, owner, depth, to in (
        ("planner", "owen", 3, ["coder", "writer"]),
        ("coder", "carl", 1, ["tester"]),
        ("tester", "owen", 0, []),
        ("writer", "owen", 0, []),
    ):
        actors[name] = await w.agent(name, owner=owner, ceiling=SCOPE, depth=depth, delegates_to=to)
    session, root = await w.start(await w.grant("alice", "planner", SCOPE), purpose=PURPOSE, max_calls=20)
    links = {"planner": root}
    for name, above in (("coder", "planner"), ("tester", "coder"), ("writer", "planner")):
        links[name] = await handed_on(w, links[above], name)
    return Team(session=session, actors=actors, links=links)


async def handed_on(w: World, above: Link, to: str) -> Link:
    """A further step, as the store keeps one."""
    link = Link(
        id=LinkId(new_id("l")),
        session=above.session,
        parent=above.id,
        holder=AgentName(to),
        scope=parse_scopes(SCOPE),
        tools=parse_tools(ONLY) if to == "tester" else None,
        depth=above.depth + 1,
        max_depth=above.max_depth,
        issued_at=max(above.issued_at, w.clock().replace(microsecond=0)),
        expires_at=above.expires_at,
        max_calls=5 if to == "tester" else above.max_calls,
        reason=f"the part for {to}",
    )
    await w.store.add_link(link, Event(kind="delegation", at=w.clock(), fields={"summary": f"delegated to {to}"}))
    return link
