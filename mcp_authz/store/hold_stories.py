"""What became of held calls, read by one query along the index of their times."""

from __future__ import annotations

import json
from datetime import datetime

from mcp_authz.model import HoldId, HoldState
from mcp_authz.rules.hold_stats import HoldStory
from mcp_authz.store.rows import Row, micros, when
from mcp_authz.store.transaction import Transaction

_STORIES = """
    SELECT holds.id, tool, actor, rules, session_id, digest,
        CASE WHEN state IN ('pending', 'approved') AND expires_at <= ? THEN 'expired' ELSE state END,
        asked_at, json_group_array(person) FILTER (WHERE person IS NOT NULL), max(given_at),
        ifnull(max(sent_back), 0), ifnull(max(terms != '{}'), 0), ifnull(max(standing IS NOT NULL), 0)
    FROM holds INDEXED BY holds_by_time LEFT JOIN verdicts ON hold_id = holds.id
    WHERE asked_at >= ? GROUP BY asked_at, holds.position ORDER BY asked_at, holds.position
"""


def hold_stories(tx: Transaction, since: datetime) -> tuple[HoldStory, ...]:
    """The holds that were asked for since then, oldest first; nothing sealed is opened."""
    names: dict[str, tuple[str, ...]] = {}  # the same few rules stand in every row
    return tuple(_story(row, names) for row in tx.db.execute(_STORIES, (tx.now, micros(since))))


def _story(row: Row, names: dict[str, tuple[str, ...]]) -> HoldStory:
    id_, tool, actor, rules, session, digest, state, asked_at, people, given_at, sent_back, narrowed, standing = row
    if rules not in names:
        names[rules] = tuple(rule["name"] for rule in json.loads(rules))
    return HoldStory(
        id=HoldId(id_),
        tool=tool,
        agent=actor,
        rules=names[rules],
        call=(session, actor, digest),
        state=HoldState(state),
        asked_at=when(asked_at),
        people=tuple(dict.fromkeys(json.loads(people))) if given_at is not None else (),
        answered_at=None if given_at is None else when(given_at),
        sent_back=bool(sent_back),
        narrowed=bool(narrowed),
        standing=bool(standing),
    )
