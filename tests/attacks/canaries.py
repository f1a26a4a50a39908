"""Secrets that say where they were put, and one look that finds them in whatever spelling."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import quote


class Canaries:
    """A secret for each place, and where any of them turned up.

    Those of `shaped` look like the keys of a well-known service; all others look like nothing. `meant` says what may be
    read where all the same: the beginning of where it is looked -> places.
    """

    def __init__(self, places: str, shaped: str = "", *, meant: Mapping[str, set[str]] | None = None) -> None:
        self.of = {place: f"CANARY-{place}-{secrets.token_hex(6)}" for place in places.split()}
        self.of |= {place: f"ghp_{place}{secrets.token_hex(12)}" for place in shaped.split()}
        self.found: list[str] = []
        self.meant: list[str] = []
        self._meant = meant or {}

    def __getitem__(self, place: str) -> str:
        return self.of[place]

    def add(self, name: str, secret: str) -> str:
        """One more secret, which somebody else made."""
        assert len(secret) >= 8, "it would be found anywhere"
        self.of[name if name not in self.of else f"{name} {len(self.of)}"] = secret
        return secret

    def look(self, where: str, raw: bytes | str) -> None:
        """Note every secret that is in there, in whatever spelling."""
        raw = raw.encode() if isinstance(raw, str) else raw
        meant = next((places for start, places in self._meant.items() if where.startswith(start)), set[str]())
        for place, secret in self.of.items():
            if any(spelling in raw for spelling in spelt(secret)):
                (self.meant if place in meant else self.found).append(f"{place} in {where}")

    def look_below(self, directory: Path, where: str = "") -> None:
        """The same in every file below."""
        for file in sorted(directory.rglob("*")):
            self.look(f"{directory.name}/{file.name}{where}", file.read_bytes() if file.is_file() else b"")


@cache
def spelt(secret: str) -> tuple[bytes, ...]:
    """The ways in which a secret could have been written."""
    plain = secret.encode()
    coded = (
        code(plain[start:])[:-4]
        for start in range(3)
        for code in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode)
    )
    found = (
        plain,
        plain[::-1],
        plain.hex().encode(),
        plain.hex().upper().encode(),
        secret.encode("utf-16-le"),
        secret.encode("utf-16-be"),
        *coded,
        "".join(f"%{byte:02x}" for byte in plain).encode(),
        "".join(f"\\u{byte:04x}" for byte in plain).encode(),
        quote(secret, safe="").encode(),
    )
    return tuple(dict.fromkeys(one for one in found if len(one) >= 8))
