"""A desktop for tests: a D-Bus session of its own, with a notification service that keeps what it was told.

Annotations are evaluated here: they are the signatures of the service's methods.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from dbus_fast import BusType
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusSignature
from dbus_fast.service import ServiceInterface, dbus_method, dbus_signal

NAME, PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
SOON = 15.0  # seconds; every wait is bounded by it

Text = Annotated[str, DBusSignature("s")]
Texts = Annotated[list[str], DBusSignature("as")]
Number = Annotated[int, DBusSignature("u")]


@dataclass(frozen=True)
class Shown:
    """One notification as the service was told of it."""

    number: int
    app: str
    summary: str
    body: str
    actions: list[str]


class Notifications(ServiceInterface):
    """The Desktop Notifications Specification 1.2, as far as it is used."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.shown: list[Shown] = []
        self.withdrawn: list[int] = []

    async def until(self, count: int) -> list[Shown]:
        """What was shown, as soon as there are so many."""
        with anyio.fail_after(SOON):
            while len(self.shown) < count:  # noqa: ASYNC110 - the service is told by another process's call
                await anyio.sleep(0.02)
        return self.shown

    @dbus_method()
    def GetCapabilities(self) -> Texts:
        return ["actions", "body", "body-markup"]

    @dbus_method()
    def GetServerInformation(self) -> Annotated[tuple[str, str, str, str], DBusSignature("ssss")]:
        return ("test", "mcp-authz", "1", "1.2")

    @dbus_method()
    def Notify(  # noqa: PLR0917 - as the specification has it
        self,
        app_name: Text,
        replaces_id: Number,
        app_icon: Text,
        summary: Text,
        body: Text,
        actions: Texts,
        hints: Annotated[dict[str, Any], DBusSignature("a{sv}")],
        expire_timeout: Annotated[int, DBusSignature("i")],
    ) -> Number:
        shown = Shown(number=len(self.shown) + 1, app=app_name, summary=summary, body=body, actions=actions)
        self.shown.append(shown)
        return shown.number

    @dbus_method()
    def CloseNotification(self, id_: Number) -> None:
        self.withdrawn.append(id_)
        self.NotificationClosed(id_, 3)

    @dbus_signal()
    def NotificationClosed(self, id_: int, reason: int) -> Annotated[tuple[int, int], DBusSignature("uu")]:
        return (id_, reason)

    @dbus_signal()
    def ActionInvoked(self, id_: int, action_key: str) -> Annotated[tuple[int, str], DBusSignature("us")]:
        return (id_, action_key)


@asynccontextmanager
async def session_bus(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The address of a session bus on which nobody shows notifications; this process finds it as on a desktop."""
    daemon = shutil.which("dbus-daemon")
    if daemon is None:
        pytest.skip("needs dbus-daemon (Debian package dbus-daemon)")
    command = [daemon, "--session", "--nofork", "--nopidfile", "--print-address=1", f"--address=unix:dir={directory}"]
    async with await anyio.open_process(command, stdin=subprocess.DEVNULL, stderr=None) as process:
        assert process.stdout is not None
        with anyio.fail_after(SOON):
            address = (await process.stdout.receive()).decode().strip()
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        try:
            yield address
        finally:
            process.terminate()


@asynccontextmanager
async def desktop(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Notifications]:
    """A session bus with a notification service, which this process finds as on any desktop."""
    async with session_bus(directory, monkeypatch) as address:
        bus = await MessageBus(bus_address=address, bus_type=BusType.SESSION).connect()
        service = Notifications()
        bus.export(PATH, service)
        await bus.request_name(NAME)
        try:
            yield service
        finally:
            bus.disconnect()
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
