"""Authlib's authorization server over our parts: which grants there are, and who hears of a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import anyio.from_thread
from authlib.oauth2 import AuthorizationServer, OAuth2Error, OAuth2Request  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload  # type: ignore[import-untyped]

from mcp_authz.delegating import Delegations
from mcp_authz.errors import SignatureRefused
from mcp_authz.oauth.client import METHOD, Client, ClientDoor
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.issuing import Issuer
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.token_types import JWT_TYPE, TOKEN_EXCHANGE
from mcp_authz.principals import Thumbprint
from mcp_authz.redeeming import Chains
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer of an endpoint, for the edge to write."""

    status: int
    body: dict[str, Any]
    headers: tuple[tuple[str, str], ...]


class TokenRequest(OAuth2Request):  # type: ignore[misc]
    """A request in Authlib's shape; `form` is what its grants and endpoints read."""

    def __init__(self, posted: Posted) -> None:
        super().__init__("POST", posted.url)
        self.posted = posted
        self.payload = BasicOAuth2Payload(posted.form)
        self.proof: DpopProof | None = None  # once verified
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
        issuer: Issuer,
        sessions: Sessions,
        delegations: Delegations,
        chains: Chains,
        count_refusal: Callable[[OAuth2Error, str], None],
        nonces: Nonces,
    ) -> None:
        super().__init__()
        self.door = door
        self.issuer = issuer
        self.sessions = sessions
        self.delegations = delegations
        self.chains = chains
        self._count_refusal = count_refusal
        self._nonces = nonces
        self.register_client_auth_method(METHOD, self._authenticate)

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
        """Clients are not looked up by name; `ClientDoor` knows those that proved themselves."""

    def _authenticate(self, _query_client: object, request: TokenRequest) -> Client:
        client = self.ask(self.door.enter, request.form, request.posted.authorization, chain=request.chain)
        request.client = client
        if request.proof is not None and not self.ask(self.issuer.store.remember, request.proof.once):
            raise Refusal("invalid_dpop_proof", "the DPoP proof was used before; sign one for each request")
        return client

    def _refused(self, request: TokenRequest, error: OAuth2Error) -> Answered:
        reason = error.reason if isinstance(error, Refusal) else str(error.error)
        client: Client | None = request.client
        if error.error == NonceRefused.code:
            pass  # to be told the nonce is part of a sign-in
        elif client is None:
            anyio.from_thread.run_sync(self._count_refusal, error, request.posted.peer)
        elif not (isinstance(error, Refusal) and error.recorded):
            fields = {
                "summary": f"{client.agent.name} was refused at the authorization server",
                "actor": f"agent:{client.agent.name}",
                "key": client.key,
                "grant_type": request.form.get("grant_type", "")[:128],
                "peer": request.posted.peer,
                "decision": "deny",
                "reason": reason,
            }
            self.ask(self.issuer.store.append, Event(kind="sign-in", at=self.issuer.clock(), fields=fields))
        return self.handle_response(*error())
