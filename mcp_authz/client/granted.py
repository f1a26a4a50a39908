"""What a token response gives: an access token, for what and how long, and how one request shows that it is ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from mcp_authz.client.possession import Possession
from mcp_authz.rules.jose import SigningKey

_AHEAD: Final = timedelta(seconds=30)  # before its end a token is not used any more: the request takes time, too
_LONGEST: Final = 86400  # seconds that a response is believed


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """An access token, the key that it was got with, and what it is for as far as the gateway says so."""

    access: str = field(repr=False)
    key: SigningKey | None = field(repr=False)  # None where nothing is bound to one
    is_bound: bool  # whether each use takes a proof of the key (RFC 9449)
    began_at: datetime
    ends_at: datetime
    scope: frozenset[str]
    session: str | None
    subject: str | None
    link: str | None  # the delegation that it is for; None in the agent's own name
    answer: Mapping[str, Any] = field(repr=False)  # the whole response

    @property
    def lasts(self) -> timedelta:
        """How long it is used, from when it began."""
        whole = self.ends_at - self.began_at
        return max(whole - _AHEAD, whole / 2)

    @property
    def principal(self) -> str | None:
        """Whom the agent works for: `user:NAME`, or itself as `agent:NAME`; None in its own name, without a session."""
        return None if self.session is None else self.subject

    @property
    def is_own_name(self) -> bool:
        """Whether the agent has no session, and so can call nothing."""
        return self.subject is not None and self.session is None

    def credentials(self, possession: Possession, method: str, url: str, *, at: datetime) -> dict[str, str]:
        """The headers that show, in one request that is sent at once, that the token is ours (RFC 9449 section 7.1)."""
        if not self.is_bound or self.key is None:
            return {"authorization": f"Bearer {self.access}"}
        proof = possession.proof(self.key, method, url, at=at, token=self.access)
        return {"authorization": f"DPoP {self.access}", "dpop": proof}


def read_granted(answer: Mapping[str, Any], key: SigningKey, *, at: datetime) -> Granted:
    """Return what a response with an `access_token` gives (RFC 6749 section 5.1); without `expires_in` it is over."""
    seconds = answer.get("expires_in")
    lasts = max(0, min(_LONGEST, seconds)) if isinstance(seconds, int | float) else 0
    return Granted(
        access=str(answer["access_token"]),
        key=key,
        is_bound=str(answer.get("token_type", "")).lower() == "dpop",
        began_at=at,
        ends_at=at + timedelta(seconds=lasts),
        scope=frozenset(str(answer.get("scope", "")).split()),
        session=_text(answer.get("session")),
        subject=_text(answer.get("subject")),
        link=_text(answer.get("link")),
        answer=answer,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
