"""How people can sign in to the page, as the operator set it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcp_authz.people_elsewhere import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class WaysIn:
    """By passkey, by an OpenID provider, or either."""

    passkeys: bool = True
    provider: Provider | None = None


PASSKEYS_ALONE: Final = WaysIn()
