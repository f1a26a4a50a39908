"""Where the boxes of a picture stand: trees from left to right, one column for each step, no box over another.

A tree takes as much height as its boxes need one below the other, and a box stands in the middle of what is below it in
its tree. The same nodes in the same order make the same picture.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

CELL: Final = 8  # pixels of one character, which is no wider in any fixed-width face at 13 pixels
CELLS: Final = 22  # characters of one line
LINE: Final = 18
MARGIN: Final = 10  # around the text of a box, and around the picture
WIDTH: Final = CELLS * CELL + 2 * MARGIN
ACROSS: Final = 44  # between two columns
BETWEEN: Final = 14  # between two boxes of a column
LINES: Final = 4  # of one text; what is longer ends in `…`
_AFTER: Final = "/-_.@ :"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one box says, and whose box it comes from; None, or a node that is not there: from nobody's."""

    id: str
    above: str | None
    name: tuple[str, ...]
    notes: tuple[str, ...] = ()
    look: str = "open"

    @property
    def height(self) -> int:
        """Of its box, in pixels."""
        return (len(self.name) + len(self.notes)) * LINE + 2 * MARGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One node at its place; pixels from the upper left corner."""

    node: Node
    x: int
    y: int

    @property
    def middle(self) -> int:
        """How far down its middle is."""
        return self.y + self.node.height // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """Every box that is shown, parents first, and the arrows between them."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[Box, Box], ...]
    width: int
    height: int
    left_out: int  # nodes for which there is no room


def wrapped(text: str) -> tuple[str, ...]:
    """Return the text in lines that fit a box, broken where words end if there are such places."""
    lines, rest = list[str](), text
    while rest and len(lines) < LINES:
        end = _fits(rest)
        lines.append(rest[:end].strip() or "…")
        rest = rest[end:]
    if rest:
        last = lines[-1]
        lines[-1] = f"{last[: max(1, len(last) - 2)]}…"
    return tuple(lines) or ("",)


def laid_out(nodes: Iterable[Node], *, most: int) -> Forest:
    """Return where each node stands; of more than `most` those farthest from where trees begin are left out."""
    every = list({node.id: node for node in nodes}.values())
    columns = _columns(every, most)
    shown = [node for column in columns for node in column]
    below = _below(shown)
    tall = _heights(shown, below)
    tops, down = dict[str, int](), MARGIN
    for node in columns[0] if columns else ():
        tops[node.id] = down
        down += tall[node.id] + BETWEEN
    boxes: dict[str, Box] = {}
    for number, column in enumerate(columns):
        for node in column:
            boxes[node.id] = _placed(node, number, tops[node.id], tall[node.id])
            _give_room(node, below[node.id], tops, tall)
    return Forest(
        boxes=tuple(boxes.values()),
        arrows=tuple((boxes[it.above], boxes[it.id]) for it in shown if it.above is not None and it.above in boxes),
        width=2 * MARGIN + len(columns) * WIDTH + max(0, len(columns) - 1) * ACROSS,
        height=max(2 * MARGIN, down - BETWEEN + MARGIN),
        left_out=len(every) - len(shown),
    )


def _columns(nodes: Sequence[Node], most: int) -> list[list[Node]]:
    """The nodes by how many steps they are from the beginning of their tree; what is in a ring is in none."""
    known = {node.id for node in nodes}
    below = _below(nodes)
    columns, left = list[list[Node]](), most
    column = [node for node in nodes if node.above is None or node.above not in known]
    while column and left > 0:
        columns.append(column[:left])
        left -= len(columns[-1])
        column = [child for node in columns[-1] for child in below[node.id]]
    return columns


def _below(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    below: dict[str, list[Node]] = {node.id: [] for node in nodes}
    for node in nodes:
        if node.above is not None and node.above in below:
            below[node.above].append(node)
    return below


def _heights(parents_first: Sequence[Node], below: dict[str, list[Node]]) -> dict[str, int]:
    """What each node takes with all that is below it."""
    tall: dict[str, int] = {}
    for node in reversed(parents_first):
        tall[node.id] = max(node.height, _together(below[node.id], tall))
    return tall


def _together(nodes: Sequence[Node], tall: dict[str, int]) -> int:
    return sum(tall[node.id] for node in nodes) + BETWEEN * max(0, len(nodes) - 1)


def _placed(node: Node, column: int, top: int, tall: int) -> Box:
    return Box(node=node, x=MARGIN + column * (WIDTH + ACROSS), y=top + (tall - node.height) // 2)


def _give_room(node: Node, below: Sequence[Node], tops: dict[str, int], tall: dict[str, int]) -> None:
    top = tops[node.id] + (tall[node.id] - _together(below, tall)) // 2
    for child in below:
        tops[child.id] = top
        top += tall[child.id] + BETWEEN


def _fits(text: str) -> int:
    """How many characters of it fit one line."""
    room, end = CELLS, 0
    for character in text:
        room -= cells(character)
        if room < 0:
            break
        end += 1
    if end == len(text):
        return end
    last = max((text.rfind(mark, 0, end) for mark in _AFTER), default=-1)
    return last + 1 if last + 1 > CELLS // 2 else max(1, end)


def cells(character: str) -> int:
    """How many places of a fixed-width line the character takes."""
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
