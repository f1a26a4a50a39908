"""Names that pass for others: what a name looks like, whatever letters it is written with."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Letters that look Latin and are not (from UTS #39's confusables: those that common typefaces draw alike).
_ALIKE: Final = str.maketrans(
    {
        **dict(zip("аеорсухіјѕԁһӏԛԝѵгтмкнвп", "aeopcyxijsdhlqwvrtmkhbn", strict=True)),
        **dict(zip("αβγεικνορτυχωѡ", "abyeiknoptuxww", strict=True)),
        **dict(zip("ɑɡɩʟօսոհցզ", "agllouhhgq", strict=True)),
        **dict(zip("ıȷłđħŧ", "ijldht", strict=True)),
    }
)
_DIGITS: Final = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "5": "s"})
_SEPARATORS: Final = re.compile(r"[\s_./:-]+")
_PARTS: Final = re.compile(r"[_./-]|[a-z][A-Z]")


def folded(text: str) -> str:
    """Return the text in lower case, with compatibility forms and look-alike letters as plain Latin ones."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text).casefold().translate(_ALIKE)
    return "".join(character for character in plain if not unicodedata.combining(character))


def skeleton(name: str) -> str:
    """Return what is the same for all names that a person may take for each other."""
    return _SEPARATORS.sub("", folded(name)).translate(_DIGITS).replace("rn", "m").replace("vv", "w")


def is_disguised(name: str) -> bool:
    """Whether a name that is not plain Latin looks as if it were, or mixes scripts."""
    if name.isascii():
        return False
    return folded(name).isascii() or len({script for c in name if (script := _script(c))}) > 1


def is_compound(name: str) -> bool:
    """Whether a name has parts, such as `read_file`: a plain word is in too many texts, and in too many servers."""
    return _PARTS.search(name) is not None


def _script(character: str) -> str:
    """The first word of the letter's Unicode name, which is its script; empty for what belongs to every script."""
    return unicodedata.name(character, "").split(" ")[0] if character.isalpha() else ""
