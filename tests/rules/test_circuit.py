"""When a server that does not answer is asked again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.rules.circuit import Circuit, Period

FIRST = limits.PDP_PAUSE_FIRST.total_seconds()
LONGEST = limits.PDP_PAUSE_LONGEST.total_seconds()


def opened(at: float = 0.0) -> Circuit:
    """A circuit that has just opened."""
    circuit = Circuit()
    for _ in range(limits.PDP_FAILURES):
        assert circuit.admits(at)
        circuit = circuit.asked().failed(circuit.period, at)
    return circuit


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    circuit = Circuit()
    for _ in range(limits.PDP_FAILURES - 1):
        circuit = circuit.failed(circuit.period, 0.0)
    assert not circuit.is_open
    assert not circuit.answered(circuit.period).failed(circuit.period, 0.0).is_open
    assert circuit.failed(circuit.period, 0.0).is_open


def test_an_open_one_admits_nothing_until_the_pause_is_over_and_then_one_question() -> None:
    circuit = opened()
    assert not circuit.admits(FIRST - 0.001)
    assert circuit.remaining(FIRST - 0.25).total_seconds() == 0.25
    assert circuit.admits(FIRST)
    assert not circuit.asked().admits(FIRST)
    assert not circuit.asked().admits(FIRST + 1000)


def test_the_one_question_closes_it_or_opens_it_for_twice_as_long() -> None:
    circuit = opened().asked()
    assert circuit.answered(circuit.period).admits(FIRST)
    again = circuit.failed(circuit.period, FIRST)
    assert again.pause == 2 * FIRST
    assert not again.admits(3 * FIRST - 0.001)
    assert again.admits(3 * FIRST)


def test_the_one_question_that_nobody_waits_for_leaves_the_place_to_another() -> None:
    circuit = opened().asked()
    assert circuit.abandoned(circuit.period).admits(FIRST)


def test_the_pause_grows_to_its_bound_and_starts_anew_after_an_answer() -> None:
    circuit, pauses = opened(), []
    for _ in range(10):
        pauses.append(circuit.pause)
        circuit = circuit.asked().failed(circuit.period, circuit.again_at)
    assert pauses == sorted(pauses)
    assert pauses[0] == FIRST
    assert pauses[-1] == LONGEST
    closed = circuit.answered(circuit.period)
    for _ in range(limits.PDP_FAILURES):
        closed = closed.failed(closed.period, 0.0)
    assert closed.pause == FIRST


def test_questions_from_before_it_opened_change_nothing() -> None:
    circuit, before = opened(), Period(0)
    for late in (circuit.failed(before, 5.0), circuit.answered(before), circuit.abandoned(before)):
        assert late == circuit
    probing = circuit.asked()
    assert probing.abandoned(before) == probing


@given(st.lists(st.tuples(st.sampled_from("afx"), st.floats(0, 60), st.integers(0, 5)), max_size=60))
def test_whatever_happens_an_open_one_has_one_question_at_most_and_a_bounded_pause(
    events: list[tuple[str, float, int]],
) -> None:
    circuit, now, under_way = Circuit(), 0.0, list[tuple[Period, bool]]()
    for what, later, which in events:
        now += later
        if circuit.admits(now):
            under_way.append((circuit.period, circuit.is_open))
            circuit = circuit.asked()
        assert sum(probe and period == circuit.period for period, probe in under_way) <= 1
        if under_way:
            period, _ = under_way.pop(which % len(under_way))
            ends = {"a": circuit.answered, "x": circuit.abandoned}
            circuit = circuit.failed(period, now) if what == "f" else ends[what](period)
        assert circuit.pause <= LONGEST
        assert circuit.admits(now + LONGEST) or circuit.probing
