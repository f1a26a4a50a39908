"""Checkpoints of the log: somebody else than whoever can write the store keeps them, and they are made in time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import anyio

from mcp_authz.doctor.finding import Case, Finding, fine, note
from mcp_authz.errors import StoreError
from mcp_authz.locking import is_locked
from mcp_authz.rules import strict_json
from mcp_authz.store.glance import newest_of

CHECKPOINTS = "checkpoints"
_SLACK = timedelta(minutes=1)


async def check_checkpoints(case: Case) -> tuple[Finding, ...]:
    """Look at where they go, at the newest one, and at what places lack."""
    audit = case.config.audit
    source = case.config.source
    if audit.checkpoint_every is None:
        said = "none are made, so whoever can write the store can write the audit log anew, unseen"
        return (note(CHECKPOINTS, said, f"set `checkpoints` in [audit] of {source}"),)
    found = []
    if all(place == "file" for place in audit.checkpoints):
        said = "they are kept beside the store alone, where whoever alters the log can alter them too"
        found.append(note(CHECKPOINTS, said, f"name a place elsewhere in [audit] checkpoints of {source}"))
    try:
        newest, is_behind = await anyio.to_thread.run_sync(_newest, case)
    except (StoreError, ValueError, KeyError):
        return tuple(found)  # what is wrong with the store is said with the store
    if newest is None:
        return (*found, fine(CHECKPOINTS, "none was made yet"))
    made = f"{datetime.fromisoformat(newest['at']).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    for place in newest["fields"].get("behind", {}):
        found.append(note(CHECKPOINTS, f"{place} lacks some; they are brought there when it takes them again"))
    if is_behind:
        said = f"the newest is of {made}, though one is made every {audit.checkpoint_minutes} minutes"
        found.append(note(CHECKPOINTS, said, "read what the gateway prints"))
    return tuple(found) or (fine(CHECKPOINTS, f"the newest is of {made}, and every place has it"),)


def _newest(case: Case) -> tuple[dict[str, Any] | None, bool]:
    """The newest record of a checkpoint, and whether there should have been another one since."""
    row, head = newest_of(case.config.data / "store.db", "checkpoint")
    if row is None:
        return None, False
    record = strict_json.parse_object(row.body)
    every = case.config.audit.checkpoint_every or timedelta()
    late = case.at - datetime.fromisoformat(str(record["at"])) > every + _SLACK
    return record, late and head > row.sequence and is_locked(case.config.lock)
