"""A held call is told of on the desktop, once, to a person whom no prompt asks; a click opens its page."""

from __future__ import annotations

import json
import os
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import anyio
import pytest

from mcp_authz.desktop import Desktop
from tests.road.desktop_service import SOON, Notifications, desktop, session_bus
from tests.road.test_prompt import YES, Person
from tests.world import MODERN, called, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name: the path of a socket has few characters."""
    with tempfile.TemporaryDirectory(prefix="bus") as path:
        yield Path(path)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file into which this person's browser writes what it is asked to open."""
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >> {opened}\n')
    browser.chmod(0o700)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # it looks at $BROWSER once in a process
    return opened


async def clicked(service: Notifications, number: int, opened: Path) -> str:
    """What a click on this notification opens.

    Clicked again while nothing opens, as a person does: a test sees a notification before its sender knows its number.
    """
    file = anyio.Path(opened)
    with anyio.fail_after(SOON):
        while not await file.exists() or not (await file.read_text()).endswith("\n"):
            service.ActionInvoked(number, "default")
            await anyio.sleep(0.2)
    return (await file.read_text()).splitlines()[0]


async def until_withdrawn(service: Notifications, *numbers: int) -> None:
    with anyio.fail_after(SOON):
        while service.withdrawn != list(numbers):  # noqa: ASYNC110 - the service is told by another connection
            await anyio.sleep(0.02)


async def test_a_held_call_is_told_of_and_a_click_opens_its_page(
    tmp_path: Path, place: Path, opened: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desktop(place, monkeypatch) as service, world(tmp_path, notify="desktop") as w:
        coder = await w.ready("coder", "deploy")
        held = await w.call(coder, "acme__deploy", **DEPLOY)
        (shown,) = await service.until(1)
        url = await clicked(service, shown.number, opened)

    assert held.is_held
    assert (shown.app, shown.summary) == ("mcp-authz", "coder asks to run acme__deploy")
    assert shown.body == "For alice. Click to see it whole, and to approve or deny it."
    assert shown.actions == ["default", ""]
    assert url == f"{w.config.public_url}/holds/{held.hold}"
    assert not any(value in json.dumps([shown.summary, shown.body]) for value in ("staging", "1.4.0"))


async def test_a_gateway_that_was_started_without_the_buss_address_finds_it_where_it_belongs(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desktop(place, monkeypatch) as service, world(tmp_path, notify="desktop") as w:
        address = os.environ["DBUS_SESSION_BUS_ADDRESS"]
        (place / "bus").symlink_to(address.removeprefix("unix:path=").partition(",")[0])
        monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
        await w.call(await w.ready("coder", "deploy"), "acme__deploy", **DEPLOY)
        (shown,) = await service.until(1)
    assert shown.summary == "coder asks to run acme__deploy"


async def test_a_call_that_is_made_again_is_not_told_of_again(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desktop(place, monkeypatch) as service, world(tmp_path, notify="desktop") as w:
        coder = await w.ready("coder", "deploy")
        first = await w.call(coder, "acme__deploy", **DEPLOY)
        await service.until(1)
        again = await w.call(coder, "acme__deploy", **DEPLOY)
        other = await w.call(coder, "acme__deploy", **{**DEPLOY, "version": "1.5.0"})
        await service.until(2)

    assert first.hold == again.hold != other.hold
    assert len(service.shown) == 2


async def test_a_notification_is_withdrawn_when_the_call_was_answered_elsewhere(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desktop(place, monkeypatch) as service, world(tmp_path, notify="desktop") as w:
        coder = await w.ready("coder", "deploy")
        held = await w.call(coder, "acme__deploy", **DEPLOY)
        await service.until(1)
        await w.answer(held.hold, by="alice", approve=False)
        await until_withdrawn(service, 1)


async def test_a_flood_of_held_calls_is_no_flood_of_notifications(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desktop(place, monkeypatch) as service, world(tmp_path, notify="desktop") as w:
        coder = await w.ready("coder", "deploy")
        assert w.running.desktop is not None
        w.running.desktop.per_minute = 1  # whoever comes later waits for the next minute
        token = await w.token(coder)
        for version in range(3):
            await w.raw_call(token, "acme__deploy", {**DEPLOY, "version": str(version)})
            await service.until(1)
        await anyio.sleep(0.3)  # so long would a second one have taken, many times over

    assert [shown.summary for shown in service.shown] == ["coder asks to run acme__deploy"]


async def test_several_held_calls_are_one_notification_that_opens_the_list(
    tmp_path: Path, place: Path, opened: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desktop(place, monkeypatch) as service, world(tmp_path, notify="none") as w:
        coder = await w.ready("coder", "deploy")
        places = [(await w.call(coder, "acme__deploy", **{**DEPLOY, "version": v})).hold for v in ("1", "2")]
        told = Desktop(store=w.store, clock=w.clock, public_url=w.config.public_url)
        for hold in places:
            told.tell(await w.store.hold(hold))
        async with anyio.create_task_group() as group:
            group.start_soon(told.run)
            (shown,) = await service.until(1)
            url = await clicked(service, shown.number, opened)
            group.cancel_scope.cancel()

    assert (shown.summary, url) == ("2 calls wait for you", f"{w.config.public_url}/holds")


async def test_a_person_who_is_asked_by_a_prompt_is_not_told_as_well(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desktop(place, monkeypatch) as service, world(tmp_path, notify="desktop") as w:
        asked, silent = await w.ready("coder", "deploy", interactive=True), await w.ready("other", "deploy")
        person = Person("accept", YES)
        async with w.client(asked, MODERN, elicitation_callback=person) as client:
            assert not (await called(client, "acme__deploy", DEPLOY)).is_error
        await w.call(silent, "acme__deploy", **DEPLOY)
        (shown,) = await service.until(1)

    assert len(person.asked) == 1 and shown.summary.startswith("other asks")


@pytest.mark.parametrize("bus", ["none", "without a service", "gone"])
async def test_where_no_notification_can_be_shown_calls_go_on_and_the_log_says_so_once(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bus: str
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    if bus == "gone":
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={place}/bus")
    nobody = session_bus(place, monkeypatch) if bus == "without a service" else nullcontext()
    async with nobody, world(tmp_path, notify="desktop") as w:
        coder = await w.ready("coder", "deploy")
        assert (await w.call(coder, "acme__deploy", **DEPLOY)).is_held
        with anyio.fail_after(SOON):
            while not caplog.messages:  # noqa: ASYNC110 - the log has no event
                await anyio.sleep(0.02)
        assert (await w.call(coder, "acme__deploy", **{**DEPLOY, "version": "2"})).is_held
        await anyio.sleep(0.3)

    said = [record.message for record in caplog.records if record.name.startswith(("mcp_authz.desktop", "desktop_not"))]
    assert said == [
        f"this desktop shows no notifications; see held calls at {w.config.public_url}/holds "
        "or with `mcp-authz holds watch`"
    ]


async def test_nobody_is_told_where_the_configuration_says_so(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desktop(place, monkeypatch) as service, world(tmp_path, notify="none") as w:
        coder = await w.ready("coder", "deploy")
        assert (await w.call(coder, "acme__deploy", **DEPLOY)).is_held

        assert w.running.desktop is None and service.shown == []
