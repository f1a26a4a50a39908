"""Steps 3 to 6: from an `Authorization` header to a verified caller, or a refusal that says what was wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mcp_authz.errors import AuthzError, InputError, SignatureRefused, TokenRefused
from mcp_authz.model import Caller, Proof
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.token import read_access_token
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Clock

log = logging.getLogger(__name__)


class Unidentified(AuthzError):
    """Nobody knows who sends this request.

    Attributes:
        error: the RFC 6750 error code, or None when no credentials were sent at all.
        description: one sentence for the caller, without quotes.
    """

    code = "unidentified"

    def __init__(self, error: str | None, description: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error
        self.description = description


class Identifier:
    """Verifies access tokens of one issuer for one resource, and what they stand on, at every request."""

    def __init__(
        self, *, keys: Mapping[str, PublicKey], issuer: str, resource: str, sessions: Sessions, clock: Clock
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._resource = resource
        self._sessions = sessions
        self._clock = clock

    async def identify(self, authorization: str | None) -> Caller:
        """Return who sends a request with this `Authorization` header.

        Raises:
            Unidentified: no token, not a token of ours for this resource, or what it stands on has ended.
        """
        if authorization is None:
            raise Unidentified(None, "send an access token", "no credentials")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unidentified("invalid_token", "use the Bearer scheme with one access token", "another scheme")
        try:
            claims = read_access_token(  # 3
                token, keys=self._keys, issuer=self._issuer, audience=self._resource, now=self._clock()
            )
        except (SignatureRefused, InputError) as error:
            text = "the access token is not valid here, or has expired; get a new one"
            log.info("access token refused: %s", error)
            raise Unidentified("invalid_token", text, "token not valid") from None
        # 4: no token of this issuer carries `cnf` yet, so there is no proof of possession to demand.
        try:
            caller = await self._sessions.identify(claims, Proof.BEARER)  # 5, 6
        except TokenRefused as error:
            text = "what this token stands on has ended or was revoked; get a new one"
            log.info("access token refused: %s", error)
            raise Unidentified("invalid_token", text, "standing ended") from None
        if caller.session is None and await self._sessions.has_newer(claims):
            text = "a session has begun since this token was issued; get a new one"
            raise Unidentified("invalid_token", text, "a newer session")
        return caller
