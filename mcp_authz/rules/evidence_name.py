"""How records name what was signed: by the digest of its exact bytes, which is where it is kept, too."""

from __future__ import annotations

import hashlib
from typing import Final

_PREFIX: Final = "sha256:"


def name_of(text: str) -> str:
    """`sha256:` and the hexadecimal digest of a compact JWS as it stands, signature included.

    What is signed may say the values of arguments, or a digest of them that has no key. Nobody finds them by trying
    values against this name: what it is a digest of ends in the signature over each guess, which takes the private key
    of whoever signed.
    """
    return f"{_PREFIX}{hashlib.sha256(text.encode()).hexdigest()}"


def digest_of(name: str) -> bytes | None:
    """The digest in a name; None where the text is none (logs and stores from before have the statement itself)."""
    if not name.startswith(_PREFIX):
        return None
    try:
        return bytes.fromhex(name.removeprefix(_PREFIX))
    except ValueError:
        return None
