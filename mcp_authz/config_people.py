"""The configuration's half about people and the software they sign in to: pydantic models, one for each table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mcp_authz.errors import AuthzError
from mcp_authz.rules.redirect_uri import SCHEMES, require_scheme
from mcp_authz.rules.scope import Scope, parse_scope, without_personal

WORDS: Final = 80  # characters that say on the page what a scope means
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Word = Annotated[str, Field(min_length=1, max_length=256)]


class ProviderConfig(_Strict):
    """The OpenID provider that says who people are (OpenID Connect Core 1.0)."""

    issuer: str
    client_id: Word
    client_secret_file: Word | None = None
    name: Annotated[str, Field(min_length=1, max_length=40)] = "your company"
    scopes: tuple[Word, ...] = Field(default=("openid", "profile"), strict=False)
    person_claim: Word = "preferred_username"
    email_domain: Word | None = None
    groups_claim: Word = "groups"
    groups: dict[Word, Word] = {}
    allowed_groups: tuple[Word, ...] = Field(default=(), strict=False)
    provision: bool = True

    @field_validator("issuer")
    @classmethod
    def _an_issuer(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        if parts.scheme not in {"https", "http"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be the provider's issuer, such as https://login.example.com")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError("plain http is for localhost only; use https")
        return issuer

    @field_validator("scopes")
    @classmethod
    def _openid(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in scopes:
            raise ValueError("`openid` must be among them; without it the provider does not say who signs in")
        return scopes


class SignInConfig(_Strict):
    """How people sign in to the page."""

    passkeys: bool = True
    provider: ProviderConfig | None = None

    @model_validator(mode="after")
    def _some_way_in(self) -> SignInConfig:
        if not self.passkeys and self.provider is None:
            raise ValueError("`passkeys = false` needs a `[sign_in.provider]`; otherwise nobody could sign in")
        return self


class AdministrationConfig(_Strict):
    """Who may look at everything, and who may stop anything: on the page and from another machine."""

    admins: tuple[Word, ...] = Field(default=(), strict=False)
    auditors: tuple[Word, ...] = Field(default=(), strict=False)

    @field_validator("admins", "auditors")
    @classmethod
    def _principals(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            kind, _, rest = name.partition(":")
            if kind not in {"user", "group"} or not rest:
                raise ValueError(f"`{name}` is neither user:NAME nor group:NAME")
        return names


class ClientsConfig(_Strict):
    """The software that people sign in to: how it becomes known, and what people may let it do."""

    dynamic_registration: bool = False
    schemes: tuple[str, ...] = Field(default=SCHEMES, strict=False)
    ceiling: tuple[str, ...] = Field(default=(), strict=False)
    grant_days: Annotated[int, Field(ge=1, le=90)] = 30

    @field_validator("schemes")
    @classmethod
    def _of_applications(cls, schemes: tuple[str, ...]) -> tuple[str, ...]:
        return _each(require_scheme, schemes)

    @field_validator("ceiling")
    @classmethod
    def _scopes(cls, ceiling: tuple[str, ...]) -> tuple[str, ...]:
        return _each(_scope_to_have, ceiling)


class EnterpriseClientConfig(_Strict):
    """What assertions of the provider are good for in the hands of one client."""

    scopes: Annotated[tuple[Word, ...], Field(strict=False, min_length=1)]
    client_id: Word | None = None

    @field_validator("scopes")
    @classmethod
    def _scopes(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        return _each(_scope_to_have, scopes)


class EnterpriseConfig(_Strict):
    """The provider whose identity assertion grants count (ID-JAG), and the clients that may bring them."""

    issuer: str
    jwks_uri: str | None = None
    tenant: Word | None = None
    clients: dict[str, EnterpriseClientConfig]
    person_claim: Word = "preferred_username"
    email_domain: Word | None = None
    groups_claim: Word = "groups"
    groups: dict[Word, Word] = {}
    allowed_groups: tuple[Word, ...] = Field(default=(), strict=False)
    provision: bool = True

    @field_validator("issuer")
    @classmethod
    def _an_issuer(cls, issuer: str) -> str:
        if urlsplit(issuer).query or not _is_reachable(issuer):
            raise ValueError("must be the provider's issuer, such as https://login.example.com; http is for localhost")
        return issuer

    @field_validator("jwks_uri")
    @classmethod
    def _a_url(cls, url: str | None) -> str | None:
        if url is not None and not _is_reachable(url):
            raise ValueError("must be where the provider's keys are, by https; http is for localhost")
        return url

    @field_validator("clients")
    @classmethod
    def _some(cls, clients: dict[str, EnterpriseClientConfig]) -> dict[str, EnterpriseClientConfig]:
        if not clients:
            raise ValueError("name at least one client; `[enterprise.clients.CLIENT]` has its `scopes`")
        return clients


def _is_reachable(url: str) -> bool:
    """Whether this is a URL by https, or by http on this computer, that says everything plainly."""
    parts = urlsplit(url)
    plain = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    return plain and bool(parts.hostname) and not parts.fragment and parts.username is None


def require_words(scopes: dict[str, str]) -> dict[str, str]:
    """Return what scopes mean in plain words, once each of them is a scope.

    Raises:
        ValueError: one is not, or its words are not 1 to 80 characters.
    """
    _each(parse_scope, scopes)
    for scope, words in scopes.items():
        if not 1 <= len(words) <= WORDS or not words.isprintable():
            raise ValueError(f"say what `{scope}` means in 1 to {WORDS} characters, on one line")
    return scopes


def _scope_to_have(text: str) -> Scope:
    """A scope that an operator may say somebody has; leave to answer held calls is for a person to give."""
    (scope,) = without_personal(frozenset([parse_scope(text)]))
    return scope


def _each(read: Callable[[str], str], texts: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(read(text) for text in texts)
    except AuthzError as error:
        raise ValueError(str(error)) from None
