"""How everything that a token names stands now, in a transaction: read at every request, in two statements."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
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

# Each link from the root down to one, with its holder, its keys, and, where it is the root, what it all began with.
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


def standing(
    tx: Transaction, agent: AgentName, key: Thumbprint | None, person: PersonName | None, leaf: LinkId | None
) -> Standing:
    """The agent, key, person and link of these names, and what the link stands on; absent where they are not there."""
    who = _Cells(tx.db.execute(_WHO, (agent, key, person)).fetchone())
    actor, login, subject = who.next(AGENT, rows.agent), who.next(KEY, rows.key), who.next(PERSON, rows.person)
    chain = [] if leaf is None else [_Cells(row) for row in tx.db.execute(_CHAIN, (leaf,))]
    links = [cells.next(LINK, rows.link) for cells in chain]
    holders = [cells.next(AGENT, rows.agent) for cells in chain]
    keys = [cells.next(KEY, rows.key) for cells in chain for _ in ("held", "signing")]
    root = chain[0] if chain else _Cells(())
    return Standing(
        agent=actor,
        key=login,
        person=subject,
        session=root.next(SESSION, rows.session),
        grant=root.next(GRANT, rows.grant),
        owner=root.next(PERSON, rows.person),
        links=tuple(link for link in links if link is not None),
        holders={one.name: one for one in holders if one is not None},
        keys={one.thumbprint: one for one in keys if one is not None},
    )


class _Cells:
    """The columns of one row, taken in their order, table by table."""

    def __init__(self, row: Row) -> None:
        self._left = iter(row)

    def next(self, names: tuple[str, ...], read: Callable[[Row], T]) -> T | None:
        """What the next columns stand for; None where the table had no row that belongs here."""
        cells = tuple(islice(self._left, len(names)))
        return read(cells) if cells and cells[0] is not None else None
