"""The identifiers of RFC 8693: its grant type, and the types of the tokens that are exchanged here (section 3)."""

from __future__ import annotations

from typing import Final

TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"
"""A chain of signed links: one compact JWS per line, root first (`rules.signed_link`)."""
