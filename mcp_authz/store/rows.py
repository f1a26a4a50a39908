"""How a row stands for a value of the vocabulary: the columns in their order, and the way there and back.

What a text or number stands for (scopes, tools maps, times) is remembered by it; a status never is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from mcp_authz.model import ApprovalRule, Assurance
from mcp_authz.principals import (
    Agent,
    AgentName,
    Authentication,
    ClientId,
    Grant,
    GrantId,
    Key,
    Link,
    LinkId,
    Mode,
    Person,
    PersonName,
    Session,
    SessionId,
    Thumbprint,
)
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.constraint import ToolsMap, parse_tools, to_json
from mcp_authz.rules.scope import Scope
from mcp_authz.store.ports import Pin

Row = tuple[Any, ...]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICK: Final = timedelta(microseconds=1)

PERSON: Final = ("name", "member_of", "status")
AGENT: Final = (
    "name", "owner", "labels", "roles", "ceiling", "depth", "delegates_to", "interactive", "status",
    "parent", "ends_at", "metadata_url", "client_id",
)  # fmt: skip
KEY: Final = ("thumbprint", "holder", "raw", "added_at", "retires_at", "status", "proved")
GRANT: Final = (
    "id", "subject", "agent", "scope", "tools", "granted_at", "expires_at", "status",
    "client_id", "auth_at", "amr", "auth_issuer",
)  # fmt: skip
SESSION: Final = (
    "id", "grant_id", "subject", "agent", "mode", "purpose",
    "started_at", "expires_at", "last_used_at", "max_calls", "calls_made", "status",
)  # fmt: skip
LINK: Final = (
    "id", "session_id", "parent_id", "holder", "scope", "tools", "depth", "max_depth",
    "issued_at", "expires_at", "max_calls", "calls_made", "reason", "status", "holder_key", "signed_by", "statement",
)  # fmt: skip
PIN: Final = ("server", "tool", "digest", "definition", "seen_at", "changed", "changed_digest")


def columns(names: tuple[str, ...], table: str = "") -> str:
    """The columns as a SELECT names them, each of `table` if one is given."""
    return ", ".join(f"{table}.{name}" if table else name for name in names)


def insert(table: str, names: tuple[str, ...]) -> str:
    """The statement that inserts one row with these columns."""
    return f"INSERT INTO {table} ({columns(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 - constants


def micros(at: datetime) -> int:
    """The time as the store has it: microseconds since 1970, UTC."""
    return (at - _EPOCH) // _TICK


@lru_cache(maxsize=8192)
def when(stored: int) -> datetime:
    """The time that `micros` stored."""
    return _EPOCH + timedelta(microseconds=stored)


def text(value: Any) -> str:
    """The canonical JSON text of a value (RFC 8785)."""
    return canonical(value).decode()


def text_set(values: Iterable[str]) -> str:
    """The canonical JSON text of a set: a sorted list."""
    return text(sorted(values))


@lru_cache(maxsize=8192)
def words(stored: str) -> frozenset[Any]:
    """The set whose text `text_set` wrote."""
    return frozenset(json.loads(stored))


@lru_cache(maxsize=2048)
def _tools(stored: str) -> ToolsMap:
    return MappingProxyType({tool: MappingProxyType(dict(a)) for tool, a in parse_tools(json.loads(stored)).items()})


def tools_text(tools: ToolsMap | None) -> str | None:
    """The canonical text of a tools map; None stays None."""
    return None if tools is None else text(to_json(tools))


def _tools_or_none(stored: str | None) -> ToolsMap | None:
    return None if stored is None else _tools(stored)


def person_row(person: Person) -> Row:
    return person.name, text_set(person.groups), person.status


def person(row: Row) -> Person:
    name, member_of, status = row
    return Person(name=PersonName(name), groups=words(member_of), status=status)


def agent_row(agent: Agent) -> Row:
    return (
        agent.name, agent.owner, text(dict(agent.labels)), text_set(agent.roles), text_set(agent.ceiling),
        agent.depth, text_set(agent.delegates_to), int(agent.interactive), agent.status,
        agent.parent, None if agent.ends_at is None else micros(agent.ends_at), agent.metadata_url,
        agent.client,
    )  # fmt: skip


def agent(row: Row) -> Agent:
    (
        name, owner, labels, roles, ceiling, depth, delegates_to, interactive, status,
        parent, ends_at, metadata_url, client_id,
    ) = row  # fmt: skip
    return Agent(
        name=AgentName(name),
        owner=PersonName(owner),
        labels=dict(_labels(labels)),
        roles=words(roles),
        ceiling=words(ceiling),
        depth=depth,
        delegates_to=words(delegates_to),
        interactive=bool(interactive),
        parent=None if parent is None else AgentName(parent),
        ends_at=None if ends_at is None else when(ends_at),
        metadata_url=metadata_url,
        client=None if client_id is None else ClientId(client_id),
        status=status,
    )


@lru_cache(maxsize=1024)
def _labels(stored: str) -> Mapping[str, str]:
    return MappingProxyType(json.loads(stored))


def key_row(key: Key) -> Row:
    retires_at = None if key.retires_at is None else micros(key.retires_at)
    return key.thumbprint, key.holder, key.raw, micros(key.added_at), retires_at, key.status, int(key.proved)


def key(row: Row) -> Key:
    thumbprint, holder, raw, added_at, retires_at, status, proved = row
    return Key(
        thumbprint=Thumbprint(thumbprint),
        holder=holder,
        raw=raw,
        added_at=when(added_at),
        retires_at=None if retires_at is None else when(retires_at),
        status=status,
        proved=bool(proved),
    )


def grant_row(grant: Grant) -> Row:
    return (
        grant.id, grant.subject or "", grant.agent, text_set(grant.scope), tools_text(grant.tools),
        micros(grant.granted_at), micros(grant.expires_at), grant.status,
        grant.client, *authentication_row(grant.authentication),
    )  # fmt: skip


def grant(row: Row) -> Grant:
    id_, subject, agent_, scope, tools, granted_at, expires_at, status, client_id, *shown = row
    return Grant(
        id=GrantId(id_),
        subject=PersonName(subject) if subject else None,
        agent=AgentName(agent_),
        scope=_scopes(scope),
        tools=_tools_or_none(tools),
        granted_at=when(granted_at),
        expires_at=when(expires_at),
        client=None if client_id is None else ClientId(client_id),
        authentication=authentication(shown),
        status=status,
    )


def authentication_row(shown: Authentication | None) -> Row:
    """When, how and to whom a person proved who they are; three NULLs where nobody did."""
    if shown is None:
        return None, None, None
    return micros(shown.at), text(list(shown.amr)), shown.issuer


def authentication(row: Sequence[Any]) -> Authentication | None:
    auth_at, amr, issuer = row
    if auth_at is None:
        return None
    return Authentication(at=when(auth_at), amr=tuple(json.loads(amr)), issuer=issuer)


def session_row(session: Session) -> Row:
    return (
        session.id, session.grant, session.subject or "", session.agent, session.mode.value, session.purpose,
        micros(session.started_at), micros(session.expires_at), micros(session.last_used_at),
        session.max_calls, session.calls_made, session.status,
    )  # fmt: skip


def session(row: Row) -> Session:
    (
        id_, grant_id, subject, agent_, mode, purpose,
        started_at, expires_at, last_used_at, max_calls, calls_made, status,
    ) = row  # fmt: skip
    return Session(
        id=SessionId(id_),
        grant=GrantId(grant_id),
        subject=PersonName(subject) if subject else None,
        agent=AgentName(agent_),
        mode=Mode(mode),
        purpose=purpose,
        started_at=when(started_at),
        expires_at=when(expires_at),
        last_used_at=when(last_used_at),
        max_calls=max_calls,
        calls_made=calls_made,
        status=status,
    )


def link_row(link: Link) -> Row:
    return (
        link.id, link.session, link.parent, link.holder, text_set(link.scope), tools_text(link.tools),
        link.depth, link.max_depth, micros(link.issued_at), micros(link.expires_at),
        link.max_calls, link.calls_made, link.reason, link.status, link.holder_key, link.signed_by, link.statement,
    )  # fmt: skip


def link(row: Row) -> Link:
    (
        id_, session_id, parent_id, holder, scope, tools, depth, max_depth,
        issued_at, expires_at, max_calls, calls_made, reason, status, holder_key, signed_by, statement,
    ) = row  # fmt: skip
    return Link(
        id=LinkId(id_),
        session=SessionId(session_id),
        parent=None if parent_id is None else LinkId(parent_id),
        holder=AgentName(holder),
        scope=_scopes(scope),
        tools=_tools_or_none(tools),
        depth=depth,
        max_depth=max_depth,
        issued_at=when(issued_at),
        expires_at=when(expires_at),
        max_calls=max_calls,
        calls_made=calls_made,
        reason=reason,
        holder_key=None if holder_key is None else Thumbprint(holder_key),
        signed_by=None if signed_by is None else Thumbprint(signed_by),
        statement=statement,
        status=status,
    )


def _scopes(stored: str) -> frozenset[Scope]:
    return words(stored)


def pin_row(pin: Pin) -> Row:
    changed = None if pin.changed is None else text(dict(pin.changed))
    return (
        pin.server, pin.tool, pin.digest, text(dict(pin.definition)), micros(pin.seen_at), changed, pin.changed_digest,
    )  # fmt: skip


def pin(row: Row) -> Pin:
    server, tool, digest, definition, seen_at, changed, changed_digest = row
    return Pin(
        server=server,
        tool=tool,
        digest=digest,
        definition=json.loads(definition),
        seen_at=when(seen_at),
        changed=None if changed is None else json.loads(changed),
        changed_digest=changed_digest,
    )


def rules_text(rules: tuple[ApprovalRule, ...]) -> str:
    """The canonical text of approval rules."""
    return text(
        [
            {
                "name": rule.name,
                "by": list(rule.by),
                "quorum": rule.quorum,
                "outside_chain": rule.outside_chain,
                "assurance": rule.assurance.label,
                "expires_us": rule.expires // _TICK,
                "reason": rule.reason,
            }
            for rule in rules
        ]
    )


@lru_cache(maxsize=256)
def approval_rules(stored: str) -> tuple[ApprovalRule, ...]:
    """The rules whose text `rules_text` wrote."""
    return tuple(
        ApprovalRule(
            name=rule["name"],
            by=tuple(rule["by"]),
            quorum=rule["quorum"],
            outside_chain=rule["outside_chain"],
            assurance=Assurance[rule["assurance"].replace("-", "_").upper()],
            expires=timedelta(microseconds=rule["expires_us"]),
            reason=rule["reason"],
        )
        for rule in json.loads(stored)
    )
