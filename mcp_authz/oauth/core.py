"""Authlib's authorization server over our parts: which grants there are, and who hears of a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

import anyio.from_thread
from authlib.oauth2 import AuthorizationServer, OAuth2Error, OAuth2Request  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload  # type: ignore[import-untyped]

from mcp_authz.authorization import RegisteredClient
from mcp_authz.delegating import Delegations
from mcp_authz.enterprise import Enterprise
from mcp_authz.errors import SignatureRefused
from mcp_authz.oauth.client import METHOD, Client, ClientDoor
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.issuing import Issuer
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.software import Software, SoftwareDoor
from mcp_authz.oauth.token_types import JWT_TYPE, TOKEN_EXCHANGE
from mcp_authz.principals import Thumbprint
from mcp_authz.redeeming import Chains
from mcp_authz.renewing import Renewals
from mcp_authz.rules.dpop import DpopProof, NonceRefused, Nonces, only_proof, read_proof
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Event

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """One request to an endpoint, as the edge read it."""

    url: str  # of the endpoint, from configuration
    form: Form
    authorization: str | None
    peer: str
    proofs: tuple[str, ...] = ()  # the values of its `DPoP` header lines
    client: RegisteredClient | None = None  # who it says it is from, as known before anything of it is verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer of an endpoint, for the edge to write."""

    status: int
    body: dict[str, Any]
    headers: tuple[tuple[str, str], ...]
    is_strangers: bool = False  # a refusal of somebody who proved nothing


class TokenRequest(OAuth2Request):  # type: ignore[misc]
    """A request in Authlib's shape; `form` is what its grants and endpoints read."""

    def __init__(self, posted: Posted) -> None:
        super().__init__("POST", posted.url)
        self.posted = posted
        self.payload = BasicOAuth2Payload(posted.form)
        self.proof: DpopProof | None = None  # once verified
        self.is_proof_spent = False
        self.chain: str | None = None  # where it is exchanged: the only place where a child may be named by one

    @property
    def form(self) -> Form:
        """The parameters, each with one value."""
        return self.posted.form

    @property
    def confirmation(self) -> Thumbprint | None:
        """The key that was shown to be the client's, to which the token will be bound (`cnf.jkt`)."""
        return None if self.proof is None else self.proof.key


class Core(AuthorizationServer):  # type: ignore[misc]
    """The synchronous core; it runs in a worker thread of the event loop that the store belongs to."""

    def __init__(
        self,
        *,
        door: ClientDoor,
        software: SoftwareDoor,
        issuer: Issuer,
        sessions: Sessions,
        renewals: Renewals,
        delegations: Delegations,
        chains: Chains,
        count_refusal: Callable[[OAuth2Error, str], None],
        nonces: Nonces,
        enterprise: Enterprise | None = None,
    ) -> None:
        super().__init__()
        self.enterprise = enterprise
        self.door = door
        self.software = software
        self.issuer = issuer
        self.sessions = sessions
        self.renewals = renewals
        self.delegations = delegations
        self.chains = chains
        self._count_refusal = count_refusal
        self._nonces = nonces

    def ask(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Return what the coroutine function returns on the event loop; the worker thread waits for it."""

        async def run() -> T:
            return await function(*args, **kwargs)

        return anyio.from_thread.run(run)

    def token(self, posted: Posted) -> Answered:
        """Answer one request to the token endpoint (RFC 6749 section 3.2), with the nonce for the next proof."""
        answered = self._token(TokenRequest(posted))
        if posted.proofs and (self._nonces.demanded or answered.body.get("error") == NonceRefused.code):
            nonce = self._nonces.current(self.issuer.clock())
            return replace(answered, headers=(*answered.headers, ("DPoP-Nonce", nonce)))
        return answered

    def _token(self, request: TokenRequest) -> Answered:
        if "grant_type" not in request.form:
            return self._refused(request, Refusal("invalid_request", "name a grant_type"))
        try:
            request.proof = self._read_proof(request.posted)
        except Refusal as refusal:
            return self._refused(request, refusal)
        if (request.form["grant_type"], request.form.get("subject_token_type")) == (TOKEN_EXCHANGE, JWT_TYPE):
            request.chain = request.form.get("subject_token")
        answered: Answered = self.create_token_response(request)
        return answered

    def _read_proof(self, posted: Posted) -> DpopProof | None:
        """The request's proof of possession, if it has one; before the assertion, which a second try cannot reuse."""
        if not posted.proofs:
            return None
        now = self.issuer.clock()
        try:
            return read_proof(
                only_proof(posted.proofs),
                method="POST",
                url=posted.url,
                now=now,
                access_token=None,
                nonces=self._nonces,
            )
        except NonceRefused as error:
            raise Refusal(
                NonceRefused.code, "sign another proof, with the nonce of this answer", reason=str(error)
            ) from None
        except SignatureRefused as error:
            text = "send one DPoP proof, signed just now for this URL; compare the clocks"
            raise Refusal("invalid_dpop_proof", text, reason=str(error)) from None

    def endpoint(self, name: str, posted: Posted) -> Answered:
        """Answer one request to another endpoint of this server."""
        answered: Answered = self.create_endpoint_response(name, TokenRequest(posted))
        return answered

    def create_oauth2_request(self, request: TokenRequest) -> TokenRequest:
        """The request is in Authlib's shape already."""
        return request

    def handle_response(self, status: int, body: dict[str, Any], headers: list[tuple[str, str]]) -> Answered:
        """The answer as a value; the edge writes it."""
        return Answered(status=status, body=body, headers=tuple(headers))

    def handle_error_response(self, request: TokenRequest, error: OAuth2Error) -> Answered:
        """A refusal of a client that proved itself is recorded, any other is counted."""
        return self._refused(request, error)

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens to Authlib's signals."""

    def query_client(self, client_id: str) -> None:
        """Clients are not looked up by name; `authenticate_client` says who one is."""

    def authenticate_client(
        self, request: TokenRequest, methods: Sequence[str], endpoint: str = "token"
    ) -> Client | Software:
        """Return who sends the request, authenticated by one of these methods, and by the one that is theirs.

        Where only an agent's key will do, nobody else is looked for. Authlib's own methods are not used: they would
        try one after the other, and what a request shows must not be read in two ways.
        """
        client: Client | Software = self.ask(self._enter, request, tuple(methods))
        request.client = client
        if client.is_proved:
            self.spend_proof(request)
        return client

    def spend_proof(self, request: TokenRequest) -> None:
        """The request's proof of possession counts now, and never again.

        A client that only says who it is spends none before it has shown something that counts: anybody could fill the
        store with theirs.
        """
        if request.proof is None or request.is_proof_spent:
            return
        if not self.ask(self.issuer.store.remember, request.proof.once):
            raise Refusal("invalid_dpop_proof", "the DPoP proof was used before; sign one for each request")
        request.is_proof_spent = True

    async def _enter(self, request: TokenRequest, methods: tuple[str, ...]) -> Client | Software:
        form, authorization = request.form, request.posted.authorization
        if methods == (METHOD,) or await self.door.is_for(form):
            return await self.door.enter(form, authorization, chain=request.chain)
        return await self.software.enter(form, authorization, client=request.posted.client, methods=methods)

    def _refused(self, request: TokenRequest, error: OAuth2Error) -> Answered:
        reason = error.reason if isinstance(error, Refusal) else str(error.error)
        client: Client | Software | None = request.client
        is_strangers = client is None or not client.is_proved
        if error.error == NonceRefused.code:
            is_strangers = False  # to be told the nonce is part of a sign-in
        elif client is None or not client.is_proved:
            anyio.from_thread.run_sync(self._count_refusal, error, request.posted.peer)
        elif not (isinstance(error, Refusal) and error.recorded):
            fields = {
                "summary": f"{client.label} was refused at the authorization server",
                **client.recorded,
                "grant_type": request.form.get("grant_type", "")[:128],
                "peer": request.posted.peer,
                "decision": "deny",
                "reason": reason,
            }
            self.ask(self.issuer.store.append, Event(kind="sign-in", at=self.issuer.clock(), fields=fields))
        answered = self.handle_response(*error())
        headers = answered.headers
        if answered.status == HTTPStatus.UNAUTHORIZED:  # RFC 6749 section 5.2
            headers = (*headers, ("WWW-Authenticate", f'Basic realm="{self.issuer.issuer}"'))
        return replace(answered, headers=headers, is_strangers=is_strangers)
