"""Signed answers of webhooks: each is bounded, known to be of who knows the secret, read, and counted once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.approvals import Approvals
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound, SignatureRefused, StoreError
from mcp_authz.hearing import WebhookAnswer
from mcp_authz.model import HoldId
from mcp_authz.principals import Once, PersonName
from mcp_authz.protocol.json_body import bounded_body, require_json
from mcp_authz.protocol.throttle import Refusals, Throttle, source
from mcp_authz.rules import strict_json
from mcp_authz.rules.verdict import SEND_BACK
from mcp_authz.rules.webhook_signature import ID, SIGNATURE, TIMESTAMP, Received, WebhookSecret, require_signature
from mcp_authz.store.ports import Clock, Store
from mcp_authz.webhooks import Webhook

PATH: Final = "/webhooks/{name}/verdict"
_ONE_EACH: Final = (ID, TIMESTAMP, SIGNATURE, "content-type", "content-length", "host")
_MEMBERS: Final = frozenset({"hold", "act_s256", "shown_s256", "person", "verdict"})
_VERDICTS: Final = frozenset({"approve", "deny", SEND_BACK})
_NAME: Final = 128  # characters of a member that names something
_STATUS: Final[tuple[tuple[type[AuthzError], int], ...]] = (
    (InputError, 400),
    (SignatureRefused, 401),
    (NotFound, 404),
    (Conflict, 409),
    (StoreError, 503),
)


class Verdicts:
    """Receives what webhooks answer, and hands it to `Approvals`, which decides."""

    def __init__(
        self, webhooks: Iterable[Webhook], *, store: Store, approvals: Approvals, clock: Clock, refusals: Refusals
    ) -> None:
        self._webhooks = {it.name: it for it in webhooks if it.callback is not None}
        self._store, self._approvals, self._clock = store, approvals, clock
        self._refusals = refusals
        self._throttle = Throttle(burst=limits.WEBHOOK_BURST, per_second=limits.WEBHOOK_PER_SECOND)

    @property
    def routes(self) -> list[Route]:
        """Where answers come in; nowhere, if no webhook may answer."""
        return [Route(PATH, self.receive, methods=["POST"])] if self._webhooks else []

    async def receive(self, request: Request) -> Response:
        """Answer one request."""
        peer = source(request.client.host) if request.client else "local"
        if not self._throttle.allows(peer, time.monotonic()):
            return _refusal(429, "too many refused requests from here; slow down")
        try:
            webhook, received, body = await self._known(request)
        except AuthzError as error:
            self._throttle.charge(peer, time.monotonic())
            self._refusals.count(f"webhook: {error.code}", peer)
            return _refusal(_status(error), str(error))
        try:
            answer = read_answer(webhook, received, body)
            # After it was read, so that who sent something unreadable can correct it; before it counts for anything.
            if not await self._store.remember(_once(webhook, received)):
                raise Conflict(f"`{ID}` was received before; each answer counts once, and has an id of its own")
            held = await self._approvals.hear_webhook(answer)
        except AuthzError as error:
            return _refusal(_status(error), str(error))
        return JSONResponse({"hold": held.id, "state": held.state.value})

    async def _known(self, request: Request) -> tuple[Webhook, Received, bytes]:
        """The webhook that sends this, and what it sends, once it is known that it does."""
        webhook = self._webhooks.get(request.path_params["name"])
        if webhook is None or webhook.callback is None:
            raise NotFound("there is no webhook here that could answer")
        body = await bounded_body(request, most=limits.WEBHOOK_BODY_BYTES)
        return webhook, require_signature(_secret(webhook), _headers(request), body, self._clock()), body


def read_answer(webhook: Webhook, received: Received, body: bytes) -> WebhookAnswer:
    """Return what a signed body answers.

    Raises:
        InputError: a member is missing, unknown, or not what it should be.
        NotFound: the webhook's own list of people has nobody by this name.
    """
    members = strict_json.parse_object(body, max_bytes=limits.WEBHOOK_BODY_BYTES)
    if not members.keys() >= _MEMBERS or members.keys() - _MEMBERS - {"reason"}:
        raise InputError(f"give exactly {', '.join(sorted(_MEMBERS))}, and `reason` where there is one")
    verdict, reason = _text(members, "verdict"), _text(members, "reason", most=limits.REASON)
    if verdict not in _VERDICTS:
        raise InputError(f"`verdict` must be one of {', '.join(sorted(_VERDICTS))}")
    person = _text(members, "person")
    if webhook.people and person not in webhook.people:
        raise NotFound(f"there is no person `{person}`")
    return WebhookAnswer(
        webhook=webhook.name,
        message=received.id,
        rules=webhook.rules,
        hold=HoldId(_text(members, "hold")),
        person=PersonName(webhook.people.get(person, person)),
        approve=verdict == "approve",
        sent_back=verdict == SEND_BACK,
        reason=reason,
        act_s256=_text(members, "act_s256"),
        shown_s256=_text(members, "shown_s256"),
    )


def _headers(request: Request) -> Mapping[str, str]:
    """The headers that count, of which there must be one each."""
    if any(len(request.headers.getlist(name)) > 1 for name in _ONE_EACH):
        raise InputError("a header appears more than once")
    require_json(request)
    return {name: request.headers[name] for name in (ID, TIMESTAMP, SIGNATURE) if name in request.headers}


def _secret(webhook: Webhook) -> WebhookSecret:
    assert webhook.callback is not None  # noqa: S101 - only such webhooks are known here
    return webhook.callback


def _once(webhook: Webhook, received: Received) -> Once:
    """The single use of a message; its id is the webhook's own choice, so that it counts for this webhook alone."""
    return Once(
        kind="webhook",
        id=f"{webhook.name}:{received.id}",
        expires_at=received.sent_at + limits.WEBHOOK_AGE,
        issued_at=received.sent_at,
    )


def _text(members: Mapping[str, Any], name: str, *, most: int = _NAME) -> str:
    value = members.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise InputError(f"`{name}` must be text of at most {most} characters")
    return value


def _status(error: AuthzError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _refusal(status: int, says: str) -> Response:
    headers = {"cache-control": "no-store", **({"retry-after": "1"} if status == 429 else {})}
    return JSONResponse({"error": says}, status, headers=headers)
