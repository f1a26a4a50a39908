"""Which values of a client's file are secrets, judged by their names and by how they look."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit

_NAME: Final = re.compile(
    r"KEY|TOKEN|SECRET|PASS|PWD|AUTH|CRED|COOKIE|PRIVATE|BEARER|SESSION|DSN|SIGNATURE|JWT|(^|_)PAT($|_)", re.IGNORECASE
)
_BEGINNING: Final = re.compile(
    r"(sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[a-z]|AKIA|AIza|ya29|npm|pypi|hf|eyJ)[-_.A-Za-z0-9]{12,}"
)
_IN_URL: Final = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_WORD: Final = re.compile(r"[A-Za-z0-9+/=_.~-]{20,}")
_BITS: Final = (
    3.5  # per character; English words and paths have less, random base64 and hexadecimal text about it or more
)


def is_secret(name: str, value: str) -> bool:
    """Whether the value of the variable or argument `name` looks like something that others must not read."""
    return bool(value) and (_NAME.search(name) is not None or looks_secret(value))


def looks_secret(value: str) -> bool:
    """Whether the value looks like a key or a password, whatever it is called."""
    if _IN_URL.search(value) or _BEGINNING.fullmatch(value):
        return True
    if not _WORD.fullmatch(value) or value.startswith((".", "/", "-")) or value.count("/") > 2:
        return False
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return mixed and _entropy(value) >= _BITS


def secret_arguments(arguments: Sequence[str]) -> frozenset[int]:
    """Return where a secret stands among the arguments of a command: `--api-key X`, `--token=X`, or by its looks."""
    found = set()
    for at, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        before = arguments[at - 1] if at else ""
        named = before.startswith("-") and "=" not in before and not argument.startswith("-") and _NAME.search(before)
        if named or looks_secret(argument) or (equals and flag.startswith("-") and is_secret(flag, value)):
            found.add(at)
    return frozenset(found)


def url_has_secret(url: str) -> bool:
    """Whether the URL carries a password, or something like one in its query."""
    parts = urlsplit(url)
    return parts.password is not None or any(is_secret(name, value) for name, value in parse_qsl(parts.query))


def _entropy(text: str) -> float:
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
