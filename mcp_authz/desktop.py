"""Tells the person at this desktop that a call waits: a notification of the operating system, which opens the page.

Nothing waits for it, and nothing depends on it: what cannot be shown is not shown, and the log says so once.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import webbrowser
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import TaskGroup

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.rules.display import for_whom, visible
from mcp_authz.rules.session_request import NAME as REQUEST_SESSION
from mcp_authz.store.ports import Clock, Store

if TYPE_CHECKING:
    from desktop_notifier import DesktopNotifier

log = logging.getLogger(__name__)

APP: Final = "mcp-authz"
_BUS: Final = "DBUS_SESSION_BUS_ADDRESS"
SHOWN: Final = 80  # characters of a tool's name; notifications are narrow


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What one notification says, and what a click on it opens."""

    title: str
    message: str
    url: str
    holds: frozenset[HoldId]  # it is withdrawn when none of them waits any more


def notice(held: tuple[HeldCall, ...], public_url: str) -> Notice:
    """Return the notice of one held call, or of several at once; it repeats no argument.

    The message may be read as markup by the desktop, so that nothing of an agent's or a server's choice is in it.
    """
    holds = frozenset(each.id for each in held)
    if len(held) > 1:
        return Notice(
            title=f"{len(held)} calls wait for you",
            message="Click to see them.",
            url=f"{public_url}/holds",
            holds=holds,
        )
    (one,) = held
    asks = "asks for a session" if one.tool == REQUEST_SESSION else f"asks to run {visible(one.tool)[:SHOWN]}"
    return Notice(
        title=f"{one.actor} {asks}",
        message=f"For {for_whom(one)}. Click to see it whole, and to approve or deny it.",
        url=f"{public_url}/holds/{one.id}",
        holds=holds,
    )


def _several(said: tuple[Notice, ...]) -> Notice:
    title = f"{len(said)} calls that you wanted to hear of"
    return Notice(title=title, message="`mcp-authz audit list` has them.", url=said[0].url, holds=frozenset())


@dataclass(slots=True, kw_only=True)
class Desktop:
    """The notifications of one running gateway."""

    store: Store
    clock: Clock
    public_url: str
    per_minute: int = limits.NOTICES_PER_MINUTE
    _waiting: deque[HeldCall] = field(default_factory=lambda: deque(maxlen=limits.NOTICES_WAITING))
    _said: deque[Notice] = field(default_factory=lambda: deque(maxlen=limits.NOTICES_WAITING))
    _wake: anyio.Event = field(default_factory=anyio.Event)
    _shown: dict[str, frozenset[HoldId]] = field(default_factory=dict)  # by the library's id of the notification
    _silent: bool = False

    def tell(self, held: HeldCall) -> None:
        """The person hears of this call soon, or of several at once; returns at once, and never fails."""
        self._waiting.append(held)
        self._wake.set()

    def say(self, title: str, message: str) -> None:
        """The person hears of a call that policy wants them to hear of, soon; returns at once, and never fails."""
        self._said.append(Notice(title=title, message=message, url=self.public_url, holds=frozenset()))
        self._wake.set()

    async def run(self) -> None:
        """Notifications are shown and withdrawn; without end."""
        await self._woken()
        notifier = await anyio.to_thread.run_sync(_notifier)  # it takes a moment to load, and many never need it
        async with anyio.create_task_group() as group:
            group.start_soon(self._withdraw, notifier)
            await self._show(notifier, group)

    async def _woken(self) -> None:
        while not self._waiting and not self._said:
            self._wake = anyio.Event()
            await self._wake.wait()

    async def _show(self, notifier: DesktopNotifier, group: TaskGroup) -> None:
        recent: deque[float] = deque([-math.inf] * self.per_minute, maxlen=self.per_minute)
        while True:
            await self._woken()
            # By then several may wait: one notice for all.
            await anyio.sleep(max(0.0, recent[0] + 60 - anyio.current_time()))
            told, said = tuple(self._waiting), tuple(self._said)
            self._waiting.clear()  # before the store is asked: others may be told of meanwhile
            self._said.clear()
            if said:
                recent.append(anyio.current_time())
                await self._send(said[0] if len(said) == 1 else _several(said), notifier, group)
            waiting = [held for held in told if await self._waits(held.id)]
            if waiting:
                recent.append(anyio.current_time())
                await self._send(notice(tuple(waiting), self.public_url), notifier, group)

    async def _send(self, notice: Notice, notifier: DesktopNotifier, group: TaskGroup) -> None:
        def clicked() -> None:
            group.start_soon(_open, notice.url)

        sent = None
        with anyio.move_on_after(limits.NOTICE_SENT.total_seconds()):
            sent = await notifier.send(title=notice.title, message=notice.message, on_clicked=clicked)
        if sent is not None and sent in await notifier.get_current_notifications():
            if notice.holds:  # others stay until somebody has seen them
                self._shown[sent] = notice.holds
        elif not self._silent:
            self._silent = True
            log.warning(
                "this desktop shows no notifications; see held calls at %s/holds or with `mcp-authz holds watch`",
                self.public_url,
            )

    async def _withdraw(self, notifier: DesktopNotifier) -> None:
        seen = 0
        while True:
            with anyio.move_on_after(limits.NOTICE_CHECKED.total_seconds()):  # what runs out of time is not written
                seen = await self._changed(seen)
            for sent, holds in list(self._shown.items()):
                if not any([await self._waits(hold) for hold in holds]):
                    del self._shown[sent]
                    await _clear(notifier, sent)
            await anyio.sleep(limits.NOTICE_PAUSE.total_seconds())  # a busy gateway writes without end

    async def _changed(self, seen: int) -> int:
        try:
            return await self.store.changed(seen)
        except StoreError:
            await anyio.sleep_forever()  # until it is time to look again
            raise

    async def _waits(self, hold: HoldId) -> bool:
        try:
            held = await self.store.hold(hold)
        except StoreError:
            return True  # nobody knows
        return held is not None and held.state is HoldState.PENDING and self.clock() < held.expires_at


async def shows_notifications() -> bool:
    """Whether this desktop shows notifications; nothing is shown to find that out."""
    notifier = await anyio.to_thread.run_sync(_notifier)
    with anyio.move_on_after(limits.NOTICE_SENT.total_seconds()):
        try:
            await notifier.get_capabilities()
        except _bus_errors():
            return False
        return True
    return False


def session_bus() -> str | None:
    """The address of the desktop's message bus (D-Bus specification, section "Well-known Message Bus Instances")."""
    if address := os.environ.get(_BUS):
        return address
    bus = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")) / "bus"
    with suppress(OSError):
        return f"unix:path={bus}" if bus.exists() else None
    return None


def _notifier() -> DesktopNotifier:
    from desktop_notifier import DesktopNotifier

    if sys.platform == "linux" and (bus := session_bus()) is not None:
        os.environ[_BUS] = bus  # a client that starts a gateway often leaves it out, and the library looks nowhere else
    # What it logs when a notification cannot be shown is a traceback; we say it in a sentence.
    logging.getLogger("desktop_notifier").setLevel(logging.CRITICAL)
    return DesktopNotifier(app_name=APP, app_icon=None)


async def _open(url: str) -> None:
    # Some browsers stay in the foreground; a gateway that stops does not wait for them.
    await anyio.to_thread.run_sync(webbrowser.open, url, abandon_on_cancel=True)


async def _clear(notifier: DesktopNotifier, sent: str) -> None:
    if sent not in await notifier.get_current_notifications():  # clicked or closed
        return
    try:
        with anyio.move_on_after(limits.NOTICE_SENT.total_seconds()):
            await notifier.clear(sent)
    except _bus_errors() as error:
        log.info("a notification could not be withdrawn: %s", error)


def _bus_errors() -> tuple[type[Exception], ...]:
    errors: tuple[type[Exception], ...] = (OSError, EOFError, LookupError)
    if sys.platform == "linux":
        from dbus_fast.errors import DBusFastError

        errors = (*errors, DBusFastError)
    return errors
