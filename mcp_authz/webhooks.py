"""Tells receivers elsewhere that a call waits for a person, and when it does not any more: signed, and tried again.

Nothing waits for it, and nothing depends on it: what cannot be told is on record, and said in the log once. What is on
its way when the gateway stops is lost; the page has every call.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

import anyio

from mcp_authz import limits
from mcp_authz.errors import FetchRefused, StoreError
from mcp_authz.ids import new_id
from mcp_authz.model import HeldCall, HoldState
from mcp_authz.posting import Posted, Poster, is_private_or_public
from mcp_authz.rules import webhook_message
from mcp_authz.rules.chat_templates import Template, body_of
from mcp_authz.rules.webhook_message import Message, concerns
from mcp_authz.rules.webhook_signature import WebhookSecret, signed_headers
from mcp_authz.store.ports import Clock, Event, Store
from mcp_authz.waits import Waits

log = logging.getLogger(__name__)

_TROUBLE: Final = 1.0  # seconds between two looks at a store that cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One receiver: where it is, what it is told, and by which secrets both sides know each other."""

    name: str
    url: str = field(repr=False)  # of chat services it is a secret itself
    topic: str = field(default="", repr=False)  # ntfy's
    template: Template = "json"
    tells: Literal["summary", "everything"] = "summary"
    rules: frozenset[str] = frozenset()  # it is about holds with one of these alone; empty: about all
    secret: WebhookSecret | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    poster: Poster = field(default_factory=Poster)
    callback: WebhookSecret | None = None  # what answers are signed with; None: it may not answer
    people: Mapping[str, str] = field(default_factory=dict)  # by the receiver's ids for them; empty: by their names


def poster_for(*, allow_private: bool) -> Poster:
    """What posts to a receiver; to one inside only where the operator allows that."""
    return Poster(may_reach=is_private_or_public) if allow_private else Poster()


def verdict_url(public_url: str, webhook: Webhook) -> str:
    """Where signed answers of this webhook are received."""
    return f"{public_url}/webhooks/{webhook.name}/verdict"


async def post(webhook: Webhook, message: Message, *, message_id: str, clock: Clock) -> Posted:
    """Return how the receiver answered to one attempt; each attempt is signed with its own time.

    Raises:
        FetchRefused: it cannot be reached, or may not be.
    """
    body = body_of(webhook.template, message, webhook.topic)
    signed = {}
    if webhook.secret is not None:
        signed = signed_headers(webhook.secret, message_id=message_id, at=clock(), body=body)
    return await webhook.poster(webhook.url, {**webhook.headers, **signed}, body)


@dataclass(slots=True)
class _Answered:
    """Set when a hold does not wait for a person any more."""

    event: anyio.Event = field(default_factory=anyio.Event)
    held: HeldCall | None = None


class Webhooks:
    """The receivers of one running gateway."""

    def __init__(
        self,
        webhooks: Iterable[Webhook],
        *,
        store: Store,
        waits: Waits,
        clock: Clock,
        public_url: str,
        pauses: tuple[timedelta, ...] = limits.WEBHOOK_PAUSES,
    ) -> None:
        self._webhooks = tuple(webhooks)
        self._store, self._waits, self._clock = store, waits, clock
        self._public_url = public_url
        self.pauses = pauses  # between attempts
        self._new: deque[HeldCall] = deque()
        self._following = 0
        self._wake = anyio.Event()
        self._at_once: dict[str, anyio.CapacityLimiter] = defaultdict(
            lambda: anyio.CapacityLimiter(limits.WEBHOOK_AT_ONCE)
        )
        self._troubled: set[str] = set()  # webhooks of which the log said that they cannot be told

    @property
    def all(self) -> tuple[Webhook, ...]:
        """Every receiver, in the order of the configuration."""
        return self._webhooks

    def tell(self, held: HeldCall) -> None:
        """Whoever is to be told hears of this call soon; returns at once, and never fails."""
        if held.state is not HoldState.PENDING or not any(concerns(it.rules, held) for it in self._webhooks):
            return
        if len(self._new) + self._following >= limits.WEBHOOK_HOLDS:
            log.warning("webhooks are not told of hold %s: %d wait already", held.id, limits.WEBHOOK_HOLDS)
            return
        self._new.append(held)
        self._wake.set()

    async def run(self) -> None:
        """Messages are sent; without end."""
        async with anyio.create_task_group() as group:
            while True:
                while self._new:
                    self._following += 1
                    group.start_soon(self._follow, self._new.popleft())
                self._wake = anyio.Event()
                await self._wake.wait()

    async def _follow(self, held: HeldCall) -> None:
        """Every receiver of this hold hears that it waits, and each that did hears what became of it."""
        answered = _Answered()
        try:
            async with anyio.create_task_group() as group:
                for webhook in self._webhooks:
                    if concerns(webhook.rules, held):
                        group.start_soon(self._tell, webhook, held, answered)
                answered.held = await self._until_answered(held)
                answered.event.set()
        finally:
            self._following -= 1

    async def _tell(self, webhook: Webhook, held: HeldCall, answered: _Answered) -> None:
        page = f"{self._public_url}/holds"
        opened = opened_message(webhook, held, public_url=self._public_url, clock=self._clock)
        if not await self._deliver(webhook, opened, held, until=answered.event):
            return
        await answered.event.wait()
        if answered.held is not None:
            ended = webhook_message.ended(answered.held, page=page, at=self._clock())
            await self._deliver(webhook, ended, held, until=None)

    async def _until_answered(self, held: HeldCall) -> HeldCall:
        """The hold, once it waits for nobody any more."""
        while held.state is HoldState.PENDING:
            left = max(held.expires_at - self._clock(), timedelta(milliseconds=1))
            try:
                held = await self._waits.until_moved(held, min(left, limits.WEBHOOK_LOOKED_AT))
            except StoreError:
                await anyio.sleep(_TROUBLE)
        return held

    async def _deliver(self, webhook: Webhook, message: Message, held: HeldCall, until: anyio.Event | None) -> bool:
        """Whether the receiver took the message; it is not tried again once `until` is set."""
        message_id, why = new_id("msg"), ""
        for pause in (*self.pauses, None):
            posted: Posted | None = None
            try:
                async with self._at_once[webhook.name]:
                    posted = await post(webhook, message, message_id=message_id, clock=self._clock)
                why = f"it answers with HTTP {posted.status}"
            except FetchRefused as refused:
                why = str(refused)
            if posted is not None and posted.is_taken:
                self._troubled.discard(webhook.name)
                return True
            if pause is None or (posted is not None and not posted.is_worth_repeating):
                break
            longer = None if posted is None else posted.retry_after
            if await _set_within(until, max(pause, longer or pause)):
                why = f"{why}; the call was answered meanwhile"
                break
        await self._failed(webhook, message, held, why)
        return False

    async def _failed(self, webhook: Webhook, message: Message, held: HeldCall, why: str) -> None:
        said = f"webhook `{webhook.name}` could not be told of hold {held.id} ({message.type}): {why}"
        if webhook.name not in self._troubled:
            self._troubled.add(webhook.name)
            log.warning("%s; it is said once, until it works again", said)
        fields = {"webhook": webhook.name, "hold": held.id, "message": message.type, "summary": said}
        try:
            await self._store.append(Event(kind="administration", at=self._clock(), call=held.id, fields=fields))
        except StoreError as error:
            log.error("that webhook `%s` failed could not be recorded: %s", webhook.name, error)


def telling(*listeners: Callable[[HeldCall], None]) -> Callable[[HeldCall], None]:
    """What tells all of them of a held call; none of them fails, or takes time."""

    def tell(held: HeldCall) -> None:
        for listener in listeners:
            listener(held)

    return tell


def opened_message(webhook: Webhook, held: HeldCall, *, public_url: str, clock: Clock) -> Message:
    """What this webhook is told of a call that waits: as much as its configuration says."""
    page, at = f"{public_url}/holds", clock()
    if webhook.tells == "summary":
        return webhook_message.opened(held, page=page, at=at)
    url = None if webhook.callback is None else verdict_url(public_url, webhook)
    return webhook_message.opened_whole(held, page=page, at=at, verdict_url=url)


async def _set_within(event: anyio.Event | None, longest: timedelta) -> bool:
    """Whether the event is set before `longest` is over."""
    if event is None:
        await anyio.sleep(longest.total_seconds())
        return False
    with anyio.move_on_after(longest.total_seconds()):
        await event.wait()
    return event.is_set()
