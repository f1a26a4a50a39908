"""Text without the characters that are drawn as nothing, and where what is found in it stands in the text as it came.

Those are Unicode's own: `Default_Ignorable_Code_Point` of DerivedCoreProperties. Whoever reads a word with one of them
inside reads the word, and whoever searches for the word does not find it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

_IGNORABLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_UNSEEN: Final = re.compile(f"[{_IGNORABLE}]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """The bytes of a text without those characters, and where its stretches begin: here, and in the text."""

    raw: bytes
    here: tuple[int, ...]
    there: tuple[int, ...]

    def in_text(self, start: int, end: int) -> tuple[int, int]:
        """Return where these bytes, at least one, stand in the text; what is unseen inside of them is among them."""
        return self._of(start), self._of(end - 1) + 1

    def _of(self, at: int) -> int:
        stretch = bisect_right(self.here, at) - 1
        return self.there[stretch] + at - self.here[stretch]


def without_unseen(text: str) -> str:
    """Return the text as it is read."""
    return text if text.isascii() else _UNSEEN.sub("", text)


def bare(text: str) -> Bare | None:
    """Return what is read of the text, in UTF-8; None where that is all of it."""
    if text.isascii() or _UNSEEN.search(text) is None:
        return None
    pieces, here, there = list[bytes](), list[int](), list[int]()
    length = passed = at = 0
    for unseen in [*_UNSEEN.finditer(text), None]:
        piece = text[at : len(text) if unseen is None else unseen.start()].encode("utf-8", "replace")
        pieces.append(piece)
        here.append(length)
        there.append(passed)
        length += len(piece)
        passed += len(piece)
        if unseen is not None:
            passed += len(unseen[0].encode())
            at = unseen.end()
    return Bare(raw=b"".join(pieces), here=tuple(here), there=tuple(there))
