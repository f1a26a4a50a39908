"""The configuration's half about people and the software they sign in to: pydantic models, one for each table."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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
