"""Makes the documentation's pictures of the page anew: `python -m tests.web.pictures [FOLDER]`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mcp_authz.agents import Agents
from mcp_authz.client import AgentIdentity
from mcp_authz.principals import AgentName
from mcp_authz.rules.scope import parse_scopes
from tests.attacks.attacker import spy, tool
from tests.road.test_four_hops import over_http
from tests.web.asking import asks, client
from tests.web.browser import Person, browsers, signed_in
from tests.world import MODERN, OPERATOR, called, world

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WINDOW: Any = {"viewport": {"width": 760, "height": 900}, "reduced_motion": "reduce"}
BEFORE = "# Changelog\n\n## 1.4.0\n\n- Deploys wait for their tests.\n"
NOW = "# Changelog\n\n## 1.4.1\n\n- Deploys wait for their tests.\n- Names the right version.\n"
WORDS = {
    "pr:read": "Read pull requests",
    "pr:write": "Open pull requests",
    "pr:merge": "Merge pull requests",
    "secret:read": "Read secrets",
    "deploy": "Deploy",
    "deploy:read": "Look at deployments",
}


async def take(alice: Person, name: str, folder: Path) -> None:
    """The page that alice looks at, whole, by day and by night."""
    await alice.page.locator("h1").wait_for()
    for scheme in ("light", "dark"):
        await alice.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await alice.page.screenshot(path=folder / f"{name}-{scheme}.png", full_page=True)


async def hold(directory: Path, folder: Path) -> None:
    """A delegated agent's call, which differs from one that ran before."""
    writes = {"hazard": "destructive", "scopes": ["files:write"]}
    files = spy(directory / "spy", tool("write_file")).config(tools={"write_file": writes})
    rules = {"destructive": {"assurance": "passkey"}}
    async with world(directory, servers={"files": files}, approval=rules) as w, browsers() as browser:
        await w.person("alice")
        planner, coder = AgentIdentity.generate("planner"), AgentIdentity.generate("coder")
        for who, depth, to in ((planner, 1, {AgentName("coder")}), (coder, 0, set[AgentName]())):
            await Agents(w.store, w.clock).add(
                who.name,
                owner="alice",
                key=who.public_key,
                ceiling=parse_scopes("files"),
                depth=depth,
                delegates_to=frozenset(to),
                by=OPERATOR,
            )
        await w.start(await w.grant("alice", "planner", "files"), purpose="Correct the version in the changelog")
        chain = planner.delegate(await planner.chain(w.url), to=coder.jwk, scope="files")
        alice = await signed_in(browser, w, "alice", **WINDOW)

        async def write(content: str) -> None:
            async with over_http(w, coder, chain, MODERN) as client:
                await called(client, "files__write_file", {"path": "/home/alice/api/CHANGELOG.md", "content": content})

        await write(BEFORE)
        await alice.page.get_by_role("link", name="coder asks to run").click()
        await alice.page.get_by_role("button", name="Approve with passkey").click()
        await alice.page.locator("[data-live=state]", has_text="It runs once").wait_for()
        for content in (BEFORE, NOW):
            await write(content)
        await alice.page.goto(f"{w.config.public_url}/holds")
        await alice.page.get_by_role("link", name="coder asks to run").first.click()
        await take(alice, "hold", folder)


async def consent(directory: Path, folder: Path) -> None:
    """A program that asks for nothing in particular, and leaves the choice to its person."""
    async with world(directory, scopes=WORDS) as w, browsers() as browser:
        await w.person("alice")
        alice = await signed_in(browser, w, "alice", **WINDOW)
        await alice.page.goto(f"{w.config.public_url}/authorize?{asks(await client(w))}")
        await take(alice, "consent", folder)


async def main(folder: Path) -> None:
    """Make them all."""
    for make in (hold, consent):
        with TemporaryDirectory() as directory:
            await make(Path(directory), folder)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES))
