"""A sign-in that is kept: the token, what renews it, whose they are, and the one server that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from mcp_authz.client.registering import Client
from mcp_authz.client.token_endpoint import Issued
from mcp_authz.errors import InputError, KeyRefused
from mcp_authz.rules.es256 import P256PrivateKey
from mcp_authz.rules.jose import SigningKey
from mcp_authz.rules.keys import PrivateKey

_AHEAD: Final = timedelta(seconds=30)  # before its end a token is not used any more: the request takes time, too
_KINDS: Final[Mapping[str, Callable[[str], PrivateKey | P256PrivateKey]]] = {
    "EdDSA": PrivateKey.from_pem,
    "ES256": P256PrivateKey.from_pem,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """What one program has at one MCP server; it prints nothing that is secret."""

    url: str  # of the MCP server
    resource: str
    issuer: str  # of the authorization server that gave all of this, and the only one that sees it again
    client: Client
    asked: frozenset[str]  # the scopes that were asked for
    scope: frozenset[str]  # and those that were given
    access: str = field(repr=False)
    is_bound: bool  # whether each use takes a proof of `key`
    began_at: datetime
    ends_at: datetime
    refresh: str | None = field(repr=False)
    key: PrivateKey | P256PrivateKey | None = field(repr=False)
    more: Mapping[str, str] = field(default_factory=dict, repr=False)  # what else the server said, in text

    def is_good(self, now: datetime) -> bool:
        """Whether the token is used still."""
        whole = self.ends_at - self.began_at
        return now < self.began_at + max(whole - _AHEAD, whole / 2)

    def renewed(self, issued: Issued, now: datetime) -> SignedIn:
        """The sign-in with what a refresh gave; the old refresh token stays where no new one came."""
        kept = {name: getattr(self, name) for name in ("url", "resource", "issuer", "client", "asked", "key")}
        return SignedIn(
            **kept,
            scope=self.scope if issued.scope is None else issued.scope,
            access=issued.access,
            is_bound=issued.is_bound,
            began_at=now,
            ends_at=issued.ends_at,
            refresh=issued.refresh or self.refresh,
            more={**self.more, **issued.more},
        )

    def to_json(self) -> dict[str, Any]:
        """The sign-in as JSON, secrets included."""
        client = {name: getattr(self.client, name) for name in ("id", "issuer", "secret", "method", "redirect")}
        return {
            "url": self.url,
            "resource": self.resource,
            "issuer": self.issuer,
            "client": client,
            "asked": sorted(self.asked),
            "scope": sorted(self.scope),
            "access": self.access,
            "is_bound": self.is_bound,
            "began_at": self.began_at.timestamp(),
            "ends_at": self.ends_at.timestamp(),
            "refresh": self.refresh,
            "key": None if self.key is None else {"alg": self.key.algorithm, "pem": self.key.to_pem()},
            "more": dict(self.more),
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> SignedIn:
        """Return the sign-in that `to_json` wrote.

        Raises:
            InputError: it wrote something else.
        """
        try:
            key = said["key"]
            return cls(
                **{name: said[name] for name in ("url", "resource", "issuer", "access", "is_bound", "refresh")},
                client=Client(**said["client"]),
                asked=frozenset(said["asked"]),
                scope=frozenset(said["scope"]),
                began_at=datetime.fromtimestamp(said["began_at"], UTC),
                ends_at=datetime.fromtimestamp(said["ends_at"], UTC),
                key=None if key is None else _KINDS[key["alg"]](key["pem"]),
                more=dict(said["more"]),
            )
        except (KeyError, TypeError, ValueError, KeyRefused):
            raise InputError("the kept sign-in is not as it was written") from None


class Storage(Protocol):
    """Where a sign-in is kept, perhaps for several programs at once."""

    def load(self) -> SignedIn | None:
        """Return what was saved last; None when there is nothing.

        Raises:
            AuthzError: it cannot be read.
        """
        ...

    def save(self, signed_in: SignedIn | None) -> None:
        """This is what `load` returns from now on, after a crash, too, where anything is.

        Raises:
            AuthzError: it cannot be written.
        """
        ...

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Nobody else renews it while the body runs: a refresh token that is used twice ends the sign-in."""
        ...


class Memory:
    """Keeps a sign-in as long as the program runs."""

    def __init__(self) -> None:
        self._kept: SignedIn | None = None

    def load(self) -> SignedIn | None:
        """Return what was saved last."""
        return self._kept

    def save(self, signed_in: SignedIn | None) -> None:
        """This is what `load` returns from now on."""
        self._kept = signed_in

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Nobody else has it anyway."""
        return nullcontext()


def key_for(algorithms: frozenset[str]) -> PrivateKey | P256PrivateKey | None:
    """Return a new key by which possession is proved to a server that takes these; None where it takes none of ours."""
    if PrivateKey.algorithm in algorithms:
        return PrivateKey.generate()
    return P256PrivateKey.generate() if P256PrivateKey.algorithm in algorithms else None


def thumbprint(key: SigningKey | None) -> str | None:
    """The key's thumbprint, if there is a key."""
    return None if key is None else key.public.thumbprint
