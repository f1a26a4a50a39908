"""A real Chromium with a virtual authenticator, and a person in front of it."""

from __future__ import annotations

import functools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import BrowserContext, CDPSession, Page, async_playwright

from mcp_authz.accounts import Accounts, invitation_link
from mcp_authz.principals import PersonName
from tests.world import OPERATOR, World

SOON = 15_000  # milliseconds; every wait in the browser is bounded by it


@functools.cache
def chromium() -> str:
    """The path of a Chromium; the test is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    pytest.skip("needs a Chromium: `apt install chromium`")


@dataclass
class Person:
    """Somebody with a browser of their own, and an authenticator that is in it."""

    name: str
    context: BrowserContext
    page: Page
    cdp: CDPSession
    authenticator: str

    async def verifies(self, verified: bool) -> None:
        """Whether the authenticator recognises its user from now on."""
        await self.cdp.send(
            "WebAuthn.setUserVerified", {"authenticatorId": self.authenticator, "isUserVerified": verified}
        )

    async def credentials(self) -> list[dict[str, Any]]:
        """What the authenticator keeps."""
        answer = await self.cdp.send("WebAuthn.getCredentials", {"authenticatorId": self.authenticator})
        found: list[dict[str, Any]] = answer["credentials"]
        return found

    async def another_authenticator(self) -> None:
        """A second authenticator is plugged in; the first one is gone."""
        await self.cdp.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": self.authenticator})
        self.authenticator = await plug_in(self.cdp)

    async def tab_to(self, name: str) -> list[str]:
        """Press Tab until what has this name is focused; the names of all that was on the way."""
        passed: list[str] = []
        while len(passed) < 40:
            await self.press("Tab")
            passed.append(await self.focused())
            if passed[-1] == name:
                return passed
        raise AssertionError(f"no way to `{name}`: {passed}")

    async def focused(self) -> str:
        """The text or the id of what is focused."""
        told: str = await self.page.evaluate(
            "document.activeElement.innerText?.trim().replace(/\\s+/g, ' ') || document.activeElement.id"
        )
        return told

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def heading(self, text: str) -> None:
        """Wait until the page has this heading."""
        await self.page.get_by_role("heading", name=text, level=1).wait_for()


@asynccontextmanager
async def browsers() -> AsyncIterator[Any]:
    """A Chromium in which every person gets a window of their own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


async def person(browser: Any, name: str, **context: Any) -> Person:
    """Somebody who opens a browser, and has not come to the page yet."""
    opened = await browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **context})
    page = await opened.new_page()
    page.set_default_timeout(SOON)
    cdp = await opened.new_cdp_session(page)
    await cdp.send("WebAuthn.enable")
    return Person(name, opened, page, cdp, await plug_in(cdp))


async def plug_in(cdp: CDPSession) -> str:
    """The id of a new authenticator, which recognises its user and is always present."""
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    made = await cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    authenticator: str = made["authenticatorId"]
    return authenticator


async def link(w: World, name: str) -> str:
    """The one-time link of somebody who is registered."""
    token = await Accounts(w.store, w.clock).invite(PersonName(name), by=OPERATOR)
    return invitation_link(w.config.public_url, token)


async def signed_in(browser: Any, w: World, name: str, **context: Any) -> Person:
    """Somebody who has come by their link, made a passkey, and looks at what waits."""
    them = await person(browser, name, **context)
    await them.page.goto(await link(w, name))
    await them.page.get_by_role("button", name="Make a passkey").click()
    await them.page.wait_for_url("**/holds")
    return them
