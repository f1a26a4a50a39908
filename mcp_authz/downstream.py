"""The port that tool adapters implement: a tool server that lists, answers admitted calls, and says when it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mcp_authz.model import Admitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Something a server lists beside tools: the capability, the method, and the member that holds the list."""

    capability: str
    method: str
    member: str


RESOURCES: Final = Offer(capability="resources", method="resources/list", member="resources")
TEMPLATES: Final = Offer(capability="resources", method="resources/templates/list", member="resourceTemplates")
PROMPTS: Final = Offer(capability="prompts", method="prompts/list", member="prompts")


class Relay(Protocol):
    """The way back to the caller while one call runs; the gateway implements it, adapters use it."""

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Hand on what the server said about this call: progress, logging, any notification that belongs to it.

        Called in the order in which the server spoke, never after `forward` has ended. Progress comes without
        `progressToken`: that one is the gateway's own, the caller's belongs to the edge. Must not raise: a caller
        who is gone hears nothing.
        """

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the caller's answer to a question of the server (elicitation, sampling, roots).

        Raises:
            DownstreamRefusal: the question is not allowed for this server, or the caller cannot answer it.
        """


class Downstream(Protocol):
    """One configured tool server.

    `run()` keeps it connected (restarting with backoff) until the context ends; the other methods may be called at
    any time inside that context and raise `DownstreamError` while the server cannot be reached.
    """

    @property
    def name(self) -> str:
        """The configured server name, `[a-z0-9-]{1,20}`."""

    def run(self) -> AbstractAsyncContextManager[None]:
        """Connect and stay connected; a server that cannot be reached is no error here.

        The context is entered once the first attempt has succeeded or failed.
        """

    async def list_tools(self) -> tuple[Mapping[str, Any], ...]:
        """Return every tool definition exactly as the server lists it, all pages, every member kept."""

    async def list_offers(self, offer: Offer) -> tuple[Mapping[str, Any], ...]:
        """Return everything of this kind exactly as the server lists it; nothing if the server offers none."""

    def declares(self, capability: str) -> bool:
        """Return whether the server says that it has this, such as `prompts`; True also while it cannot be asked."""

    async def forward(self, admitted: Admitted, relay: Relay) -> Mapping[str, Any]:
        """Return the server's result exactly as it sent it, without `_meta` of our prefix.

        A result that asks (`resultType: "input_required"`) is returned like any other; the answers go into
        `Admitted.extra` of the next call. `Admitted.context`, where there is one, goes along in `_meta`, and over HTTP
        in a header too. Cancelling the awaiting task cancels the call at the server.

        Raises:
            DownstreamRefusal: the server answered with a JSON-RPC error.
            DownstreamError: it could not be reached, or the connection broke; `sent` says whether it may have run.
        """

    def on_tools_changed(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the server says that its tools changed, and after each connection."""

    @property
    def reachable(self) -> bool:
        """Whether the last attempt to speak to the server succeeded."""
