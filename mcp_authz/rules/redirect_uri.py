"""Redirect URIs: which ones a client may have, which one was meant, and where that is in a person's words.

What two readers could read differently is refused when the URI is registered; from then on text is compared with text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote_plus

from mcp_authz import limits
from mcp_authz.errors import InputError

SCHEMES: Final = ("cursor", "vscode", "vscode-insiders", "windsurf", "zed")
"""Private-use schemes without a dot that well-known clients have."""

THIS_COMPUTER: Final = "this computer"
RESPONSE: Final = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})

_SCHEME: Final = re.compile(r"(?=.{1,64}\Z)[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)*")
_CHARACTERS: Final = re.compile(r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})+")  # RFC 3986, no fragment
_PARTS: Final = re.compile(r"(?P<scheme>[^:/?]+):(?://(?P<authority>[^/?]*))?(?P<path>[^?]*)(?:\?(?P<query>.*))?")
_PORT: Final = r"(?::(?P<port>[1-9][0-9]{0,4}))?"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_WEB: Final = re.compile(
    rf"(?P<host>(?=[^:]{{1,253}}(?::|\Z))(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])){_PORT}"
)
_LOOPBACK: Final = re.compile(rf"(?P<host>127\.0\.0\.1|\[::1\]|localhost){_PORT}")
_APP: Final = re.compile(r"(?P<host>[A-Za-z0-9._~-]*)")
_PATH: Final = re.compile(r"(?:/[^/]*)*")
_ENCODED: Final = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")  # a control character
_ENCODED_IN_PATH: Final = re.compile(r"%(?:2[EeFf]|5[Cc])|\[|\]")  # `.`, `/`, `\`: who decodes sees another path
# What a browser runs, opens or speaks by itself: none of them leads to an application of the person.
_NEVER: Final = frozenset(
    {"about", "blob", "data", "file", "filesystem", "ftp", "http", "https", "intent", "jar", "javascript", "mailto",
     "ms-appx", "resource", "sms", "tel", "urn", "vbscript", "view-source", "ws", "wss"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an answer goes, in words for people."""

    kind: Literal["web", "loopback", "app"]
    host: str  # the host's name, with its port if it says one; `this computer`; an application's scheme


def require_scheme(scheme: str) -> str:
    """Return `scheme`, known to be one by which an application may be called.

    Raises:
        InputError: it is none, or one that a browser acts on by itself.
    """
    if not _SCHEME.fullmatch(scheme) or scheme in _NEVER:
        raise InputError(f"`{_shown(scheme)}` is no scheme of an application; name one such as `vscode`")
    return scheme


def require_registrable(uri: str, schemes: Collection[str]) -> str:
    """Return `uri`, known to be one that a client may have its answers sent to; there is one way to read it.

    That is https with the full name of a host, http on loopback (RFC 8252 section 7.3), or a private-use scheme with a
    dot (section 7.1) or among `schemes`.

    Raises:
        InputError: it is another kind of URI, or could be read in two ways.
    """
    shown = _shown(uri)
    if not 0 < len(uri) <= limits.REDIRECT_URI:
        raise InputError(f"redirect URI `{shown}` is empty, or longer than {limits.REDIRECT_URI} characters")
    if "#" in uri:
        raise InputError(f"redirect URI `{shown}` has a fragment; leave it out (RFC 6749 section 3.1.2)")
    parts = _PARTS.fullmatch(uri) if _CHARACTERS.fullmatch(uri) else None
    if parts is None:
        raise InputError(f"redirect URI `{shown}` is no absolute URI (RFC 3986)")
    _require_place(parts, schemes, shown)
    _require_one_reading(parts["path"], parts["query"] or "", shown)
    return uri


def is_registered(registered: Iterable[str], asked: str) -> bool:
    """Whether `asked` is one of the registered URIs, character for character (RFC 6749 section 3.1.2.3).

    On loopback the port may be another one, and nothing else (RFC 8252 section 7.3): `127.0.0.1`, `[::1]` and
    `localhost` are three hosts.
    """
    known = tuple(registered)
    if asked in known:
        return True
    meant = _without_port(asked)
    return meant is not None and any(_without_port(uri) == meant for uri in known)


def is_loopback(uri: str) -> bool:
    """Whether the answer goes to whatever listens on the person's own computer."""
    return _without_port(uri) is not None


def place(uri: str) -> Place:
    """Where the answer goes, of a URI that is registrable."""
    if is_loopback(uri):
        return Place(kind="loopback", host=THIS_COMPUTER)
    scheme, _, rest = uri.partition(":")
    if scheme != "https":
        return Place(kind="app", host=scheme)
    return Place(kind="web", host=re.split(r"[/?]", rest.removeprefix("//"), maxsplit=1)[0])


def _require_place(parts: re.Match[str], schemes: Collection[str], shown: str) -> None:
    scheme, authority = parts["scheme"], parts["authority"]
    if "@" in (authority or ""):
        raise InputError(f"redirect URI `{shown}` has a user in it; leave that out")
    if scheme == "https":
        if not _is_at(_WEB, authority):
            raise InputError(f"redirect URI `{shown}` must have the full name of a host, in small letters")
    elif scheme == "http":
        if not _is_at(_LOOPBACK, authority):
            raise InputError(f"redirect URI `{shown}`: http is for 127.0.0.1, [::1] and localhost only; use https")
    elif scheme in _NEVER or not _SCHEME.fullmatch(scheme) or not ("." in scheme or scheme in schemes):
        raise InputError(f"redirect URI `{shown}` must begin with https://, or with a scheme in `[clients] schemes`")
    elif not authority and not parts["path"].startswith("/"):
        raise InputError(f"redirect URI `{shown}` must say a path, which begins with /")
    elif authority is not None and not _APP.fullmatch(authority):
        raise InputError(f"redirect URI `{shown}` has an odd character before its path")


def _require_one_reading(path: str, query: str, shown: str) -> None:
    if _ENCODED.search(path) or _ENCODED.search(query):
        raise InputError(f"redirect URI `{shown}` has an encoded control character")
    steps = path.split("/")
    if not _PATH.fullmatch(path) or _ENCODED_IN_PATH.search(path) or not {".", ".."}.isdisjoint(steps):
        raise InputError(f"redirect URI `{shown}` must have a path without `.`, `..` and encoded `.`, `/` or `\\`")
    if "//" in path:
        raise InputError(f"redirect URI `{shown}` has an empty step in its path")
    names = {unquote_plus(pair.partition("=")[0]) for pair in query.split("&")}
    if taken := sorted(RESPONSE & names):
        raise InputError(f"redirect URI `{shown}` has `{taken[0]}` in its query, which is for the answer to say")


def _is_at(pattern: re.Pattern[str], authority: str | None) -> bool:
    found = pattern.fullmatch(authority or "")
    return found is not None and int(found["port"] or 1) <= 65535


def _without_port(uri: str) -> tuple[str, str] | None:
    """Host, and path with query, of an http URI on loopback; None for every other one."""
    parts = _PARTS.fullmatch(uri) if _CHARACTERS.fullmatch(uri) else None
    if parts is None or parts["scheme"] != "http" or not _is_at(_LOOPBACK, parts["authority"]):
        return None
    authority = parts["authority"]
    found = _LOOPBACK.fullmatch(authority)
    return None if found is None else (found["host"], uri.removeprefix(f"http://{authority}"))


def _shown(uri: str) -> str:
    return uri[:128].encode("ascii", "backslashreplace").decode()
