"""Authentication of the clients that people sign in to (RFC 6749 section 2.3, RFC 7523): each by its one method.

What a client is registered with is what it does: one that has a key or a secret is never let in without it. A public
client proves nothing; it only says who it is, and what it can do with that is up to the code or token that it shows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from mcp_authz import limits
from mcp_authz.authorization import ClientMethod, RegisteredClient
from mcp_authz.errors import Conflict, FetchRefused, InputError, KeyRefused, NotFound, SignatureRefused
from mcp_authz.oauth.client import ASSERTION_TYPE, METHOD, is_signed_by, issued_at, require_times
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.principals import ClientId
from mcp_authz.renewing import digest
from mcp_authz.rules import es256, jose, rsa
from mcp_authz.rules.es256 import P256Key
from mcp_authz.rules.jose import UnverifiedJws, Verifier
from mcp_authz.rules.keys import PublicKey, equal
from mcp_authz.rules.rsa import RsaKey
from mcp_authz.store.ports import Clock, Once, Store

_SECRETS: Final = {"client_secret_basic", "client_secret_post"}
CONFIDENTIAL_METHODS: Final = (METHOD, "client_secret_basic", "client_secret_post")
"""How a client can prove who it is."""

SOFTWARE_METHODS: Final = ("none", *CONFIDENTIAL_METHODS)
"""How a client can say who it is."""

ALGORITHMS: Final = ("EdDSA", "Ed25519", es256.ALGORITHM, *rsa.ALGORITHMS)
"""What a client may sign its assertions with."""

GRANT_TYPES: Final = frozenset({"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"})
"""What a client that people sign in to can have; nothing in its own name."""

_KEYS: Final = 16  # of one client's set that are looked at

Known = Callable[[ClientId], Awaitable[RegisteredClient]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """A client that people sign in to, authenticated as it is registered, as Authlib's grants want to see a client."""

    client: RegisteredClient

    @property
    def is_proved(self) -> bool:
        """Whether it is known to be this client, and does not only say so; who registered itself is anybody."""
        return not self.client.is_public and self.client.kind != "dynamic"

    @property
    def recorded(self) -> dict[str, Any]:
        """How a record names it."""
        return {"actor": f"client:{self.client.id}", "client": self.client.id}

    @property
    def label(self) -> str:
        """How a sentence names it."""
        return f"client {self.client.handle}"

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether the client may use the grant: only what a person, or whoever employs them, agreed to."""
        return grant_type in GRANT_TYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Who a request says that it is from, and by which method; nothing of it is verified."""

    id: ClientId
    method: ClientMethod
    secret: str = ""
    assertion: UnverifiedJws | None = None


class SoftwareDoor:
    """Lets clients in that are known, each by the method that it is registered with."""

    def __init__(self, *, store: Store, issuer: str, clock: Clock, known: Known) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._known = known

    async def ready(self, form: Form, authorization: str | None) -> RegisteredClient | None:
        """Return the client that the request says it is from, as it is known; None when there is none such.

        What has to be fetched for that is fetched now, while nothing is held that others wait for. What is wrong with
        the form, `enter` says.

        Raises:
            StoreError: it cannot be known now; a client is not told that there is none.
        """
        try:
            return await self._known(read_shown(form, authorization).id)
        except (Refusal, Conflict, NotFound, FetchRefused, InputError):
            return None

    async def enter(
        self, form: Form, authorization: str | None, *, client: RegisteredClient | None, methods: Iterable[str]
    ) -> Software:
        """Return the client; `client` is what `ready` found for this very request.

        Raises:
            Refusal: it is not known, or it did not authenticate by its method; alike for every way of that.
        """
        basic = authorization is not None
        shown = read_shown(form, authorization)
        if client is None or client.id != shown.id or client.status != "active":
            raise _unknown("no such client", basic=basic)
        if shown.method not in methods or not _is_its_own(shown.method, client.method):
            raise _unknown("another method than the client's", basic=basic)
        match client.method:
            case "none":
                pass
            case "client_secret_basic" | "client_secret_post":
                if client.secret is None or not equal(digest(shown.secret), client.secret):
                    raise _unknown("a wrong secret", basic=basic)
            case "private_key_jwt":
                await self._require_assertion(shown, client)
        return Software(client=client)

    async def _require_assertion(self, shown: Shown, client: RegisteredClient) -> None:
        try:
            await self._prove(shown, client)
        except SignatureRefused as error:
            raise _unknown("the assertion is not valid", str(error)) from None

    async def _prove(self, shown: Shown, client: RegisteredClient) -> None:
        """As for agents (RFC 7523 section 3, RFC 7523bis): for this issuer alone, in time, once."""
        assertion = shown.assertion
        if assertion is None or not any(is_signed_by(key, assertion) for key in _keys(client, assertion)):
            raise SignatureRefused("it is not signed by a key of the client")
        claims = assertion.claims
        if claims.get("iss") != client.id:
            raise SignatureRefused("issuer and subject are not the same")
        if claims.get("aud") not in (self._issuer, [self._issuer]):
            raise SignatureRefused("it is for another audience")
        expires_at = require_times(claims, self._clock())
        once = Once(
            kind="client-assertion",
            id=f"{client.id} {jose.require_text(claims, 'jti', limits.ID_CHARACTERS)}",
            expires_at=expires_at + limits.CLOCK_SKEW,
            issued_at=issued_at(claims, expires_at),
        )
        if not await self._store.remember(once):
            raise SignatureRefused("it was used before")


def _is_its_own(shown: ClientMethod, registered: ClientMethod) -> bool:
    """Whether the client may authenticate like this; a secret proves the same in the form and in the header."""
    return shown == registered or {shown, registered} == _SECRETS


def read_shown(form: Form, authorization: str | None) -> Shown:
    """Return who the request says it is from, by the one method that it uses (RFC 6749 section 2.3).

    Raises:
        Refusal: it uses two methods, or none, or names two clients.
    """
    basic, secret = authorization is not None, form.get("client_secret")
    assertion = "client_assertion" in form or "client_assertion_type" in form
    if basic + (secret is not None) + assertion > 1:
        raise _unknown("two methods at once", basic=basic)
    if authorization is not None:
        shown = _read_basic(authorization)
    elif assertion:
        shown = _read_assertion(form)
    elif secret is not None:
        shown = Shown(id=ClientId(form.get("client_id", "")), method="client_secret_post", secret=secret)
    else:
        shown = Shown(id=ClientId(form.get("client_id", "")), method="none")
    if not shown.id or len(shown.id) > limits.METADATA_URL:
        raise _unknown("no client is named", basic=basic)
    if form.get("client_id", shown.id) != shown.id:
        raise _unknown("two clients are named", basic=basic)
    return shown


def _read_basic(authorization: str) -> Shown:
    """RFC 6749 section 2.3.1: both halves are form-encoded before they are put together (RFC 7617)."""
    scheme, _, credentials = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        text = base64.b64decode(credentials.strip(), validate=True).decode()
        id_, separator, secret = text.partition(":")
        name, secret = unquote_plus(id_, errors="strict"), unquote_plus(secret, errors="strict")
    except (ValueError, binascii.Error):
        raise _unknown("an Authorization header that is not Basic", basic=True) from None
    if not separator:
        raise _unknown("an Authorization header that is not Basic", basic=True)
    return Shown(id=ClientId(name), method="client_secret_basic", secret=secret)


def _read_assertion(form: Form) -> Shown:
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise _unknown("no client assertion")
    try:
        assertion = jose.read(form.get("client_assertion", ""), algorithms=frozenset(ALGORITHMS))
        subject = jose.require_text(assertion.claims, "sub", limits.METADATA_URL)
    except SignatureRefused as error:
        raise _unknown("the assertion is not valid", str(error)) from None
    return Shown(id=ClientId(subject), method=METHOD, assertion=assertion)


def _keys(client: RegisteredClient, assertion: UnverifiedJws) -> Iterable[Verifier]:
    """The client's keys of the kind that the assertion's algorithm is for: the algorithm alone chooses no key."""
    keys = (client.jwks or {}).get("keys")
    for jwk in keys[:_KEYS] if isinstance(keys, list) else ():
        try:
            if isinstance(jwk, dict) and (key := _key(jwk, assertion.header["alg"])) is not None:
                yield key
        except KeyRefused:  # of another kind
            continue


def _key(jwk: dict[str, Any], algorithm: object) -> Verifier | None:
    if algorithm == es256.ALGORITHM:
        return P256Key.from_jwk(jwk)
    if algorithm not in rsa.ALGORITHMS:
        return PublicKey.from_jwk(jwk)
    key = RsaKey.from_jwk(jwk)  # which signs by one of its algorithms only, as the client says
    return key if key.algorithm == algorithm else None


def _unknown(kind: str, detail: str = "", *, basic: bool = False) -> Refusal:
    """One answer for every way in which a client can fail to be one (RFC 6749 section 5.2)."""
    text = "this client is not known here, or did not authenticate as it is registered"
    reason = f"{kind}: {detail}" if detail else kind
    return Refusal("invalid_client", text, kind=kind, reason=reason, status=401 if basic else 400)
