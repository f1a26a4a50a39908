"""The tokens of an agent that signs in with its own key: for which session, by which chain, with a fresh key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio

from mcp_authz.client.asking import Applicant, own_session, redeemed
from mcp_authz.client.door import NoAnswer, SignInRefused
from mcp_authz.client.granted import Granted
from mcp_authz.client.place import Place, Reached
from mcp_authz.client.possession import Possession
from mcp_authz.client.talk import carry
from mcp_authz.client.tokens import Tokens
from mcp_authz.client.trouble import UNAUTHENTICATED, Trouble
from mcp_authz.errors import AuthzError
from mcp_authz.rules.keys import PrivateKey

_SIGN_IN: Final = 10.0  # seconds


class AgentTokens:
    """Signs in as an agent; `person` (`user:NAME`) or `session` says for which of its sessions."""

    def __init__(
        self,
        place: Place,
        agent: str,
        key: Callable[[], PrivateKey],
        *,
        person: str | None = None,
        session: str | None = None,
        chain: Callable[[], str] | None = None,
        fresh: Callable[[Reached], Awaitable[None]] | None = None,
    ) -> None:
        """With `chain` the agent works in the delegation that this signed chain gives it.

        `fresh` may replace the key before each sign-in; `key` is what it is afterwards.
        """
        self.possession = Possession()
        self._place = place
        self._agent = agent
        self._key = key
        self._chain = chain
        self._fresh = fresh
        self._tokens = Tokens(self._sign_in, person=person, session=session, redeems=chain is not None)

    async def current(self) -> Granted:
        """Return a token that is good for a while.

        Raises:
            Trouble, SignInRefused, NoAnswer: there is none.
        """
        try:
            return await self._tokens.current()
        except (Trouble, SignInRefused, NoAnswer):
            raise
        except AuthzError as error:  # the key
            raise Trouble(
                f"agent `{self._agent}` cannot sign in: {error}; then call again",
                reason="sign_in",
                rpc_code=UNAUTHENTICATED,
            ) from None

    def drop(self, token: Granted, *, session: str | None = None) -> None:
        """The token is not given out again; `session` is the one that the next is for, where that is known."""
        self._tokens.drop(token, session=session)

    def kept_out(self, why: str) -> Trouble:
        """The operator can say whether the gateway knows the agent, and by which key."""
        shows = f"`mcp-authz agent show {self._agent}` says whether it is enrolled, active and has this key"
        sentence = f"the gateway takes no token of agent `{self._agent}` ({why}); ask the operator: {shows}"
        return Trouble(sentence, reason="sign_in", rpc_code=UNAUTHENTICATED)

    def refused(self, trouble: Trouble) -> Trouble:
        """As the gateway said it."""
        return trouble

    async def _sign_in(self, claims: Mapping[str, str]) -> Granted:
        key = self._key()
        chain = self._chain() if self._chain is not None and not claims else None
        reached = await self._place.reach()
        if self._fresh is not None:
            await self._fresh(reached)
            key = self._key()
        who = Applicant(name=self._agent, key=key, door=reached.door, possession=self.possession, takes_unbound=True)
        talk = own_session(who, claims, None) if chain is None else redeemed(who, chain, None)
        try:
            with anyio.fail_after(_SIGN_IN):
                return await carry(reached.http, talk)
        except TimeoutError:
            raise NoAnswer(f"the gateway at {reached.door.issuer} does not answer") from None
