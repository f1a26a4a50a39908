"""The agent's access token: signed in once for all who need it, renewed before it ends, always for the same session."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from mcp_authz.client.sign_in import SignInRefused
from mcp_authz.rules.keys import PrivateKey

AHEAD: Final = 30.0  # seconds before its end in which a token is not used any more


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A token response, and the key that signed in for it."""

    answer: Mapping[str, Any] = field(repr=False)
    key: PrivateKey = field(repr=False)


SignIn = Callable[[Mapping[str, str]], Awaitable[SignedIn]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token, and what it is for as far as the gateway says so."""

    access: str = field(repr=False)
    ends: float  # monotonic seconds until which it is used
    session: str | None
    subject: str | None
    link: str | None  # the delegation that it is for; None in the agent's own name
    is_bound: bool  # whether each use takes a proof of the key (RFC 9449)
    key: PrivateKey = field(repr=False)

    @property
    def principal(self) -> str | None:
        """Whom the agent works for: `user:NAME`, or itself as `agent:NAME`; None in its own name, without a session."""
        return None if self.session is None else self.subject

    @property
    def is_own_name(self) -> bool:
        """Whether the agent has no session, and so can call nothing."""
        return self.subject is not None and self.session is None


class Tokens:
    """Gives out the current token; `sign_in` makes a new one for the claims it is given.

    `person` (`user:NAME`) and `session` narrow the first sign-in. Each later one names the session of the one before,
    so that a session which somebody starts meanwhile is not taken for it; when that session is over, one for the same
    subject is asked for.

    With `redeems` the first sign-in, which has no claims, redeems a signed chain, and each later one names the link
    that this led to. When that is refused the chain is redeemed anew: it may be another one by then.
    """

    def __init__(
        self, sign_in: SignIn, *, person: str | None = None, session: str | None = None, redeems: bool = False
    ) -> None:
        self._sign_in = sign_in
        self._redeems = redeems
        self._link: str | None = None
        self._subject = person
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
            self._redeems = False  # it has got a session of its own

    async def _renewed(self) -> Token:
        if self._redeems:
            return await self._redeemed()
        token = await self._signed_in()
        if token.is_own_name and self._session is not None:  # that session is over
            self._session = None
            token = await self._signed_in()
        self._session = token.session
        self._subject = token.principal or self._subject
        return token

    async def _redeemed(self) -> Token:
        link, self._link = self._link, None
        token: Token | None = None
        if link is not None:
            with suppress(SignInRefused):
                token = await self._asked({"delegation": link})
        if token is None or token.is_own_name:
            token = await self._asked({})
        self._link = token.link
        return token

    async def _signed_in(self) -> Token:
        claims = {"session": self._session} if self._session is not None else {}
        if not claims and self._subject is not None:
            claims = {"subject": self._subject}
        return await self._asked(claims)

    async def _asked(self, claims: Mapping[str, str]) -> Token:
        began = time.monotonic()
        signed_in = await self._sign_in(claims)
        answer = signed_in.answer
        seconds = answer.get("expires_in")
        lasts = float(seconds) if isinstance(seconds, int | float) else 0.0
        return Token(
            access=str(answer["access_token"]),
            ends=began + max(lasts - AHEAD, lasts / 2),
            session=_text(answer.get("session")),
            subject=_text(answer.get("subject")),
            link=_text(answer.get("link")),
            is_bound=str(answer.get("token_type", "")).lower() == "dpop",
            key=signed_in.key,
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
