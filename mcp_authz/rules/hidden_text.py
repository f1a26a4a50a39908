"""Characters that a person does not see and a model reads: where they stand in a text, and what they spell.

Emoji sequences and the joiners that Arabic and Indic scripts are written with are writing, not hiding.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_HIDDEN: Final = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
_WHITE: Final = frozenset("\t\n\r")
# Letters and marks without a shape of their own: fillers, the combining grapheme joiner, vowels that are not drawn.
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
_SELECTORS: Final = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_TAGS: Final = (0xE0000, 0xE007F)
_JOINERS: Final = frozenset("\u200c\u200d")
_MARKS: Final = frozenset("\u200e\u200f\u061c")  # direction marks, ordinary in a text that has right-to-left letters
_PICTURES: Final = (0x1F000, 0x1FAFF)

# A flag of a region: a black flag, its letters as tags, and the closing tag (UTS #51, ED-14a).
_REGION: Final = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
_WHITES: Final = re.compile(r"\s+")
_FAR: Final = 60  # blanks in a row that push what follows out of a window
_LINES_FAR: Final = 12


def hidden_characters(text: str) -> tuple[str, ...]:
    """Return every hidden character of the text, in its order."""
    if text.isascii() and text.isprintable():
        return ()
    text = _REGION.sub("\U0001f3f4", text)
    right_to_left = any(unicodedata.bidirectional(c) in ("R", "AL") and c not in _MARKS for c in text)
    return tuple(
        character
        for at, character in enumerate(text)
        if _is_hidden(character) and not _is_writing(text, at, right_to_left=right_to_left)
    )


def spelled(hidden: tuple[str, ...]) -> str:
    """Return the text that tag characters or variation selectors among these spell; empty where they spell none."""
    letters = []
    for character in hidden:
        code = ord(character)
        if _within(code, _TAGS):
            letters.append(chr(code - _TAGS[0]))
        elif any(_within(code, span) for span in _SELECTORS):  # one byte each, as they are commonly abused
            letters.append(chr(code - 0xFE00 if code <= 0xFE0F else code - 0xE0100 + 16))
    return "".join(letter for letter in letters if letter.isascii() and letter.isprintable())


def without_hidden(text: str) -> str:
    """Return the text as a model may well read it: without what is hidden in it."""
    return text if text.isascii() else "".join(c for c in text if c in _WHITE or not _is_hidden(c))


def is_padded(text: str) -> bool:
    """Whether something stands behind so much white space that it is out of sight where the text is shown."""
    return any(
        found.end() < len(text) and (found[0].count("\n") > _LINES_FAR or len(found[0]) - found[0].count("\n") > _FAR)
        for found in _WHITES.finditer(text)
        if len(found[0]) > _LINES_FAR
    )


def _is_hidden(character: str) -> bool:
    if character in _WHITE:
        return False
    code = ord(character)
    if unicodedata.category(character) in _HIDDEN:
        return not (unicodedata.category(character) == "Cn" and _within(code, _PICTURES))  # a later Unicode's emoji
    return has_no_shape(character)


def has_no_shape(character: str) -> bool:
    """Whether a letter, mark or selector of Unicode is drawn as nothing at all."""
    return character in _BLANK or any(_within(ord(character), span) for span in _SELECTORS)


def _is_writing(text: str, at: int, *, right_to_left: bool) -> bool:
    character = text[at]
    before, after = text[at - 1] if at else "", text[at + 1 : at + 2]
    if character in _MARKS:
        return right_to_left
    if character in "\ufe0e\ufe0f":  # one, after what has both a text and an emoji form
        return before != "" and (unicodedata.category(before)[0] in "SP" or before.isdigit())
    if character in _JOINERS and before and after:
        pictures = character == "\u200d" and (_is_picture(before) or before == "\ufe0f") and _is_picture(after)
        return pictures or (_joins_letters(before) and _joins_letters(after))
    return False


def _is_picture(character: str) -> bool:
    return unicodedata.category(character) in ("So", "Sk", "Sm", "Cn") and ord(character) >= 0x2190


def _joins_letters(character: str) -> bool:
    """Whether this is a letter or mark of a script that is written with joiners: Syriac, Arabic, Indic, Khmer."""
    code = ord(character)
    return unicodedata.category(character)[0] in "LM" and (
        _within(code, (0x0600, 0x109F)) or _within(code, (0x1780, 0x18AF))
    )


def _within(code: int, span: tuple[int, int]) -> bool:
    return span[0] <= code <= span[1]
