"""Clients, what people agreed to through them, and the codes and refresh tokens that stand for it, in a transaction."""

from __future__ import annotations

import json
from typing import Final

from mcp_authz.authorization import AuthorizationCode, RefreshToken, RegisteredClient
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.principals import Agent, AgentName, ClientId, Grant, GrantId, Link, PersonName, Session, Thumbprint
from mcp_authz.store import registry, rows
from mcp_authz.store.ports import Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import AGENT, GRANT, LINK, SESSION, Row, columns, insert, micros, text, text_set, when, words
from mcp_authz.store.transaction import Transaction

_CLIENT: Final = (
    "id", "handle", "name", "kind", "redirect_uris", "method", "jwks", "secret", "registered_at", "read_at", "status",
)  # fmt: skip
_CODE: Final = (
    "digest", "grant_id", "client_id", "agent", "redirect_uri", "challenge", "scope", "confirmation",
    "made_at", "expires_at", "used_at",
)  # fmt: skip
_REFRESH: Final = ("digest", "grant_id", "client_id", "confirmation", "made_at", "expires_at", "used_at")


def client(tx: Transaction, id_: ClientId) -> RegisteredClient | None:
    """The client, revoked ones included."""
    found = tx.db.execute(f"SELECT {columns(_CLIENT)} FROM clients WHERE id = ?", (id_,)).fetchone()  # noqa: S608
    return None if found is None else _read_client(found)


def clients(tx: Transaction) -> tuple[RegisteredClient, ...]:
    """Every client, by handle."""
    found = tx.db.execute(f"SELECT {columns(_CLIENT)} FROM clients ORDER BY handle")  # noqa: S608 - constants
    return tuple(map(_read_client, found.fetchall()))


def add_client(tx: Transaction, new: RegisteredClient, event: Event, *, at_most: int | None) -> None:
    """The client is known."""
    if client(tx, new.id) is not None:
        raise Conflict(f"there is a client `{new.id}` already")
    if tx.db.execute("SELECT 1 FROM clients WHERE handle = ?", (new.handle,)).fetchone() is not None:
        raise Conflict(f"there is a client with the handle `{new.handle}` already")
    (there,) = tx.db.execute("SELECT count(*) FROM clients WHERE kind = ?", (new.kind,)).fetchone()
    if at_most is not None and there >= at_most:
        raise Conflict(f"there are {there} such clients already, and no room for more")
    tx.db.execute(insert("clients", _CLIENT), _client_row(new))
    append(tx, event)


def update_client(tx: Transaction, changed: RegisteredClient, event: Event | None) -> None:
    """The client is as given. Its status only `revoke` changes; id, handle and kind stay."""
    before = client(tx, changed.id)
    if before is None:
        raise NotFound(f"there is no client `{changed.id}`")
    if (before.status, before.handle, before.kind) != (changed.status, changed.handle, changed.kind):
        raise Conflict(f"client `{changed.id}` is {before.status}; neither that nor its handle changes like this")
    tx.db.execute(
        f"UPDATE clients SET {', '.join(f'{name} = ?' for name in _CLIENT[1:])} WHERE id = ?",  # noqa: S608 - constants
        (*_client_row(changed)[1:], changed.id),
    )
    if event is not None:
        append(tx, event)


def remove_unused(tx: Transaction, kind: str, before: int) -> int:
    """How many clients of the kind were forgotten: registered before then, and never anybody's agent.

    Where there were any, one record says how many.
    """
    removed = tx.db.execute(
        """DELETE FROM clients WHERE kind = ? AND registered_at < ? AND status = 'active'
        AND NOT EXISTS (SELECT 1 FROM agents WHERE client_id = clients.id)
        AND NOT EXISTS (SELECT 1 FROM grants WHERE client_id = clients.id)""",
        (kind, before),
    ).rowcount
    if removed:
        summary = f"{removed} {kind} client{'s' if removed > 1 else ''} forgotten: nobody ever agreed to them"
        append(
            tx, Event(kind="administration", at=tx.at, fields={"summary": summary, "by": "gateway", "count": removed})
        )
    return removed


def client_agent(tx: Transaction, of: ClientId, owner: PersonName) -> Agent | None:
    """The agent that the client is for this person, revoked ones included."""
    found = tx.db.execute(
        f"SELECT {columns(AGENT)} FROM agents WHERE client_id = ? AND owner = ?",  # noqa: S608 - constants
        (of, owner),
    ).fetchone()
    return None if found is None else rows.agent(found)


def client_grants(tx: Transaction, of: ClientId, subject: PersonName, agent: AgentName) -> tuple[Grant, ...]:
    """What the person agreed to through the client for this agent, and still counts; oldest first."""
    found = tx.db.execute(
        f"""SELECT {columns(GRANT)} FROM grants
        WHERE client_id = ? AND subject = ? AND agent = ? AND status = 'active' AND expires_at > ?
        ORDER BY granted_at, id""",  # noqa: S608 - constants
        (of, subject, agent, tx.now),
    )
    return tuple(map(rows.grant, found.fetchall()))


def newest_session(tx: Transaction, of: GrantId) -> tuple[Session, Link] | None:
    """The session of the grant that was started last, with its root link; one that has ended included."""
    found = tx.db.execute(
        f"SELECT {columns(SESSION)} FROM sessions WHERE grant_id = ? ORDER BY started_at DESC, id DESC LIMIT 1",  # noqa: S608
        (of,),
    ).fetchone()
    if found is None:
        return None
    root = tx.db.execute(
        f"SELECT {columns(LINK)} FROM links WHERE session_id = ? AND parent_id IS NULL",  # noqa: S608 - constants
        (found[0],),
    ).fetchone()
    return rows.session(found), rows.link(root)


def authorize(tx: Transaction, agent: Agent, grant: Grant, code: AuthorizationCode | None, event: Event) -> None:
    """The person's grant is there, for an agent that may use it, with the code that gets it, if it is got by one."""
    person = registry.person(tx, grant.subject)
    if person is None or person.status != "active":
        raise Conflict("the person is not active any more")
    known = None if grant.client is None else client(tx, grant.client)
    if known is None or known.status != "active":
        raise Conflict("the client is not active any more")
    _require_agent(tx, agent, known, person.name)
    tx.db.execute(insert("grants", GRANT), rows.grant_row(grant))
    if code is not None:
        tx.db.execute(insert("codes", _CODE), _code_row(code))
    append(tx, event)


def _require_agent(tx: Transaction, agent: Agent, of: RegisteredClient, owner: PersonName) -> None:
    """The agent is there and active; a client agent comes to be, and its ceiling is what the gateway has now."""
    there = registry.agent(tx, agent.name)
    if there is None and (agent.client, agent.owner, agent.status) == (of.id, owner, "active"):
        tx.db.execute(insert("agents", AGENT), rows.agent_row(agent))
    elif there is None or there.status != "active" or there.client != agent.client:
        raise Conflict(f"agent `{agent.name}` is not active any more")
    elif there.client is not None and (there.client, there.owner) != (of.id, owner):
        raise Conflict(f"agent `{agent.name}` is another client's, or another person's")
    elif there.client is not None:
        tx.db.execute("UPDATE agents SET ceiling = ? WHERE name = ?", (text_set(agent.ceiling), agent.name))


def code(tx: Transaction, digest: bytes) -> AuthorizationCode | None:
    """The code, used and expired ones included."""
    found = tx.db.execute(f"SELECT {columns(_CODE)} FROM codes WHERE digest = ?", (digest,)).fetchone()  # noqa: S608
    return None if found is None else _read_code(found)


def redeem_code(
    tx: Transaction,
    digest: bytes,
    opened: tuple[Session, Link, Event],
    refresh: RefreshToken | None,
) -> None:
    """The code is used, the session of its grant is open, and the first refresh token counts: all, or nothing."""
    used = tx.db.execute(
        "UPDATE codes SET used_at = ? WHERE digest = ? AND used_at IS NULL AND expires_at > ? AND grant_id = ?",
        (tx.now, digest, tx.now, opened[0].grant),
    )
    if used.rowcount != 1:
        raise Conflict("the code was used already, or its time is up")
    registry.open_session(tx, *opened)
    if refresh is not None:
        tx.db.execute(insert("refresh_tokens", _REFRESH), _refresh_row(refresh))


def refresh_token(tx: Transaction, digest: bytes) -> RefreshToken | None:
    """The refresh token, used and expired ones included."""
    found = tx.db.execute(
        f"SELECT {columns(_REFRESH)} FROM refresh_tokens WHERE digest = ?",  # noqa: S608 - constants
        (digest,),
    ).fetchone()
    return None if found is None else _read_refresh(found)


def rotate(tx: Transaction, used: bytes, after: RefreshToken, opened: tuple[Session, Link, Event] | None) -> None:
    """The token is used, the one after it counts, and a new session of the grant is open where one was needed."""
    swapped = tx.db.execute(
        """UPDATE refresh_tokens SET used_at = :now
        WHERE digest = :used AND used_at IS NULL AND expires_at > :now AND grant_id = :grant
            AND EXISTS (SELECT 1 FROM grants WHERE id = :grant AND status = 'active' AND expires_at > :now)""",
        {"now": tx.now, "used": used, "grant": after.grant},
    )
    if swapped.rowcount != 1:
        raise Conflict("the refresh token was used already, or what it stands for has ended")
    tx.db.execute(insert("refresh_tokens", _REFRESH), _refresh_row(after))
    if opened is not None:
        registry.open_session(tx, *opened)


DUE: Final = """(EXISTS (SELECT 1 FROM codes WHERE expires_at <= :codes)
    OR EXISTS (SELECT 1 FROM refresh_tokens WHERE expires_at <= :codes))"""


def forget(tx: Transaction, kept: int) -> None:
    """Some of the codes and refresh tokens that expired before `kept` are forgotten."""
    for table in ("codes", "refresh_tokens"):
        tx.db.execute(
            f"DELETE FROM {table} WHERE digest IN (SELECT digest FROM {table} WHERE expires_at <= ? LIMIT 50)",  # noqa: S608
            (kept,),
        )


def _client_row(one: RegisteredClient) -> Row:
    return (
        one.id, one.handle, one.name, one.kind, text(list(one.redirect_uris)), one.method,
        None if one.jwks is None else text(dict(one.jwks)), one.secret,
        micros(one.registered_at), None if one.read_at is None else micros(one.read_at), one.status,
    )  # fmt: skip


def _read_client(row: Row) -> RegisteredClient:
    id_, handle, name, kind, redirect_uris, method, jwks, secret, registered_at, read_at, status = row
    return RegisteredClient(
        id=ClientId(id_),
        handle=handle,
        name=name,
        kind=kind,
        redirect_uris=tuple(json.loads(redirect_uris)),
        method=method,
        jwks=None if jwks is None else json.loads(jwks),
        secret=secret,
        registered_at=when(registered_at),
        read_at=None if read_at is None else when(read_at),
        status=status,
    )


def _code_row(one: AuthorizationCode) -> Row:
    return (
        one.digest, one.grant, one.client, one.agent, one.redirect_uri, one.challenge, text_set(one.scope),
        one.confirmation, micros(one.made_at), micros(one.expires_at), None,
    )  # fmt: skip


def _read_code(row: Row) -> AuthorizationCode:
    digest, grant, of, agent, redirect_uri, challenge, scope, confirmation, made_at, expires_at, used_at = row
    return AuthorizationCode(
        digest=digest,
        grant=GrantId(grant),
        client=ClientId(of),
        agent=AgentName(agent),
        redirect_uri=redirect_uri,
        challenge=challenge,
        scope=words(scope),
        confirmation=None if confirmation is None else Thumbprint(confirmation),
        made_at=when(made_at),
        expires_at=when(expires_at),
        used_at=None if used_at is None else when(used_at),
    )


def _refresh_row(one: RefreshToken) -> Row:
    return one.digest, one.grant, one.client, one.confirmation, micros(one.made_at), micros(one.expires_at), None


def _read_refresh(row: Row) -> RefreshToken:
    digest, grant, of, confirmation, made_at, expires_at, used_at = row
    return RefreshToken(
        digest=digest,
        grant=GrantId(grant),
        client=ClientId(of),
        confirmation=None if confirmation is None else Thumbprint(confirmation),
        made_at=when(made_at),
        expires_at=when(expires_at),
        used_at=None if used_at is None else when(used_at),
    )
