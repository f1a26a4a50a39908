"""Where agents sign in at a gateway, and the two ways in which that comes to nothing."""

from __future__ import annotations

from dataclasses import dataclass

from mcp_authz.errors import AuthzError


class SignInRefused(AuthzError):
    """The gateway gave no token; the message says what it answered."""

    code = "sign_in_refused"


class NoAnswer(AuthzError):
    """Nobody answered at the token endpoint, or what answered is no authorization server."""

    code = "no_answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where agents sign in: the issuer, which assertions are for, and its token endpoint."""

    issuer: str
    token_endpoint: str
    published: str | None = None  # its token endpoint's URL for everybody, where HTTP gets there by another

    @property
    def token_url(self) -> str:
        """The token endpoint by its one published URL, which proofs are made for."""
        return self.published or self.token_endpoint
