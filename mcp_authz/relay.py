"""The other direction, governed: what a tool server may say and ask while it runs one call."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Protocol

import anyio

from mcp_authz import limits
from mcp_authz.errors import DownstreamRefusal
from mcp_authz.rules.display import visible
from mcp_authz.rules.message import without_own_meta
from mcp_authz.rules.redaction import Withheld

log = logging.getLogger(__name__)

METHOD_NOT_FOUND: Final = -32601


class Unanswered(DownstreamRefusal):
    """A question to which there is no answer, and will be none."""


class Channel(Protocol):
    """The way back to the caller of one request, as an edge provides it."""

    @property
    def can_elicit(self) -> frozenset[str]:
        """The elicitation modes the client declared: `form`, `url`."""

    @property
    def can_be_asked(self) -> bool:
        """Whether the client can be asked during the call; if not, it is asked by the result and calls again."""

    @property
    def can_return(self) -> bool:
        """Whether the client calls again by itself when a result without questions says so (2026-07-28)."""

    @property
    def can_do_tasks(self) -> bool:
        """Whether the client declared that it looks after a call by polling (`io.modelcontextprotocol/tasks`)."""

    @property
    def longest_wait(self) -> timedelta:
        """How long the request may go without an answer."""

    @property
    def is_gone(self) -> bool:
        """Whether the caller has called the request off, or gone away, where that ends it."""

    def disagreement(self, schema: Any, arguments: Mapping[str, Any]) -> str | None:
        """How the transport's own fields contradict the arguments (`Mcp-Param-*`); None when they agree."""

    async def decided(self) -> None:
        """Called once the decision stands: the edge may commit its status and headers from here on."""

    def when_gone(self, do: Callable[[], None]) -> None:
        """Have this done once the caller has gone away, where that does not end the request's own task anyway."""

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification that belongs to this request."""

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the client's answer to a request.

        Raises:
            DownstreamRefusal: the client answered with an error.
        """


Redact = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Takes out of what a tool server says what its caller may not read (`obligations`)."""


async def _as_it_is(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return params


class GovernedRelay:
    """The `Relay` of one call: only allowed questions, marked with the server's name, and no `_meta` of ours."""

    def __init__(self, *, server: str, channel: Channel, elicitation: bool, redact: Redact | None = None) -> None:
        self._server = server
        self._redact = redact or _as_it_is
        self._channel = channel
        self._elicitation = elicitation

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Hand on what the server said about this call."""
        try:
            said = await self._redact({"method": method, "params": params})
        except Withheld as error:
            log.warning("what tool server `%s` said during a call is not handed on: %s", self._server, error)
            return
        if said["method"] == method:  # a server may call its notification anything, also by a secret
            await self._channel.notify(method, clean(said["params"]))

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the caller's answer to a question that this server may ask.

        Raises:
            Unanswered: nobody is there any more who could answer, or the time for it is up.
            DownstreamRefusal: this may not be asked, or the client answered with an error.
        """
        if not self._channel.can_be_asked:
            raise DownstreamRefusal(METHOD_NOT_FOUND, "the caller cannot be asked during a call")
        try:
            redacted = await self._redact(params)
        except Withheld as error:
            raise DownstreamRefusal(METHOD_NOT_FOUND, str(error)) from None
        asked = self.question(method, redacted)
        # As long as a question by result counts. The SDK lets a request of the older era wait on when its client left.
        with anyio.move_on_after(limits.REQUEST_STATE_LIFETIME.total_seconds()) as open_question:
            self._channel.when_gone(open_question.cancel)
            return clean(await self._channel.ask(method, asked))
        raise Unanswered(METHOD_NOT_FOUND, "the caller did not answer")

    def question(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The question as the caller may see it.

        Raises:
            DownstreamRefusal: servers may not ask this, or the caller did not declare that it can answer.
        """
        mode = params.get("mode", "form")
        # URL elicitation, sampling and roots are off: a server could phish, spend the user's model, or look around.
        if method != "elicitation/create" or mode != "form" or not self._elicitation:
            raise DownstreamRefusal(METHOD_NOT_FOUND, f"this gateway does not let tool servers ask for {method}")
        if mode not in self._channel.can_elicit:
            raise DownstreamRefusal(METHOD_NOT_FOUND, "the caller did not declare that it can be asked")
        message = f"[tool server `{self._server}`] {visible(str(params.get('message', '')))}"
        return {**clean(params), "message": message}


def clean(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with our `_meta` prefix removed, so that no server can speak in our name."""
    meta = params.get("_meta")
    return {**params, "_meta": without_own_meta(meta)} if isinstance(meta, dict) else dict(params)
