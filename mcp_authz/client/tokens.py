"""The agent's access token: signed in once for all who need it, renewed before it ends, always for the same session."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

AHEAD: Final = 30.0  # seconds before its end in which a token is not used any more

SignIn = Callable[[Mapping[str, str]], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token, and what it is for as far as the gateway says so."""

    access: str = field(repr=False)
    ends: float  # monotonic seconds until which it is used
    session: str | None
    subject: str | None

    @property
    def person(self) -> str | None:
        """Whom the agent acts for, as `user:NAME`; None in the agent's own name."""
        return self.subject if self.subject is not None and self.subject.startswith("user:") else None

    @property
    def is_own_name(self) -> bool:
        """Whether the agent acts for nobody, and so can call nothing."""
        return self.subject is not None and self.person is None


class Tokens:
    """Gives out the current token; `sign_in` makes a new one for the claims it is given.

    `person` (`user:NAME`) and `session` narrow the first sign-in. Each later one names the session of the one before,
    so that a session which somebody starts meanwhile is not taken for it; when that session is over, one for the same
    person is asked for.
    """

    def __init__(self, sign_in: SignIn, *, person: str | None = None, session: str | None = None) -> None:
        self._sign_in = sign_in
        self._person = person
        self._session = session
        self._token: Token | None = None
        self._lock = anyio.Lock()

    async def current(self) -> Token:
        """Return a token that is good for a while; whatever `sign_in` raises when there is none."""
        async with self._lock:
            if self._token is None or time.monotonic() >= self._token.ends:
                self._token = None
                self._token = await self._renewed()
            return self._token

    def drop(self, token: Token, *, session: str | None = None) -> None:
        """The token is not given out again; `session` is the one that the next is for, where that is known."""
        if self._token is token:
            self._token = None
        if session is not None:
            self._session = session

    async def _renewed(self) -> Token:
        token = await self._signed_in()
        if token.is_own_name and self._session is not None:  # that session is over
            self._session = None
            token = await self._signed_in()
        self._session = token.session
        self._person = token.person or self._person
        return token

    async def _signed_in(self) -> Token:
        claims = {"session": self._session} if self._session is not None else {}
        if not claims and self._person is not None:
            claims = {"subject": self._person}
        began = time.monotonic()
        answer = await self._sign_in(claims)
        seconds = answer.get("expires_in")
        lasts = float(seconds) if isinstance(seconds, int | float) else 0.0
        return Token(
            access=str(answer["access_token"]),
            ends=began + max(lasts - AHEAD, lasts / 2),
            session=_text(answer.get("session")),
            subject=_text(answer.get("subject")),
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
