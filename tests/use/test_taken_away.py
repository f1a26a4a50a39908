"""Who explains a call that was ended reads what was taken away while it ran, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.audit_excerpts import records_of
from mcp_authz.readable_call import call_as_read
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.store.ports import EventKind, Log
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import Time, event

DECIDED: Mapping[str, Any] = {
    "decision": "permit",
    "actor": "agent:coder",
    "subject": "user:alice",
    "chain": ["agent:planner", "agent:coder"],
    "session": "s_1",
    "links": ["l_1", "l_2"],
    "key": "K",
    "tool": "acme__deploy",
    "server": "acme",
}
AT, LATER = "2026-11-22T10:00:00+00:00", "2026-11-22T20:00:00+00:00"
OTHERS: Mapping[str, Any] = {"of": "link", "name": "l_9", "agents": ["agent:coder"], "sessions": ["s_1"]}
ITS_OWN: list[tuple[EventKind, Mapping[str, Any]]] = [
    ("revocation", {"of": "link", "name": "l_1"}),
    ("revocation", {"of": "agent", "name": "planner"}),
    ("revocation", {"of": "server", "name": "acme"}),
    ("revocation", {"of": "everything", "name": "user:alice"}),
    ("revocation", {"of": "everything", "name": "all calls"}),
    ("administration", {"use": "issuer", "signs_from": AT, "replaced_count_until": AT}),
]


async def ran(log: Log, *meanwhile: tuple[EventKind, Mapping[str, Any]], ended_by: str | None) -> None:
    """A call was permitted, these records were written, and it was over, as was said; both sides have others."""
    await log.append(event("revocation", of="session", name="s_1"))
    await log.append(event("decision", "c_1", **DECIDED))
    for kind, fields in meanwhile:
        await log.append(event(kind, **fields))
    how = {} if ended_by is None else {"ended_by": ended_by}
    await log.append(event("outcome", "c_1", actor="agent:coder", outcome="unknown", **how))
    await log.append(event("revocation", of="session", name="s_1"))


async def told(directory: Path, *meanwhile: tuple[EventKind, Mapping[str, Any]], ended_by: str | None) -> list[Any]:
    """What is told beside the call itself, alike to whoever may read everything."""
    store = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=Time())
    try:
        await ran(store, *meanwhile, ended_by=ended_by)
        records = await records_of(store, "c_1")
        assert await call_as_read(store, "c_1", Filter()) == records
        strangers = await call_as_read(store, "c_1", Filter(about=frozenset({"agent:coder"})))
        assert [one for one in strangers if one.event.call is None and "agents" not in one.event.fields] == []
        return [one.event.fields for one in records if one.event.call is None]
    finally:
        await store.aclose()


@pytest.mark.parametrize(("kind", "fields"), ITS_OWN, ids=[str(fields.get("name", "issuer")) for _, fields in ITS_OWN])
async def test_what_the_call_stood_on_and_lost_is_told(
    tmp_path: Path, kind: EventKind, fields: Mapping[str, Any]
) -> None:
    assert await told(tmp_path, ("revocation", OTHERS), (kind, fields), ended_by="revocation") == [fields]


async def test_where_the_call_names_nothing_of_it_what_its_people_and_session_lost_is_told(tmp_path: Path) -> None:
    grant = {"of": "grant", "name": "g_1", "sessions": ["s_1"]}
    passkey = {"of": "passkey", "name": "P", "people": ["user:alice"]}
    strange = {"of": "grant", "name": "g_2", "people": ["user:bob"], "sessions": ["s_2"]}
    said = [("revocation", grant), ("revocation", strange), ("revocation", passkey)]
    assert await told(tmp_path, *said, ended_by="revocation") == [grant, passkey]  # type: ignore[arg-type]


async def test_a_key_that_only_got_a_successor_ended_nothing(tmp_path: Path) -> None:
    fields = {"use": "issuer", "signs_from": AT, "replaced_count_until": LATER}
    assert await told(tmp_path, ("administration", fields), ended_by="revocation") == []


@pytest.mark.parametrize("ended_by", [None, "crash"])
async def test_of_a_call_that_ended_otherwise_nothing_is_told(tmp_path: Path, ended_by: str | None) -> None:
    assert await told(tmp_path, ("revocation", {"of": "link", "name": "l_1"}), ended_by=ended_by) == []
