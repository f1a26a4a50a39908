"""What a client of the authorization server is told when it gets nothing, and what the operator is told."""

from __future__ import annotations

import logging
from collections.abc import Callable

from authlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]

from mcp_authz import limits

log = logging.getLogger(__name__)


class Refusal(OAuth2Error):  # type: ignore[misc]
    """One refused request.

    Attributes:
        counted: by what strangers' refusals are counted: a code, and a few words of ours, never any of theirs.
        reason: for the operator's record, cut to `limits.DETAIL_RECORDED`; never sent.
        recorded: whether the use layer has written the record of it already.
    """

    def __init__(
        self,
        error: str,
        description: str,
        *,
        kind: str = "",
        reason: str = "",
        status: int = 400,
        recorded: bool = False,
    ):
        super().__init__(error=error, description=description, status_code=status)
        self.counted = f"{error}: {kind}" if kind else error
        self.reason = f"{error}: {reason or description}"[: limits.DETAIL_RECORDED]
        self.recorded = recorded


def invalid_client(kind: str, detail: str = "") -> Refusal:
    """One answer for every way in which a client can fail to prove who it is (RFC 6749 section 5.2)."""
    text = "send a fresh client assertion signed by the agent's current key"
    return Refusal("invalid_client", text, kind=kind, reason=f"{kind}: {detail}" if detail else kind)


def counting(count: Callable[[str, str], None]) -> Callable[[OAuth2Error, str], None]:
    """Return what counts the refusal of a stranger: by fixed words, so that the stranger's own words fill nothing.

    What exactly was wrong is in the log, for who asks for that much of it.
    """

    def counted(error: OAuth2Error, peer: str) -> None:
        count(error.counted if isinstance(error, Refusal) else str(error.error), peer)
        if isinstance(error, Refusal):
            log.debug("refused %s: %r", peer, error.reason)

    return counted
