"""How everything that a token names stands now, in a transaction: read at every request, in two statements."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Final, TypeVar

from mcp_authz.principals import AgentName, LinkId, PersonName, Thumbprint
from mcp_authz.store import rows
from mcp_authz.store.lineage import UP
from mcp_authz.store.ports import Standing
from mcp_authz.store.rows import AGENT, GRANT, KEY, LINK, PERSON, SESSION, Row, columns
from mcp_authz.store.transaction import Transaction

T = TypeVar("T")

_WHO: Final = f"""
    SELECT {columns(AGENT, "agents")}, {columns(KEY, "keys")}, {columns(PERSON, "people")}
    FROM (SELECT 1) LEFT JOIN agents ON agents.name = ? LEFT JOIN keys ON thumbprint = ?
        LEFT JOIN people ON people.name = ?
"""  # noqa: S608 - constants

# Each link from the root down to one, with its holder and keys; in each row also what the root belongs to.
_CHAIN: Final = f"""{UP}
    SELECT {columns(LINK, "links")}, {columns(AGENT, "agents")}, {columns(KEY, "held")}, {columns(KEY, "signing")},
        {columns(SESSION, "sessions")}, {columns(GRANT, "grants")}, {columns(PERSON, "people")}
    FROM up JOIN links USING (id)
        LEFT JOIN agents ON agents.name = links.holder
        LEFT JOIN keys AS held ON held.thumbprint = links.holder_key
        LEFT JOIN keys AS signing ON signing.thumbprint = links.signed_by
        LEFT JOIN sessions ON sessions.id = links.session_id
        LEFT JOIN grants ON grants.id = sessions.grant_id
        LEFT JOIN people ON people.name = agents.owner
    ORDER BY steps DESC
"""  # noqa: S608 - constants


def _places(*tables: tuple[str, ...]) -> tuple[slice, ...]:
    """Where in a row the columns of each table are."""
    ends = tuple(accumulate(map(len, tables)))
    return tuple(slice(end - len(table), end) for table, end in zip(tables, ends, strict=True))


_ACTOR, _LOGIN, _SUBJECT = _places(AGENT, KEY, PERSON)
_LINK, _HOLDER, _HELD, _SIGNING, _SESSION, _GRANT, _OWNER = _places(LINK, AGENT, KEY, KEY, SESSION, GRANT, PERSON)


def standing(
    tx: Transaction, agent: AgentName, key: Thumbprint | None, person: PersonName | None, leaf: LinkId | None
) -> Standing:
    """The agent, key, person and link of these names, and what the link stands on; absent where they are not there."""
    who = tx.db.execute(_WHO, (agent, key, person)).fetchone()
    chain = [] if leaf is None else tx.db.execute(_CHAIN, (leaf,)).fetchall()
    holders = [_there(row[_HOLDER], rows.agent) for row in chain]
    keys = [_there(row[place], rows.key) for row in chain for place in (_HELD, _SIGNING)]
    return Standing(
        agent=_there(who[_ACTOR], rows.agent),
        key=_there(who[_LOGIN], rows.key),
        person=_there(who[_SUBJECT], rows.person),
        session=_there(chain[0][_SESSION], rows.session) if chain else None,
        grant=_there(chain[0][_GRANT], rows.grant) if chain else None,
        owner=_there(chain[0][_OWNER], rows.person) if chain else None,
        links=tuple(rows.link(row[_LINK]) for row in chain),
        holders={one.name: one for one in holders if one is not None},
        keys={one.thumbprint: one for one in keys if one is not None},
    )


def _there(cells: Row, read: Callable[[Row], T]) -> T | None:
    """What these columns stand for; None where the table had no row that belongs here."""
    return None if cells[0] is None else read(cells)
