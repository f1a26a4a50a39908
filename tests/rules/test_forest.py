"""Where the boxes of a picture stand: whatever the tree, no box lies over another, and the picture is bounded."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.rules.forest import CELLS, LINES, WIDTH, Box, Node, cells, laid_out, wrapped

NAMES = st.text(max_size=60)


@st.composite
def forests(draw: st.DrawFn) -> list[Node]:
    """Nodes in any order, each below one before it, below nobody, or below one that is not there."""
    nodes = list[Node]()
    for number in range(draw(st.integers(0, 25))):
        above = draw(st.one_of(st.none(), st.integers(0, max(0, number - 1)), st.just(-1)))
        notes = tuple(draw(st.lists(st.just("open"), max_size=3)))
        over = None if above is None else f"n{above}"
        nodes.append(Node(id=f"n{number}", above=over if number else None, name=wrapped(draw(NAMES)), notes=notes))
    return draw(st.permutations(nodes))


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + WIDTH
        and other.x < one.x + WIDTH
        and one.y < other.y + other.node.height
        and other.y < one.y + one.node.height
    )


@given(forests())
def test_no_box_lies_over_another_and_all_are_in_the_picture(nodes: list[Node]) -> None:
    forest = laid_out(nodes, most=200)
    assert sorted(box.node.id for box in forest.boxes) == sorted(node.id for node in nodes)
    assert not [pair for pair in combinations(forest.boxes, 2) if overlap(*pair)]
    for box in forest.boxes:
        assert box.x >= 0 and box.x + WIDTH <= forest.width
        assert box.y >= 0 and box.y + box.node.height <= forest.height
    assert laid_out(nodes, most=200) == forest


@given(forests())
def test_every_arrow_goes_from_a_box_to_one_in_the_next_column(nodes: list[Node]) -> None:
    forest = laid_out(nodes, most=200)
    known = {node.id for node in nodes}
    assert {(one.node.id, other.node.id) for one, other in forest.arrows} == {
        (node.above, node.id) for node in nodes if node.above in known
    }
    assert all(one.x + WIDTH < other.x for one, other in forest.arrows)


@given(forests(), st.integers(0, 10))
def test_of_too_many_the_farthest_are_left_out_and_counted(nodes: list[Node], most: int) -> None:
    forest = laid_out(nodes, most=most)
    shown = {box.node.id for box in forest.boxes}
    assert len(shown) == min(most, len(nodes)) and forest.left_out == len(nodes) - len(shown)
    known = {node.id for node in nodes}
    assert all(box.node.above in shown for box in forest.boxes if box.node.above in known), "nobody hangs in the air"


def test_what_stands_in_a_ring_is_left_out() -> None:
    ring = [Node(id="a", above="b", name=("a",)), Node(id="b", above="a", name=("b",))]
    forest = laid_out(ring, most=200)
    assert forest.boxes == () and forest.left_out == 2


def test_a_chain_of_thousands_is_laid_out_too() -> None:
    chain = [Node(id=str(n), above=str(n - 1) if n else None, name=("x",)) for n in range(5_000)]
    assert len(laid_out(chain, most=5_000).boxes) == 5_000


@given(NAMES)
def test_every_line_of_a_name_fits_its_box(name: str) -> None:
    lines = wrapped(name)
    assert 1 <= len(lines) <= LINES
    assert all(sum(map(cells, line)) <= CELLS for line in lines)


def test_a_long_name_is_broken_where_a_word_ends_and_says_where_it_is_cut() -> None:
    assert wrapped("release-team/coder-for-the-backend") == ("release-team/coder-", "for-the-backend")
    assert wrapped("x" * 500)[-1].endswith("…")
    assert wrapped("") == ("",)
