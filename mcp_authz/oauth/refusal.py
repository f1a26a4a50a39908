"""What a client of the authorization server is told when it gets nothing, and what the operator is told."""

from __future__ import annotations

from authlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]


class Refusal(OAuth2Error):  # type: ignore[misc]
    """One refused request.

    Attributes:
        reason: for the operator's record; never sent.
        recorded: whether the use layer has written the record of it already.
    """

    def __init__(self, error: str, description: str, *, reason: str = "", status: int = 400, recorded: bool = False):
        super().__init__(error=error, description=description, status_code=status)
        self.reason = f"{error}: {reason or description}"
        self.recorded = recorded


def invalid_client(reason: str) -> Refusal:
    """One answer for every way in which a client can fail to prove who it is (RFC 6749 section 5.2)."""
    return Refusal("invalid_client", "send a fresh client assertion signed by the agent's current key", reason=reason)
