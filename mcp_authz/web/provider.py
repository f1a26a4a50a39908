"""Sign-in at an OpenID provider: where the browser is sent, and what its answer proves (OpenID Connect Core 1.0).

Authorization code with PKCE, state and nonce, by Authlib's Starlette client. What the provider says of itself is read
when it is first needed. A client of Authlib takes everything in its metadata for its own options, so it is given only
what was checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]
from authlib.integrations.starlette_client import OAuth  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken, UserInfo  # type: ignore[import-untyped]
from joserfc.errors import JoseError
from starlette.requests import Request

from mcp_authz import limits
from mcp_authz.errors import AuthzError, FetchRefused
from mcp_authz.people_elsewhere import SUBJECT, Provider, Vouched
from mcp_authz.principals import Authentication
from mcp_authz.rules.display import visible
from mcp_authz.rules.keys import equal
from mcp_authz.store.ports import Clock
from mcp_authz.web.provider_http import client_options
from mcp_authz.web.provider_metadata import Metadata, read_metadata

_APP: Final = "provider"
_NOT_KNOWN: Final = ("invalid_client", "unauthorized_client")  # RFC 6749 section 5.2
_WORD: Final = re.compile(r"[a-z0-9_.-]{1,64}")
_AMR: Final = 16  # methods of one sign-in that are remembered
# What a malformed answer makes the library raise, beside its own errors.
_MALFORMED: Final = (AuthlibBaseError, JoseError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)


class ProviderTrouble(AuthzError):
    """The provider cannot be reached, or its answer proves nothing."""

    code = "provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Where a browser is sent to sign in, and what has to come back with it."""

    url: str
    state: str
    session: Mapping[str, Any]  # of Authlib: verifier, nonce and redirect URI, by state


class OpenIdProvider:
    """One configured provider."""

    def __init__(self, provider: Provider, redirect_uri: str, clock: Clock) -> None:
        self._provider = provider
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._reading = anyio.Lock()
        self._metadata: Metadata | None = None
        self._app: Any = None

    async def send(self, request: Request, **asked: str | int) -> Sent:
        """Where the browser of this request is sent; `asked` are further parameters of the authorization request.

        Raises:
            ProviderTrouble: the provider cannot be reached.
        """
        _, app = await self._known()
        request.scope["session"] = {}
        answer = await app.authorize_redirect(request, self._redirect_uri, **asked)
        ((key, kept),) = request.session.items()
        kept["data"].pop("url")  # by far the longest, and of no use any more
        return Sent(
            url=answer.headers["location"], state=key.rpartition("_state_provider_")[2], session=request.session
        )

    async def vouched(self, request: Request, session: Mapping[str, Any]) -> Vouched:
        """Who has signed in, as the answer that this request brings proves; `session` is that of `Sent`.

        Raises:
            ProviderTrouble: the answer is another provider's or another sign-in's, or a refusal, or proves nothing.
        """
        metadata, app = await self._known()
        self._require_sound(request, metadata)
        request.scope["session"] = dict(session)
        try:
            token = await app.authorize_access_token(
                request, claims_cls=self._id_token, leeway=int(limits.CLOCK_SKEW.total_seconds())
            )
            claims = token.get("userinfo")
            # A token response may have a `userinfo` of its own; only what was read from an ID token is of this type.
            if not isinstance(claims, UserInfo):
                raise ProviderTrouble(f"{self._provider.name} did not say who you are; there is no ID token")
            told = await self._told(app, metadata, token, claims)
            return self._read(claims, told)
        except FetchRefused as error:
            raise ProviderTrouble(f"{self._provider.name} cannot be asked who you are: {error}") from None
        except _MALFORMED as error:
            raise ProviderTrouble(f"{self._provider.name} {_trouble(_reason(error))}") from None

    def _require_sound(self, request: Request, metadata: Metadata) -> None:
        """The answer is this provider's, and no refusal (RFC 9207 section 2.4, RFC 6749 section 4.1.2)."""
        query = request.query_params
        if len(query.multi_items()) != len(query.keys()):
            raise ProviderTrouble("the answer says something twice; sign in again")
        if ("iss" in query or metadata.names_itself) and not equal(
            query.get("iss", "").encode(), metadata.issuer.encode()
        ):
            raise ProviderTrouble("the answer is another provider's; sign in again")
        if "error" in query:
            word = query["error"] if _WORD.fullmatch(query["error"]) else "an error"
            raise ProviderTrouble(f"{self._provider.name} did not sign you in ({word}); try again")
        if not query.get("code"):
            raise ProviderTrouble("the answer has no code; sign in again")

    def _id_token(self, claims: Any, header: Any, options: Any, params: Any) -> CodeIDToken:
        return _IdToken(claims, header, params, self._provider, self._clock())

    async def _told(self, app: Any, metadata: Metadata, token: Any, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """The claims of the ID token, and those that the provider keeps for its userinfo endpoint."""
        wanted = {self._provider.person_claim}
        if self._provider.groups or self._provider.allowed_groups:
            wanted.add(self._provider.groups_claim)
        if wanted <= claims.keys() or metadata.userinfo_endpoint is None:
            return claims
        more = await app.userinfo(token=token)
        # OpenID Connect Core section 5.3.2: what is said of somebody else must not be used.
        if not equal(str(more.get("sub")).encode(), str(claims["sub"]).encode()):
            raise ProviderTrouble(f"{self._provider.name} speaks of somebody else; sign in again")
        return {**more, **claims}

    def _read(self, claims: Mapping[str, Any], told: Mapping[str, Any]) -> Vouched:
        name, groups = told.get(self._provider.person_claim), told.get(self._provider.groups_claim, [])
        groups = [groups] if isinstance(groups, str) else groups
        if not isinstance(groups, list) or not all(isinstance(one, str) for one in groups):
            raise ProviderTrouble(
                f"{self._provider.name} gives `{self._provider.groups_claim}` that is no list of texts"
            )
        return Vouched(
            subject=claims["sub"],
            name=name if isinstance(name, str) else None,
            email_verified=told.get("email_verified") is True,
            groups=frozenset(groups),
            authentication=Authentication(
                at=_signed_in_at(claims),
                amr=tuple(one for one in claims.get("amr", []) if isinstance(one, str) and len(one) <= 64)[:_AMR],
                issuer=self._provider.issuer,
            ),
        )

    async def _known(self) -> tuple[Metadata, Any]:
        """What is known of the provider, at most an hour old, and the client of Authlib for it."""
        async with self._reading:
            known = self._metadata
            if known is None or self._clock() - known.read_at >= limits.METADATA_FRESH:
                try:
                    known = await read_metadata(self._provider.issuer, self._clock())
                except FetchRefused as error:
                    raise ProviderTrouble(f"sign-in with {self._provider.name} does not work now: {error}") from None
                self._metadata, self._app = known, _app(self._provider, known)
        return known, self._app


class _IdToken(CodeIDToken):  # type: ignore[misc]
    """The claims of an ID token whose signature was verified (OpenID Connect Core section 3.1.3.7)."""

    def __init__(self, claims: Any, header: Any, params: Any, provider: Provider, now: datetime) -> None:
        super().__init__(claims, header, {}, params)
        self._provider = provider
        self._now = now

    def validate(self, now: Any = None, leeway: int = 0) -> None:
        """Every claim is what it has to be; times are the gateway's.

        Raises:
            ValueError, and what the library raises: naming the claim that is not.
        """
        super().validate(int(self._now.timestamp()), leeway)  # exp, iat, nbf, nonce, azp, at_hash, amr
        audience = self["aud"] if isinstance(self["aud"], list) else [self["aud"]]
        _require(self["iss"] == self._provider.issuer, "iss")
        _require(self._provider.client_id in audience, "aud")
        _require(len(audience) == 1 or self.get("azp") == self._provider.client_id, "azp")
        _require("nonce" in self, "nonce")
        subject = self["sub"]
        _require(isinstance(subject, str) and subject.isascii() and 0 < len(subject) <= SUBJECT, "sub")
        auth_time = self.get("auth_time", 0)
        _require(isinstance(auth_time, int) and not isinstance(auth_time, bool), "auth_time")
        _require(0 <= auth_time <= self._now.timestamp() + leeway, "auth_time")
        _require(self["iat"] >= 0, "iat")


def _require(holds: bool, claim: str) -> None:
    if not holds:
        raise ValueError(f"claim {claim}")


def _signed_in_at(claims: Mapping[str, Any]) -> datetime:
    """When the person proved who they are; a provider that does not say is taken to have seen them long ago."""
    if "auth_time" in claims:
        return datetime.fromtimestamp(claims["auth_time"], UTC)
    return datetime.fromtimestamp(int(claims["iat"]), UTC) - _LONG_AGO


_LONG_AGO: Final = timedelta(days=30)


def _app(provider: Provider, metadata: Metadata) -> Any:
    """The client of Authlib, told what was checked and nothing else."""
    return OAuth().register(
        _APP,
        client_id=provider.client_id,
        client_secret=provider.client_secret,
        authorize_url=metadata.authorization_endpoint,
        access_token_url=metadata.token_endpoint,
        issuer=metadata.issuer,
        jwks_uri=metadata.jwks_uri,
        userinfo_endpoint=metadata.userinfo_endpoint,
        id_token_signing_alg_values_supported=list(metadata.algorithms),
        client_kwargs={
            **client_options(),
            "scope": " ".join(provider.scopes),
            "code_challenge_method": "S256",
            **({"token_endpoint_auth_method": "client_secret_post"} if _posts_secret(provider, metadata) else {}),
        },
    )


def _posts_secret(provider: Provider, metadata: Metadata) -> bool:
    return provider.client_secret is not None and metadata.secret_in_body


def _trouble(reason: str) -> str:
    if reason in _NOT_KNOWN:  # whoever signs in can do nothing about it
        return f"does not know this gateway ({reason}); whoever runs it looks at client_id and client_secret_file"
    return f"gave an answer that proves nothing ({reason}); sign in again"


def _reason(error: Exception) -> str:
    """Which claim or error it is; what a library says of foreign bytes is for nobody."""
    told = str(getattr(error, "error", "") or error)
    return visible(told[:64]) if isinstance(error, AuthlibBaseError | JoseError | ValueError) else type(error).__name__
