"""The agent's access token: signed in once for all who need it, renewed before it ends, always for the same session."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

import anyio

from mcp_authz.client.door import SignInRefused
from mcp_authz.client.granted import Granted
from mcp_authz.client.possession import Possession
from mcp_authz.client.trouble import Trouble


class Purse(Protocol):
    """Has the token that each message goes by, and knows what to do where it is not enough."""

    @property
    def possession(self) -> Possession:
        """What proofs of the key are made with."""
        ...

    async def current(self) -> Granted:
        """Return a token that is good for a while.

        Raises:
            Trouble, SignInRefused, NoAnswer: there is none.
        """
        ...

    def drop(self, token: Granted, *, session: str | None = None) -> None:
        """The token is not given out again."""
        ...

    def kept_out(self, why: str) -> Trouble:
        """What to say when the gateway takes no token of these, and why it says that it does not."""
        ...

    def refused(self, trouble: Trouble) -> Trouble:
        """What to say of a message that the gateway did not take."""
        ...


SignIn = Callable[[Mapping[str, str]], Awaitable[Granted]]


class Tokens:
    """Gives out the current token; `sign_in` makes a new one for the claims it is given.

    `person` (`user:NAME`) and `session` narrow the first sign-in. Each later one names the session of the one before,
    so that a session which somebody starts meanwhile is not taken for it; when that session is over, one for the same
    subject is asked for. No other one is taken for a session that was named and was never there.

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
        self._insists = session is not None  # on the session that was named, until it was there once
        self._token: Granted | None = None
        self._until = 0.0  # monotonic seconds until which it is used
        self._lock = anyio.Lock()

    async def current(self) -> Granted:
        """Return a token that is good for a while; whatever `sign_in` raises when there is none."""
        async with self._lock:
            if self._token is None or time.monotonic() >= self._until:
                self._token = None
                self._token = await self._renewed()
            return self._token

    def drop(self, token: Granted, *, session: str | None = None) -> None:
        """The token is not given out again; `session` is the one that the next is for, where that is known."""
        if self._token is token:
            self._token = None
        if session is not None:
            self._session, self._insists = session, False
            self._redeems = False  # it has got a session of its own

    async def _renewed(self) -> Granted:
        if self._redeems:
            return await self._redeemed()
        token = await self._signed_in()
        if token.is_own_name and self._insists:  # another session is not what was asked for
            return token
        self._insists = False
        if token.is_own_name and self._session is not None:  # that session is over
            self._session = None
            token = await self._signed_in()
        self._session = token.session
        self._subject = token.principal or self._subject
        return token

    async def _redeemed(self) -> Granted:
        link, self._link = self._link, None
        token: Granted | None = None
        if link is not None:
            with suppress(SignInRefused):
                token = await self._asked({"delegation": link})
        if token is None or token.is_own_name:
            token = await self._asked({})
        self._link = token.link
        return token

    async def _signed_in(self) -> Granted:
        claims = {"session": self._session} if self._session is not None else {}
        if not claims and self._subject is not None:
            claims = {"subject": self._subject}
        return await self._asked(claims)

    async def _asked(self, claims: Mapping[str, str]) -> Granted:
        began = time.monotonic()
        token = await self._sign_in(claims)
        self._until = began + token.lasts.total_seconds()
        return token
