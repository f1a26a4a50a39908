"""What is taken out of a record before it is appended; what is in the chain once can never be taken out of it.

Whatever people, callers or tool servers may have written is searched. What the gateway made up itself is not: ids,
digests, times, and words of closed lists. A pattern that finds too much must not cut one of them, and so every member
that is not known to be such is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mcp_authz.rules.redaction import REDACTED, Redaction, Redactor, Withheld, finds, read_redaction

_ENDINGS: Final = (
    "password passwd passphrase secret token apikey api_key api-key authorization cookie private_key privatekey "
    "access_key accesskey secret_key secretkey credential credentials"
)
_PATTERNS: Final = (
    r"(?:\b|_)gh[pousr]_[A-Za-z0-9]{20,}",  # GitHub
    r"(?:\b|_)github_pat_[A-Za-z0-9_]{20,}",
    r"(?:\b|_)glpat-[A-Za-z0-9_-]{16,}",  # GitLab
    r"(?:\b|_)sk-[A-Za-z0-9_-]{16,}",  # model providers
    r"(?:\b|_)[rs]k_(?:live|test)_[A-Za-z0-9]{10,}",  # Stripe
    r"(?:\b|_)(?:AKIA|ASIA)[A-Z0-9]{16}(?:\b|_)",  # AWS
    r"(?:\b|_)xox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"(?:\b|_)AIza[A-Za-z0-9_-]{30,}",  # Google
    r"(?:\b|_)npm_[A-Za-z0-9]{30,}",
    r"(?:\b|_)pypi-[A-Za-z0-9_-]{30,}",
    r"(?:\b|_)eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,3}",  # JWS and JWE
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z0-9 ]*PRIVATE KEY-----)?",
    r"(?i)(?:\b|_)bearer[ \t]+[A-Za-z0-9._~+/=-]{16,}",
    r"[a-z0-9+.-]+://[^/\s:@]*:[^/\s@]+@",  # a URL with a password
)
"""Behind `_` as well, which is part of a word to `\\b`: a tool's name has two of them."""

DEFAULT: Final = read_redaction(_PATTERNS, (), endings=_ENDINGS.split())
"""What is looked for where the configuration says nothing: usual names of secrets, and secrets of a known shape."""

_IDS: Final = (
    "arguments_digest assertion before binding confirmation definition delegator_key digest evidence exchanged "
    "grant grants hash hold holds jwk key keys kid link links listed message n name of parent pinned policy "
    "policy_before prev proof_digest pruned reason_code replaces result_digest root session sessions "
    "settings span standing statement token trace"
)
_WORDS: Final = (
    "action amr assurance at authenticated_at because count decision environment expires_at hazard kind max_age method "
    "milliseconds missing mode obligations observing outcome proof quorum redacted rule rules scope sent_back_for seq "
    "sequence server state use verdict version would"
)
_NAMES: Final = "actor agent by ceiling ceiling_before chain client from holder peer person roles source subject"
_BOUND: Final = frozenset(f"{_IDS} {_WORDS} {_NAMES}".split())
"""Members that the gateway itself made up; what stands in them cannot be a secret of anybody."""

_OWN: Final = frozenset({"approval", "observed", "differences"})
"""Members that are objects of the gateway's own, with members of the same names as a record's."""

_FINDINGS: Final = 1_000  # of one record; then what is searched is withheld as a whole
_OF_KIND: Final[Mapping[str, frozenset[str]]] = {
    "administration": frozenset({"pruned", "restored", "lost"}),  # hashes, and public keys
    "checkpoint": frozenset({"text"}),  # a checkpoint's signature looks like a token, and is public
    "pin": frozenset({"tools"}),  # digests
    "decision": frozenset({"reason"}),  # a code, where other records have words of people
    "sign-in": frozenset({"reason"}),
    "refusals": frozenset({"reason"}),
}


class RecordRedaction:
    """Takes out of records what one redaction names."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._finds = finds(redaction)

    def __call__(self, kind: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a record of this kind, redacted; the same object where nothing was found."""
        bound, texts = _bound(kind, fields), list[str]()
        if not self._collect(fields, bound, texts) and not self._finds(texts):
            return fields
        return self._object(fields, bound)

    def text(self, said: str) -> str:
        """Return what somebody said, redacted as a record of it is."""
        if not self._finds([said]):
            return said
        redacted: str = self._redacted(said)
        return redacted

    def _collect(self, fields: Mapping[str, Any], bound: frozenset[str], texts: list[str]) -> bool:
        """Whether a member's name alone says that it is redacted; else all texts that are searched are in `texts`."""
        for name, value in fields.items():
            if name in bound:
                continue
            if isinstance(value, str):
                texts.append(value)
            elif name in _OWN and isinstance(value, Mapping):
                if self._collect(value, _BOUND, texts):
                    return True
            elif self._texts(value, texts):
                return True
        return False

    def _texts(self, value: Any, texts: list[str]) -> bool:
        match value:
            case str():
                texts.append(value)
            case None | bool():
                pass
            case dict() | Mapping():
                texts.extend(value)
                return any(map(self._redaction.names, value)) or any(self._texts(it, texts) for it in value.values())
            case list() | tuple():
                return any(self._texts(it, texts) for it in value)
            case _:
                texts.append(str(value))
        return False

    def _object(self, fields: Mapping[str, Any], bound: frozenset[str]) -> Mapping[str, Any]:
        changed = {}
        for name, value in fields.items():
            if name in bound or value is None or isinstance(value, bool | int):
                continue
            if name in _OWN:
                redacted = self._own(value)
            elif self._is_suspect(value):
                redacted = self._redacted(value)
            else:
                continue
            if redacted is not value:
                changed[name] = redacted
        return {**fields, **changed} if changed else fields

    def _own(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self._object(value, _BOUND)
        if isinstance(value, list | tuple):
            inside = [self._own(item) for item in value]
            return inside if any(new is not old for new, old in zip(inside, value, strict=True)) else value
        return self._redacted(value) if self._is_suspect(value) else value

    def _is_suspect(self, value: Any) -> bool:
        texts: list[str] = []
        return self._texts(value, texts) or self._finds(texts)

    def _redacted(self, value: Any) -> Any:
        redactor = Redactor((self._redaction,), _patience(_FINDINGS))
        try:
            return redactor.value(value)
        except Withheld:
            return REDACTED


def _bound(kind: str, fields: Mapping[str, Any]) -> frozenset[str]:
    """The members of such a record that are not searched."""
    own = _EXEMPT.get(kind, _NAMED)
    # A tool that is not there is recorded as its caller called it.
    return own - {"tool"} if kind == "decision" and "server" not in fields else own


def _patience(findings: int) -> Callable[[], bool]:
    left = iter(range(findings))
    return lambda: next(left, None) is not None


_NAMED: Final = _BOUND | {"tool"}
_EXEMPT: Final = {kind: _NAMED | more for kind, more in _OF_KIND.items()}
