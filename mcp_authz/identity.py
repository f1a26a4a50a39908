"""Steps 3 to 6: from an `Authorization` header to a verified caller, or a refusal that says what was wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal

from mcp_authz.errors import AuthzError, InputError, SignatureRefused, TokenRefused
from mcp_authz.principals import AccessToken, Caller, Proof
from mcp_authz.rules.dpop import DpopProof, NonceRefused, Nonces, only_proof, read_proof
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.token import read_access_token
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Clock

log = logging.getLogger(__name__)

Scheme = Literal["Bearer", "DPoP"]

_SCHEMES: Final[Mapping[str, Scheme]] = {"bearer": "Bearer", "dpop": "DPoP"}


class Unidentified(AuthzError):
    """Nobody knows who sends this request.

    Attributes:
        error: the error code of RFC 6750 or RFC 9449, or None when no credentials were sent at all.
        description: one sentence for the caller, without quotes.
        scheme: which kind of credentials would help.
        nonce: what the next proof must contain, where that was all that this one lacked.
    """

    code = "unidentified"

    def __init__(
        self,
        error: str | None,
        description: str,
        reason: str,
        *,
        scheme: Scheme = "Bearer",
        nonce: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.error = error
        self.description = description
        self.scheme = scheme
        self.nonce = nonce


class Identifier:
    """Verifies access tokens of one issuer for one resource, and what they stand on, at every request."""

    def __init__(
        self,
        *,
        keys: Mapping[str, PublicKey],
        issuer: str,
        resource: str,
        sessions: Sessions,
        clock: Clock,
        nonces: Nonces | None = None,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._resource = resource
        self._sessions = sessions
        self._clock = clock
        self._nonces = nonces

    @property
    def nonce(self) -> str | None:
        """What the next proof of possession must contain; None where none is demanded."""
        if self._nonces is None or not self._nonces.demanded:
            return None
        return self._nonces.current(self._clock())

    async def identify(
        self,
        authorization: str | None,
        *,
        method: str = "POST",
        proofs: tuple[str, ...] = (),
        url: str | None = None,
    ) -> Caller:
        """Return who sends a request of this HTTP method with this `Authorization` header and these `DPoP` headers.

        It is a request to the resource itself, unless `url` says which other one is shown to belong to it.

        The proof is not spent yet: it counts once, and whoever acts on the request remembers the caller's `once`.

        Raises:
            Unidentified: no token, not a token of ours for this resource, not shown by the key that it is bound to, or
                what it stands on has ended.
        """
        if authorization is None:
            raise Unidentified(None, "send an access token", "no credentials")
        named, _, token = authorization.partition(" ")
        scheme = _SCHEMES.get(named.lower())
        if scheme is None or not token:
            raise Unidentified("invalid_token", "use the Bearer or DPoP scheme with one access token", "another scheme")
        claims = self._read(token, scheme)  # 3
        proof = self._proved(claims, token, scheme, (method, url or self._resource), proofs)  # 4
        try:
            caller = await self._sessions.identify(claims, Proof.BEARER if proof is None else Proof.DPOP)  # 5, 6
        except TokenRefused as error:
            text = "what this token stands on has ended or was revoked; get a new one"
            log.info("access token refused: %s", error)
            raise Unidentified("invalid_token", text, "standing ended", scheme=scheme) from None
        if caller.session is None and await self._sessions.has_newer(claims):
            text = "a session has begun since this token was issued; get a new one"
            raise Unidentified("invalid_token", text, "a newer session", scheme=scheme)
        return caller if proof is None else replace(caller, once=(*caller.once, proof.once))

    def _read(self, token: str, scheme: Scheme) -> AccessToken:
        try:
            return read_access_token(
                token, keys=self._keys, issuer=self._issuer, audience=self._resource, now=self._clock()
            )
        except (SignatureRefused, InputError) as error:
            text = "the access token is not valid here, or has expired; get a new one"
            log.info("access token refused: %s", error)
            raise Unidentified("invalid_token", text, "token not valid", scheme=scheme) from None

    def _proved(
        self, claims: AccessToken, token: str, scheme: Scheme, at: tuple[str, str], proofs: tuple[str, ...]
    ) -> DpopProof | None:
        """The proof by the key that the token is bound to; None for a token of whoever bears it (RFC 9449 section 7).

        A bound token counts under no other scheme: its thief would leave the proof out.
        """
        if claims.confirmation is None:
            if scheme == "DPoP":
                text = "this token is bound to no key; send it as Bearer, or get one with a DPoP proof"
                raise Unidentified("invalid_token", text, "token not bound", scheme="DPoP")
            return None
        if scheme != "DPoP":
            text = "this token is bound to a key; send it with the DPoP scheme and a proof"
            raise Unidentified("invalid_token", text, "bound token as bearer", scheme="DPoP")
        proof = self._read_proof(token, *at, proofs)
        if proof.key != claims.confirmation:
            text = "the DPoP proof is not by the key that this token is bound to"
            raise Unidentified("invalid_token", text, "proof by another key", scheme="DPoP")
        return proof

    def _read_proof(self, token: str, method: str, url: str, proofs: tuple[str, ...]) -> DpopProof:
        now = self._clock()
        try:
            return read_proof(
                only_proof(proofs),
                method=method,
                url=url,
                now=now,
                access_token=token,
                nonces=self._nonces,
            )
        except NonceRefused as error:
            nonce = None if self._nonces is None else self._nonces.current(now)
            text = "sign another DPoP proof, with the nonce of this answer"
            raise Unidentified("use_dpop_nonce", text, str(error), scheme="DPoP", nonce=nonce) from None
        except SignatureRefused as error:
            log.info("proof of possession refused: %s", error)
            text = "send one DPoP proof, signed just now for this method, URL and token; compare the clocks"
            raise Unidentified("invalid_dpop_proof", text, "proof not valid", scheme="DPoP") from None
