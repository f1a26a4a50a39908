"""The tokens of a person's own login at a gateway: whoever works at their terminal is the client that they agreed to.

They lie in a file that `mcp-authz login` writes and each process renews; it is read each time, since it may be another
by then. A login that has ended is not made anew here: that takes the person.
"""

from __future__ import annotations

import shlex

from mcp_authz.client.door import NoAnswer, SignInRefused
from mcp_authz.client.granted import Granted
from mcp_authz.client.mcp_auth import McpAuth
from mcp_authz.client.signed_in import SignedIn
from mcp_authz.client.trouble import FORBIDDEN, UNAUTHENTICATED, Trouble
from mcp_authz.errors import AuthzError


class LoginTokens:
    """Gives out what the login at `auth.url` has; `login` are the words of the command that makes one."""

    def __init__(self, auth: McpAuth, *login: str) -> None:
        self._auth = auth
        self._login = login
        self._refused: SignedIn | None = None
        self._last: tuple[SignedIn, Granted] | None = None
        self.possession = auth.possession

    async def current(self) -> Granted:
        """Return a token that is good for a while.

        Raises:
            Trouble: the login has ended, or there is none.
            NoAnswer: it cannot be renewed now.
        """
        try:
            signed_in = await self._auth.current(self._refused)
        except NoAnswer:
            raise
        except SignInRefused as error:
            raise self.kept_out(str(error)) from None
        except AuthzError as error:
            raise Trouble(f"{error}; then call again", reason="sign_in", rpc_code=UNAUTHENTICATED) from None
        if self._last is None or self._last[0].access != signed_in.access:
            self._last = signed_in, _granted(signed_in)
        return self._last[1]

    def drop(self, token: Granted, *, session: str | None = None) -> None:
        """The token is not given out again; the next one is of the session that the gateway opens for it."""
        if self._last is not None and self._last[1] is token:
            self._refused = self._last[0]

    def kept_out(self, why: str) -> Trouble:
        """Why, where there still is a login, as when a clock is wrong; else only the person can help."""
        if self._auth.signed_in is None:
            return self._ended()
        return Trouble(
            f"the login at {self._auth.url} is of no use now: {why}", reason="sign_in", rpc_code=UNAUTHENTICATED
        )

    def refused(self, trouble: Trouble) -> Trouble:
        """With the command by which the person lets it do more, where that is what is missing."""
        if not trouble.scope:
            return trouble
        had = frozenset[str]() if self._last is None else self._last[0].scope
        more = self._command("--scope", " ".join(sorted(trouble.scope - had or trouble.scope)))
        return Trouble(f"this takes more than you agreed to; run `{more}`, then call again", rpc_code=FORBIDDEN)

    def _ended(self) -> Trouble:
        sentence = f"nobody is signed in at {self._auth.url}; run `{self._command()}`, then call again"
        return Trouble(sentence, reason="sign_in", rpc_code=UNAUTHENTICATED)

    def _command(self, *more: str) -> str:
        return shlex.join([*self._login, *more])


def _granted(signed_in: SignedIn) -> Granted:
    return Granted(
        access=signed_in.access,
        key=signed_in.key,
        is_bound=signed_in.is_bound,
        began_at=signed_in.began_at,
        ends_at=signed_in.ends_at,
        scope=signed_in.scope,
        session=signed_in.more.get("session"),
        subject=signed_in.more.get("subject"),
        link=None,  # its calls are not signed: no key is known to the gateway as this client's
        answer=signed_in.more,
    )
