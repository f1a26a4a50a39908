"""Enrolment by one-time codes: the operator announces an agent, and whoever has the code registers its first key."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import Conflict
from mcp_authz.principals import AgentName, Key, Thumbprint
from mcp_authz.rules.keys import PublicKey, random_bytes
from mcp_authz.store.ports import Clock, Enrolment, Event, Store

_CODE: Final = re.compile(r"[a-z2-7]{26}")  # base32 of 128 bits


class CodeRefused(Conflict):
    """A code that is unknown, another agent's, used or expired: which of these, nobody is told."""

    code = "enrolment_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A new code; it is shown once and kept by nobody."""

    agent: AgentName
    text: str
    expires_at: datetime

    def __repr__(self) -> str:
        return "Code(<redacted>)"


class Codes:
    """Makes codes, and takes each of them once."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def make(self, name: AgentName, *, by: str) -> Code:
        """The agent can register a key by this code, once, for `limits.ENROLMENT_CODE`; earlier codes end.

        Raises:
            Conflict: the agent is not there, is revoked, or has a key already.
        """
        text = base64.b32encode(random_bytes(16)).decode().rstrip("=").lower()
        now = self._clock()
        code = Code(agent=name, text=text, expires_at=now + limits.ENROLMENT_CODE)
        fields = {"summary": f"agent {name} has a one-time code to enrol with", "by": by, "agent": f"agent:{name}"}
        made = Enrolment(digest=_digest(text), agent=name, made_at=now, expires_at=code.expires_at)
        await self._store.add_enrolment(made, Event(kind="enrolment", at=now, fields=fields))
        return code

    async def enrol(self, name: AgentName, code: str, key: PublicKey) -> Key:
        """The agent has this key, which proved itself, and the code is used.

        The same code with the same key again is answered alike: the first answer may not have arrived.

        Raises:
            CodeRefused: the code is not one with which this agent can register a key now.
            Conflict: the code is, and the key belongs to somebody already.
        """
        now, holder = self._clock(), f"agent:{name}"
        digest = _digest(code if _CODE.fullmatch(code) else "")
        held = Key(thumbprint=Thumbprint(key.thumbprint), holder=holder, raw=key.raw, added_at=now)
        fields = {
            "summary": f"agent {name} enrolled itself by its one-time code",
            "by": holder,
            "agent": holder,
            "key": held.thumbprint,
        }
        try:
            await self._store.enrol(digest, held, Event(kind="enrolment", at=now, fields=fields))
        except Conflict:
            return await self._explained(name, digest, held)
        return held

    async def _explained(self, name: AgentName, digest: bytes, held: Key) -> Key:
        """The key, if this very code registered it before; the reason why not is for who has the right code only."""
        known, taken = await self._store.enrolment(digest), await self._store.key(held.thumbprint)
        if known is None or known.agent != name or self._clock() >= known.expires_at:
            raise CodeRefused("the enrolment code is unknown, used or expired")
        if known.used_at is None and taken is not None:
            raise Conflict("the key belongs to somebody already; make another one")
        if known.used_at is None or taken is None or not _is_first(taken, held, known.used_at):
            raise CodeRefused("the enrolment code is unknown, used or expired")
        return taken


def _is_first(taken: Key, held: Key, used_at: datetime) -> bool:
    """Whether the key is the one that the code registered, and still in use."""
    return (
        taken.holder == held.holder
        and taken.status == "active"
        and taken.retires_at is None
        and taken.added_at <= used_at
    )


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()
