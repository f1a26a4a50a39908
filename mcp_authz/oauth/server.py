"""The authorization server's endpoints on Starlette: metadata, keys, tokens, introspection, revocation."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.authorization import RegisteredClient
from mcp_authz.clients import Clients
from mcp_authz.delegating import Delegations
from mcp_authz.enterprise import Enterprise
from mcp_authz.errors import ConfigError, NotFound, StoreError, StoreUpgraded
from mcp_authz.hosted import HostedAgents
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.oauth.agents import AgentPages, peer_of
from mcp_authz.oauth.assertion_grant import GRANT_TYPE, PROFILE, AssertionGrant, asserted
from mcp_authz.oauth.child import Children
from mcp_authz.oauth.client import ClientDoor
from mcp_authz.oauth.code import CodeGrant, Verifier
from mcp_authz.oauth.core import Answered, Core, Posted
from mcp_authz.oauth.exchange import TokenExchange
from mcp_authz.oauth.form import read_form
from mcp_authz.oauth.grants import ClientCredentials
from mcp_authz.oauth.introspection import INTROSPECTION, IntrospectionEndpoint
from mcp_authz.oauth.issuing import Issuer
from mcp_authz.oauth.metadata import resource_metadata, server_metadata
from mcp_authz.oauth.refresh import RefreshGrant
from mcp_authz.oauth.refusal import Refusal, counting
from mcp_authz.oauth.registration import Registration
from mcp_authz.oauth.revocation import REVOCATION, RevocationEndpoint
from mcp_authz.oauth.software import Known, SoftwareDoor
from mcp_authz.principals import ClientId
from mcp_authz.protocol.throttle import Throttle
from mcp_authz.redeeming import Chains
from mcp_authz.renewing import Renewals
from mcp_authz.rules.dpop import Nonces
from mcp_authz.rules.strict_json import dump
from mcp_authz.sessions import Sessions
from mcp_authz.step_ups import StepUps
from mcp_authz.store.ports import Clock, Store

_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_CACHED: Final = {"Cache-Control": "public, max-age=300"}


class OAuthServer:
    """One issuer for one resource; `oauth_routes` puts it on the network.

    `known` finds the client that a request names, fetching what that takes; without it those that people agreed to are
    found. `count_refusal(reason, peer)` hears of every refusal of somebody who did not prove who they are. `hosted` is
    the one that `chains` asks, too.
    """

    def __init__(
        self,
        *,
        store: Store,
        sessions: Sessions,
        delegations: Delegations,
        chains: Chains,
        issuer: str,
        resource: str,
        signing: IssuerKeys,
        clock: Clock,
        count_refusal: Callable[[str, str], None],
        nonces: Nonces,
        hosted: HostedAgents,
        clients: Clients | None = None,
        known: Known | None = None,
        enterprise: Enterprise | None = None,
        step_ups: StepUps | None = None,
    ) -> None:
        self._enterprise = enterprise
        self._issuer = issuer
        self._resource = resource
        self._keys = signing
        self._count_refusal = counted = counting(count_refusal)
        self._threads = anyio.CapacityLimiter(limits.SIGN_INS)
        self._narrow = anyio.CapacityLimiter(limits.SIGN_INS_CROWDED)
        self._throttle = Throttle(burst=limits.SIGN_INS_REFUSED, per_second=limits.SIGN_INS_REFUSED_PER_SECOND)
        children = Children(store=store, clock=clock, chains=chains)
        self._door = ClientDoor(store=store, issuer=issuer, clock=clock, hosted=hosted, children=children)
        self.agents = AgentPages(store=store, issuer=issuer, door=self._door, clock=clock, count_refusal=counted)
        self._clients = clients
        self.registration = None if clients is None else Registration(clients, counted)
        known = known or (_registered(store) if clients is None else clients.kept)
        self._software = SoftwareDoor(store=store, issuer=issuer, clock=clock, known=known)
        self._core = Core(
            door=self._door,
            software=self._software,
            issuer=Issuer(store=store, issuer=issuer, resource=resource, keys=signing, clock=clock),
            sessions=sessions,
            renewals=Renewals(store, clock, sessions, must_sign_in=(step_ups or StepUps(clock)).waits_for_sign_in),
            delegations=delegations,
            chains=chains,
            count_refusal=counted,
            nonces=nonces,
            enterprise=enterprise,
        )
        if enterprise is not None:
            self._core.register_grant(AssertionGrant)
        self._core.register_grant(ClientCredentials)
        self._core.register_grant(TokenExchange)
        self._core.register_grant(CodeGrant, [Verifier(required=True)])
        self._core.register_grant(RefreshGrant)
        self._core.register_endpoint(RevocationEndpoint)
        self._core.register_endpoint(IntrospectionEndpoint)
        try:
            AuthorizationServerMetadata(self.metadata).validate()
        except ValueError as error:
            raise ConfigError(f"`public_url` is no issuer (RFC 8414): {error}; use https, or localhost") from None

    @property
    def issuer(self) -> str:
        """The issuer identifier, exactly as tokens and metadata have it."""
        return self._issuer

    @property
    def resource(self) -> str:
        """The resource URI that tokens are for."""
        return self._resource

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of this authorization server (RFC 8414)."""
        said = server_metadata(self._issuer)
        if self._enterprise is not None:
            said["grant_types_supported"].append(GRANT_TYPE)
            said["authorization_grant_profiles_supported"] = [PROFILE]
        return {**said, **self._becoming_known()}

    def _becoming_known(self) -> dict[str, Any]:
        """How a client becomes known that nobody registered."""
        if self._clients is None:
            return {}
        registering = {"registration_endpoint": f"{self._issuer}/register"} if self._clients.dynamic else {}
        return {"client_id_metadata_document_supported": True, **registering}

    @property
    def resource_metadata(self) -> dict[str, Any]:
        """The metadata of the protected resource (RFC 9728)."""
        return resource_metadata(self._issuer, self._resource)

    @property
    def jwks(self) -> dict[str, Any]:
        """The keys that verify what this server signs."""
        return self._keys.jwks

    async def show_jwks(self, _: Request) -> Response:
        """Answer with the keys as they are now."""
        return Response(dump(self.jwks), media_type="application/json", headers=_CACHED)

    async def token(self, request: Request) -> Response:
        """Answer the token endpoint."""
        return await self._answer(request, "/token", self._core.token)

    async def revoke(self, request: Request) -> Response:
        """Answer the revocation endpoint."""
        return await self._answer(request, "/revoke", partial(self._core.endpoint, REVOCATION))

    async def introspect(self, request: Request) -> Response:
        """Answer the introspection endpoint."""
        return await self._answer(request, "/introspect", partial(self._core.endpoint, INTROSPECTION))

    async def _answer(self, request: Request, path: str, core: Callable[[Posted], Answered]) -> Response:
        """Answer one request, and count it against its source if it was a stranger's and was refused.

        A source that was refused too often is not shut out, since others may be behind the same address: what comes
        from there takes turns in a few threads, and only those who prove nothing once more are told to slow down.
        """
        peer = peer_of(request)
        is_crowded = not self._throttle.allows(peer, time.monotonic())
        try:
            posted = await self._posted(request, path, peer)
            limiter = self._narrow if is_crowded else self._threads
            answered = await anyio.to_thread.run_sync(core, posted, limiter=limiter)
        except Refusal as error:  # before anything was believed
            self._count_refusal(error, peer)
            status, body, headers = error()
            answered = Answered(status=status, body=body, headers=tuple(headers), is_strangers=True)
        except StoreError as error:
            told = {"error_description": str(error)} if isinstance(error, StoreUpgraded) else {}
            return _json({"error": "temporarily_unavailable", **told}, status=503)
        if answered.is_strangers:
            self._throttle.charge(peer, time.monotonic())
            if is_crowded:
                text = "too many requests from here were refused; try again in a minute"
                return _json({"error": "slow_down", "error_description": text}, status=429)
        return Response(dump(answered.body), status_code=answered.status, headers=dict(answered.headers))

    async def _posted(self, request: Request, path: str, peer: str) -> Posted:
        """The request as the core reads it; what it takes to know who sends it was fetched.

        That is before a thread is taken: strangers could fill them all with waiting.
        """
        form, authorization = await read_form(request), request.headers.get("authorization")
        await self._door.ready(form)
        if self._enterprise is not None and (assertion := asserted(form)) is not None:
            await self._enterprise.ready(assertion)
        return Posted(
            url=f"{self._issuer}{path}",
            form=form,
            authorization=authorization,
            peer=peer,
            proofs=tuple(request.headers.getlist("dpop")),
            client=await self._software.ready(form, authorization),
        )


def oauth_routes(server: OAuthServer) -> list[Route]:
    """Return every route of the authorization server, and the metadata of the resource beside it.

    Clients look for metadata at the root, and with the path of the issuer or of the resource inserted.
    """
    base, below = urlsplit(server.issuer).path.rstrip("/"), urlsplit(server.resource).path.rstrip("/")
    paths = sorted({"", base, below})
    return [
        *(_static(f"/.well-known/oauth-authorization-server{path}", server.metadata) for path in paths),
        *(_static(f"/.well-known/oauth-protected-resource{path}", server.resource_metadata) for path in paths),
        Route(f"{base}/jwks.json", server.show_jwks, methods=["GET"]),
        Route(f"{base}/token", server.token, methods=["POST"]),
        Route(f"{base}/revoke", server.revoke, methods=["POST"]),
        Route(f"{base}/introspect", server.introspect, methods=["POST"]),
        *server.agents.routes(base),
        *([] if server.registration is None else server.registration.routes(base)),
    ]


def _static(path: str, body: dict[str, Any]) -> Route:
    response = partial(Response, dump(body), media_type="application/json", headers=_CACHED)

    async def answer(_: Request) -> Response:
        return response()

    return Route(path, answer, methods=["GET"])


def _registered(store: Store) -> Known:
    """Knows the clients that the store has, and fetches nothing."""

    async def known(client: ClientId) -> RegisteredClient:
        found = await store.client(client)
        if found is None:
            raise NotFound(f"there is no client `{client}`")
        return found

    return known


def _json(body: dict[str, Any], *, status: int) -> Response:
    return Response(dump(body), status_code=status, media_type="application/json", headers=_NO_STORE)
