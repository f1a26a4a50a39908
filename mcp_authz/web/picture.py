"""Who delegated what to whom, drawn as a picture (SVG); it says everything in words, and nothing in colour alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from markupsafe import Markup

from mcp_authz.rules.forest import LINE, MARGIN, WIDTH, Box, Forest

Paint = Mapping[str, Markup]

_LOOKS: Final = ("person", "open", "revoked", "ended")

INLINE: Final[Paint] = MappingProxyType(
    {name: Markup('class="{}"').format(name) for name in (*_LOOKS, "arrow", "arrow-stopped", "head", "name", "note")}
)
"""For a picture in a page, whose style sheet knows these classes."""

_TEXT: Final = 'font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13" fill="#111"'

ALONE: Final[Paint] = MappingProxyType(
    {
        "person": Markup('fill="#e4eef7" stroke="#24517d" stroke-width="1.5"'),
        "open": Markup('fill="#fff" stroke="#22231f" stroke-width="1.5"'),
        "revoked": Markup('fill="#fff" stroke="#9c2a1c" stroke-width="2" stroke-dasharray="7 4"'),
        "ended": Markup(
            'fill="#fff" stroke="#5d5c55" stroke-width="1.5" stroke-dasharray="1.5 4" stroke-linecap="round"'
        ),
        "arrow": Markup('fill="none" stroke="#22231f" stroke-width="1.5"'),
        "arrow-stopped": Markup('fill="none" stroke="#5d5c55" stroke-width="1.5" stroke-dasharray="3 4"'),
        "head": Markup('fill="#22231f"'),
        "name": Markup(f'{_TEXT} font-weight="bold"'),  # noqa: S704 - a constant
        "note": Markup(_TEXT),  # noqa: S704 - a constant
    }
)
"""For a picture that stands alone: no style sheet, no script, black on white."""


def drawn(forest: Forest, paint: Paint, *, title: str, told: str) -> Markup:
    """Return the picture as one `<svg>` element; `told` says in words what it shows. Both are escaped here."""
    lines = [
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" class="picture" width="{w}" height="{h}" viewBox="0 0 {w} {h}"'
            ' role="img" aria-labelledby="picture-title picture-told">'
        ).format(w=forest.width, h=forest.height),
        Markup('<title id="picture-title">{}</title>').format(_xml(title)),
        Markup('<desc id="picture-told">{}</desc>').format(_xml(told)),
        *(_arrow(one, other, paint) for one, other in forest.arrows),
        *(_box(box, paint) for box in forest.boxes),
        Markup("</svg>"),
    ]
    return Markup("\n").join(lines)


def _arrow(start: Box, end: Box, paint: Paint) -> Markup:
    """From the right side of one box to the left side of the next."""
    x, y, to_x, to_y = start.x + WIDTH, start.middle, end.x, end.middle
    bend = (x + to_x) // 2
    stopped = end.node.look not in {"open", "person"}
    line = Markup('<path d="M{x} {y}C{b} {y} {b} {v} {u} {v}" {paint}/>').format(
        x=x, y=y, b=bend, u=to_x - 7, v=to_y, paint=paint["arrow-stopped" if stopped else "arrow"]
    )
    head = Markup('<path d="M{x} {y}l-9 -4.5v9z" {paint}/>').format(x=to_x - 1, y=to_y, paint=paint["head"])
    return line + head


def _box(box: Box, paint: Paint) -> Markup:
    node = box.node
    round_ = node.height // 2 if node.look == "person" else 6
    lines = [
        Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="{}" {}/>').format(
            box.x, box.y, WIDTH, node.height, min(round_, 24), paint[node.look]
        )
    ]
    down = box.y + MARGIN + LINE - 5
    for number, text in enumerate((*node.name, *node.notes)):
        how = paint["name" if number < len(node.name) else "note"]
        lines.append(
            Markup('<text x="{}" y="{}" {}>{}</text>').format(box.x + MARGIN, down + number * LINE, how, _xml(text))
        )
    return Markup("").join(lines)


def _xml(text: str) -> str:
    """The text without what XML cannot have at all, however it is escaped (XML 1.0 section 2.2)."""
    return "".join(
        one if one >= " " and not "\ud800" <= one <= "\udfff" and one not in "\ufffe\uffff" else " " for one in text
    )
