"""Scopes: what one permission word covers, and which word a call needs (DESIGN section 8).

A held scope covers itself and any extension. `*` stands for exactly one whole segment; between two held scopes it is
covered only by `*` or by a shorter prefix. Covering is reflexive, transitive and antisymmetric.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NewType

from mcp_authz import limits
from mcp_authz.errors import DelegationError, ScopeError

Scope = NewType("Scope", str)

DECIDE: Final = Scope("holds:decide")
"""Leave to answer held calls from a client: a person agrees to it by name, for that client, and nothing implies it.

It is no leave to call anything, so that no ceiling has it, no link hands it on, and no tool can need it.
"""

READ: Final = Scope("administration:read")
"""Leave to read in a client what a person may read of the gateway itself: records, agents, sessions."""

STOP: Final = Scope("administration:stop")
"""Leave to stop from a client what a person may stop."""

PERSONAL: Final = frozenset({DECIDE, READ, STOP})
"""What a person gives to a client of theirs by its name, each time; nothing implies it, and nobody hands it on."""

PERSONAL_REFUSED: Final = (
    f"{', '.join(f'`{scope}`' for scope in sorted(PERSONAL))} are not given like this: "
    "a person agrees to them on the consent page, for a client of theirs"
)
_OURS: Final = frozenset(scope.partition(":")[0] for scope in PERSONAL)  # what scopes of tools do not begin with

_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 section 3.3
_VARIABLE: Final = re.compile(r"\{([A-Za-z0-9_.$-]{1,128})\}")
_VALUE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def parse_scope(text: str) -> Scope:
    """Return `text` as a scope, once it is known to be segments of RFC 6749 characters.

    Raises:
        ScopeError: it is too long, has an empty segment, a foreign character, or a `*` that is not a whole segment.
    """
    if not isinstance(text, str):
        raise ScopeError("a scope is text")
    if len(text) > limits.SCOPE_CHARACTERS:
        raise ScopeError(f"a scope is longer than {limits.SCOPE_CHARACTERS} characters")
    if not _TOKEN.fullmatch(text):
        raise ScopeError("a scope is empty or has a character that RFC 6749 does not allow")
    for segment in text.split(":"):
        if not segment:
            raise ScopeError(f"scope `{text}` has an empty segment")
        if "*" in segment and segment != "*":
            raise ScopeError(f"scope `{text}` has a `*` that is not a whole segment")
    return Scope(text)


def parse_scopes(text: str | Iterable[str]) -> frozenset[Scope]:
    """Return the scopes of a space-separated list or of an iterable; an empty string is no scope.

    Raises:
        ScopeError: one of them is not a scope, or there are more than `limits.SCOPES`.
    """
    words = (text.split(" ") if text else []) if isinstance(text, str) else list(text)
    if len(words) > limits.SCOPES:
        raise ScopeError(f"there are more than {limits.SCOPES} scopes")
    return frozenset(parse_scope(word) for word in words)


@lru_cache(maxsize=8192)
def covers(held: Scope, needed: Scope) -> bool:
    """Whether who holds `held` has all that `needed` stands for; `needed` may itself be a held scope with `*`.

    What is personal is covered by itself alone, and covers nothing else.
    """
    if held == needed:
        return True
    if held in PERSONAL or needed in PERSONAL:
        return False
    have, need = held.split(":"), needed.split(":")
    return len(have) <= len(need) and all(h in ("*", n) for h, n in zip(have, need, strict=False))


def covered(needed: Scope, held: Iterable[Scope]) -> bool:
    """Whether one of the scopes in `held` covers `needed`."""
    return any(covers(scope, needed) for scope in held)


def narrow(granted: frozenset[Scope], asked: frozenset[Scope]) -> frozenset[Scope]:
    """Return `asked`, once it is known to be no more than `granted`.

    Raises:
        DelegationError: something in `asked` is not covered by `granted`.
    """
    extra = {scope for scope in asked if not covered(scope, granted)}
    if not extra.isdisjoint(PERSONAL):
        raise DelegationError(PERSONAL_REFUSED)
    if extra:
        raise DelegationError(f"link asks for more than it was given: {sorted(extra)}")
    return asked


def common(a: frozenset[Scope], b: frozenset[Scope]) -> frozenset[Scope]:
    """Return what both sides hold: the scopes of `a` that `b` covers, and those of `b` that `a` covers."""
    return frozenset(scope for scope in a if covered(scope, b)) | frozenset(scope for scope in b if covered(scope, a))


def without_personal(scopes: frozenset[Scope]) -> frozenset[Scope]:
    """Return `scopes`, once nothing personal is known to be among them.

    Raises:
        ScopeError: something is.
    """
    if not scopes.isdisjoint(PERSONAL):
        raise ScopeError(PERSONAL_REFUSED)
    return scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeTemplate:
    """A scope in which some whole segments are taken from a call's arguments: `pr:write:{owner}:{repo}`."""

    text: str
    segments: tuple[str, ...]  # literal text, or an argument's name
    variable: tuple[bool, ...]  # for each segment, whether it names an argument

    @classmethod
    def parse(cls, text: str) -> ScopeTemplate:
        """Return the template, once it is known that every filling of it is a scope without `*`.

        Raises:
            ScopeError: a segment is empty, has a brace inside, or is `*`; or the first one is the gateway's own.
        """
        parse_scope(text)
        segments = text.split(":")
        names = [_VARIABLE.fullmatch(segment) for segment in segments]
        for segment, name in zip(segments, names, strict=True):
            if name is None and ("{" in segment or "}" in segment):
                raise ScopeError(f"scope template `{text}`: a variable is a whole segment, `{{argument}}`")
            if segment == "*":
                raise ScopeError(f"scope template `{text}`: what a call needs has no `*`")
        if segments[0] in _OURS:
            raise ScopeError(f"scope template `{text}`: `{segments[0]}` is the gateway's own word; begin with another")
        return cls(
            text=text,
            segments=tuple(name[1] if name else s for s, name in zip(segments, names, strict=True)),
            variable=tuple(name is not None for name in names),
        )

    @property
    def arguments(self) -> frozenset[str]:
        """The names of the arguments that a call must have for this template."""
        return frozenset(s for s, variable in zip(self.segments, self.variable, strict=True) if variable)

    def fill(self, arguments: Mapping[str, Any]) -> Scope:
        """Return the literal scope that a call with these arguments needs.

        Raises:
            ScopeError: an argument is missing, or is not a word that can stand as one segment; nothing is encoded.
        """
        filled = ":".join(
            _segment(segment, arguments) if variable else segment
            for segment, variable in zip(self.segments, self.variable, strict=True)
        )
        if len(filled) > limits.SCOPE_CHARACTERS:
            raise ScopeError(
                f"scope template `{self.text}` is filled to more than {limits.SCOPE_CHARACTERS} characters"
            )
        if (first := filled.partition(":")[0]) in _OURS:
            raise ScopeError(f"scope template `{self.text}`: `{first}` is the gateway's own word")
        return Scope(filled)

    def could_match(self, held: Iterable[Scope]) -> bool:
        """Whether some filling is covered by one of `held`, so that the tool is worth listing."""
        return any(self._could_be_under(scope.split(":")) for scope in held if scope not in PERSONAL)

    def _could_be_under(self, held: list[str]) -> bool:
        if len(held) > len(self.segments):
            return False
        chosen: dict[str, str] = {}  # one argument has one value, wherever it stands
        for have, segment, variable in zip(held, self.segments, self.variable, strict=False):
            if have == "*":
                continue
            if not variable:
                if have != segment:
                    return False
            elif not _fits(have) or chosen.setdefault(segment, have) != have:
                return False
        return True

    def __str__(self) -> str:
        return self.text


def _segment(name: str, arguments: Mapping[str, Any]) -> str:
    if name not in arguments:
        raise ScopeError(f"argument `{name}` is missing, and the scope of this call depends on it")
    value = arguments[name]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ScopeError(f"argument `{name}` must be a string or an integer, because the scope depends on it")
    if isinstance(value, int) and abs(value) > limits.JSON_INTEGER:
        raise ScopeError(f"argument `{name}` is beyond 2^53-1; send it as a string")
    text = str(value)
    if not _fits(text):
        raise ScopeError(f"argument `{name}` must be 1 to 128 of A-Z a-z 0-9 . _ - and not `.` or `..`")
    return text


def _fits(text: str) -> bool:
    return _VALUE.fullmatch(text) is not None and text not in (".", "..")
