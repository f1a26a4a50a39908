"""A chain of links as a person reads it: a tree from the person down to the last holder, and what each may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from rich.text import Text
from rich.tree import Tree

from mcp_authz.cli.output import local
from mcp_authz.client.delegation import Description
from mcp_authz.rules.constraint import to_json
from mcp_authz.rules.constraint_words import tool_words
from mcp_authz.rules.display import visible
from mcp_authz.rules.link_id import link_id
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.signed_link import SignedLink

_THUMBPRINT = 8  # characters of a key's thumbprint, where nobody knows whose it is


def holder_names(chain: Description, known: Mapping[str, str]) -> list[str]:
    """Return who holds each link: as the store (`known`, by thumbprint), the root or a child's parent name them."""
    names = list[str]()
    for link in chain.links:
        named = known.get(link.holder.thumbprint)
        if named is None and not names and chain.purpose.agents:
            named = chain.purpose.agents[-1]
        if named is None and link.child and names and names[-1].startswith("agent:"):
            named = f"{names[-1]}/{link.child}"
        names.append(visible(named) if named is not None else f"key {link.holder.thumbprint[:_THUMBPRINT]}...")
    return names


def narrowed(parent: SignedLink, child: SignedLink) -> list[str]:
    """Return in what the child has less than its parent."""
    found = []
    if child.scope != parent.scope:
        found.append("scopes")
    if child.tools is not None and (parent.tools is None or child.tools.keys() < parent.tools.keys()):
        found.append("tools")
    before = parent.tools or {}
    if any(arguments != before.get(tool, {}) for tool, arguments in (child.tools or {}).items()):
        found.append("arguments")
    if child.expires_at < parent.expires_at:
        found.append("time")
    if child.max_calls != parent.max_calls:
        found.append("calls")
    if child.max_depth < parent.max_depth:
        found.append("depth")
    return found


def shown_tools(link: SignedLink) -> list[str]:
    """Return a line for each tool that the link permits."""
    if link.tools is None:
        return ["every tool that these scopes permit"]
    if not link.tools:
        return ["no tool"]
    return [f"{visible(tool)}: {tool_words(arguments)}" for tool, arguments in sorted(link.tools.items())]


def shown_bounds(link: SignedLink, at: datetime) -> str:
    """Return until when, how often, and how much further."""
    until = f"until {local(link.expires_at)}" if link.expires_at > at else f"ended {local(link.expires_at)}"
    calls = "any number of calls" if link.max_calls is None else f"{link.max_calls} call{'s' * (link.max_calls > 1)}"
    left = link.max_depth - link.depth
    further = "may not delegate" if left <= 0 else f"may delegate {left} step{'s' * (left > 1)} further"
    return f"{until}, {calls}, {further}"


def tree(chain: Description, known: Mapping[str, str], at: datetime) -> Tree:
    """Return the chain as a tree of one branch; agents that the root names before its holder only passed it on."""
    names = holder_names(chain, known)
    top = node = Tree(Text(visible(chain.purpose.subject), style="bold"), guide_style="dim")
    for agent in chain.purpose.agents[:-1]:
        node = node.add(Text(visible(agent), style="bold"))
    lesser = [None, *(narrowed(parent, child) for parent, child in pairwise(chain.links))]
    for link, name, less in zip(chain.links, names, lesser, strict=True):
        node = node.add(_step(link, name, less, at))
    return top


def view(chain: Description, known: Mapping[str, str], at: datetime) -> dict[str, Any]:
    """Return the chain as JSON; the keys are documented in docs/commands.md."""
    lesser: list[list[str]] = [[], *(narrowed(parent, child) for parent, child in pairwise(chain.links))]
    rows = zip(chain.links, holder_names(chain, known), lesser, strict=True)
    return {
        "issuer": chain.issuer,
        "subject": chain.purpose.subject,
        "session": chain.purpose.session,
        "purpose": chain.purpose.purpose,
        "agents": list(chain.purpose.agents),
        "verified": chain.verified,
        "state": "open" if all(link.expires_at > at for link in chain.links) else "expired",
        "links": [_link(link, name, less) for link, name, less in rows],
    }


def _step(link: SignedLink, name: str, less: Sequence[str] | None, at: datetime) -> Text:
    shown = Text()
    shown.append(name, style="bold")
    shown.append(f"\nmay: {' '.join(sorted(link.scope)) or 'nothing'}")
    for line in shown_tools(link):
        shown.append(f"\n{line}")
    shown.append(f"\n{shown_bounds(link, at)}", style="dim" if link.expires_at > at else "red")
    if less is not None:
        shown.append(f"\nless than above: {', '.join(less)}" if less else "\nas much as above", style="dim")
    if link.reason:
        shown.append(f"\nbecause: {visible(link.reason)}", style="dim")
    return shown


def _link(link: SignedLink, name: str, less: Sequence[str]) -> dict[str, Any]:
    return {
        "id": link_id(link.id),
        "jti": link.id,
        "holder": name,
        "key": link.holder.thumbprint,
        "signed_by": link.signer.thumbprint if link.parent is not None else None,
        "scope": sorted(link.scope),
        "tools": None if link.tools is None else to_json(link.tools),
        "depth": link.depth,
        "max_depth": link.max_depth,
        "issued_at": timestamp(link.issued_at),
        "expires_at": timestamp(link.expires_at),
        "max_calls": link.max_calls,
        "reason": link.reason,
        "child": link.child or None,
        "narrowed": list(less),
    }
