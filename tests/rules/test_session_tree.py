"""How each link of a session stands, said by the facts alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcp_authz.principals import Thumbprint
from mcp_authz.rules.session_tree import LinkState, Surroundings, standing_of
from tests.store.world import ALICE, CODER, HOUR, PLANNER, START, agent, grant, link, person, root, session

CHAIN = (root(), link(), link("l_below", "l_leaf", depth=2))
AROUND = Surroundings(
    session=session(),
    grant=grant(),
    person=person(ALICE),
    agents={PLANNER: agent(PLANNER), CODER: agent(CODER)},
    revoked_keys=frozenset(),
    at=START,
)
OPEN, REVOKED, ENDED = LinkState


def states(around: Surroundings, links: Any = CHAIN) -> list[LinkState]:
    return [one.state for one in standing_of(links, around).values()]


def test_links_are_open_as_long_as_nothing_ended() -> None:
    assert states(AROUND) == [OPEN, OPEN, OPEN]


def test_what_is_below_a_revoked_link_has_ended_with_it_and_what_is_above_has_not() -> None:
    told = standing_of((CHAIN[0], replace(CHAIN[1], status="revoked"), CHAIN[2]), AROUND)
    assert [one.state for one in told.values()] == [OPEN, REVOKED, ENDED]
    assert told[CHAIN[2].id].because == "with the link above it"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"session": replace(session(), status="revoked")}, "the session was revoked"),
        ({"grant": replace(grant(), status="revoked")}, "what was agreed to was revoked"),
        ({"grant": None}, "what was agreed to was revoked"),
        ({"person": replace(person(ALICE), status="revoked")}, "the person was revoked"),
        ({"at": START + 11 * HOUR}, "the session's time is up"),
        ({"at": START + 3 * HOUR}, "the session was not used for too long"),
        ({"session": replace(session(), max_calls=2, calls_made=2)}, "all calls of the session are made"),
    ],
)
def test_with_the_session_all_links_end(change: dict[str, Any], says: str) -> None:
    told = standing_of(CHAIN, replace(AROUND, **change))
    assert {(one.state, one.because) for one in told.values()} == {(ENDED, says)}


def test_a_revoked_agent_or_key_revokes_what_it_holds() -> None:
    gone = replace(AROUND, agents={**AROUND.agents, CODER: replace(agent(CODER), status="revoked")})
    assert states(gone) == [OPEN, REVOKED, REVOKED]
    signed = (CHAIN[0], replace(CHAIN[1], signed_by=Thumbprint("k")), CHAIN[2])
    assert states(replace(AROUND, revoked_keys=frozenset({Thumbprint("k")})), signed) == [OPEN, REVOKED, ENDED]


def test_a_link_ends_with_its_time_and_with_its_calls() -> None:
    used = replace(CHAIN[1], max_calls=1, calls_made=1)
    assert states(AROUND, (CHAIN[0], used, CHAIN[2])) == [OPEN, ENDED, ENDED]
    late = replace(AROUND, at=START + 9 * HOUR, session=replace(session(), last_used_at=START + 9 * HOUR))
    assert states(late) == [ENDED, ENDED, ENDED]
