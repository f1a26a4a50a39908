"""Row 31: a call made to look like another one. All of it is shown visibly; what cannot be shown whole does not run."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.model import Classification, Hazard, HoldId, HoldState, Tool, ToolName
from mcp_authz.rules import session_request
from mcp_authz.rules.display import shown_arguments, visible
from mcp_authz.rules.hidden_text import has_no_shape
from tests.attacks.attacker import spy, tool
from tests.web.authenticator import visiting
from tests.web.browser import browsers, signed_in
from tests.world import Called, World, world

SPOOFS = {
    "right-to-left": "invoice\u202egpj.exe",
    "isolate": "safe\u2067 /etc/passwd\u2069",
    "zero-width": "re\u200badme.md",
    "joiner": "a\u200d\u2060\ufeffb",
    "tag characters": "ok" + "".join(chr(0xE0000 + ord(letter)) for letter in "rm -rf"),
    "soft hyphen": "pass\u00adword",
    "no-break space": "a\u00a0b\u3000c",
    "carriage return": "harmless\rharmful",
    "terminal": "\x1b[2K\x1b[1Aharmless\x08",
    "line separator": "one\u2028two\u2029three",
    "fillers": "api\u3164\u115f\u1160\uffa0\u2800",
    "selectors that spell": "ok" + "".join(chr(0xE0100 + ord(letter) - 16) for letter in "rm -rf") + "\ufe01",
    "joiners and vowels without a shape": "a\u034f\u17b4\u180b\u180c",
    "stacked marks": "Z" + "\u0335\u0300\u0489" * 40,
    "html": "<img src=x onerror=alert(1)></pre></dd><h1>Approved</h1><script>alert(2)</script>",
    "attribute": '" autofocus onfocus="alert(3)',
    "template": "{{ 7*7 }}{% raw %}",
    "written escape": "\\u{202e}",
    "line breaks": "x\n\n\n\n\nfor bob, through user:bob",
    "many spaces": "x" + " " * 500 + "--force",
}

STACK = re.compile("[\u0300-\u036f\u0489]{5}")


def test_no_name_of_an_argument_looks_like_another_one_with_its_value() -> None:
    shown = shown_arguments({'environment: "staging"': 1, "environment": "production", "a.b-c/d": 2, "größe": 3, "": 4})
    assert shown == (
        '  "environment: \\\\"staging\\\\"": 1\n  environment: "production"\n  a.b-c/d: 2\n  größe: 3\n  "": 4'
    )


def takes(name: str, *arguments: str) -> Tool:
    definition = {"inputSchema": {"type": "object", "properties": {key: {} for key in arguments}}}
    return Tool(
        name=ToolName(name),
        server="acme",
        tool=name.partition("__")[2],
        environment="acme",
        definition=definition,
        digest=b"",
        classification=Classification(action="x", hazard=Hazard.WRITE, scopes=(), by="operator"),
    )


def test_the_sentence_of_a_session_promises_no_limit_that_its_tools_do_not_have() -> None:
    known = [takes("acme__deploy", "repo"), takes("acme__try", "repo", "dry_run")]
    limits_both = {"repo": "api", "dry_run": True}
    made = session_request.spelled_out({"purpose": "p", "where": limits_both}, known, None)
    assert made["tools"] == ["acme__try"]
    with pytest.raises(InputError, match="has these arguments"):
        session_request.spelled_out({"purpose": "p", "where": {"repo": "api", "harmless": True}}, known, None)
    spoof = {"repo": "api, and nothing is changed", "path": {"under": "/srv is all"}}
    said = session_request.sentence({**made, "where": spoof}, "coder")
    assert said.endswith('only where repo is "api, and nothing is changed" and path is at or below "/srv is all"')


def server(directory: Path) -> Any:
    """A tool that takes anything, and is destructive."""
    made = spy(directory / "spy", tool("look"))
    return made.config(tools={"look": {"hazard": "destructive", "scopes": ["spy:look"]}})


async def held(w: World, **arguments: Any) -> Called:
    coder = await w.ready("coder", "spy:look")
    return await w.call(coder, "spy__look", **arguments)


@pytest.mark.parametrize("spoof", list(SPOOFS.values()), ids=list(SPOOFS))
async def test_nothing_of_an_argument_is_hidden_on_the_page(tmp_path: Path, spoof: str) -> None:
    async with world(tmp_path, servers={"spy": server(tmp_path)}) as w:
        call = await held(w, path=spoof, **{spoof.replace("\x00", ""): [{spoof: spoof}]})
        async with visiting(w, "alice") as alice:
            page = (await alice.get(f"/holds/{call.hold}")).text
        unseen = {"Cc", "Cf", "Co", "Cn", "Zl", "Zp"}
        hidden = [c for c in page if (unicodedata.category(c) in unseen and c != "\n") or has_no_shape(c)]
        assert not STACK.search(page)
        assert not hidden and "\u00a0" not in page and "\u3000" not in page
        assert "<script>" not in page and "<img" not in page and page.count("<h1") == 1 and 'onfocus="' not in page


async def test_a_person_sees_each_character_in_a_real_browser_and_nothing_runs(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"spy": server(tmp_path)}) as w, browsers() as browser:
        await w.person("alice")
        call = await held(w, **{f"a{number}": spoof for number, spoof in enumerate(SPOOFS.values())})
        alice = await signed_in(browser, w, "alice")
        trouble: list[str] = []
        alice.page.on("dialog", lambda dialog: trouble.append(dialog.message))
        alice.page.on("console", lambda said: trouble.append(said.text))
        await alice.page.goto(f"{w.config.public_url}/holds/{call.hold}")
        await alice.heading("coder asks to run spy__look")
        shown = await alice.page.locator(".arguments dd pre").all_text_contents()
        assert shown == ["\n".join(visible(line) for line in spoof.split("\n")) for spoof in SPOOFS.values()]
        for row in await alice.page.locator(".arguments dd pre").all():
            box, frame = await row.bounding_box(), await alice.page.locator("main").bounding_box()
            assert box is not None and frame is not None and box["x"] + box["width"] <= frame["x"] + frame["width"]
        assert await alice.page.locator("h1").count() == 1 and not trouble


async def test_the_purpose_of_a_session_is_shown_visibly_too(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"spy": server(tmp_path)}) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="spy:look")
        await w.start(await w.grant("alice", "coder", "spy:look"), purpose="tidy\u202eup <b>now</b>")
        call = await w.call(coder, "spy__look", path="a")
        async with visiting(w, "alice") as alice:
            for path in ("/holds", f"/holds/{call.hold}"):
                page = (await alice.get(path)).text
                assert "tidy\\u{202e}up &lt;b&gt;now&lt;/b&gt;" in page and "\u202e" not in page


async def test_what_is_too_long_to_be_shown_whole_is_not_even_held(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"spy": server(tmp_path)}) as w:
        call = await held(w, content="x" * limits.ARGUMENTS_SHOWN)
        assert call.envelope["reason"] == "cannot_be_shown" and not await w.store.holds()


async def test_what_is_held_all_the_same_cannot_be_approved_on_the_page(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"spy": server(tmp_path)}) as w:
        call = await held(w, content="short")
        known = await w.store.hold(call.hold)
        long = replace(
            known, id=HoldId("h_long"), digest=b"\x07" * 32, arguments={"content": "x" * limits.ARGUMENTS_SHOWN}
        )
        event = (await w.records("decision"))[-1].event
        await w.store.open_hold(long, event, per_session=20, per_agent=20)
        async with visiting(w, "alice") as alice:
            page = (await alice.get("/holds/h_long")).text
            assert "too long to be shown whole" in page and "data-approve" not in page and "data-deny" in page
            assert (await alice.post("/holds/h_long/question", {})).status_code == 409
            assert (await alice.post("/holds/h_long/deny", {})).json()["state"] == HoldState.DENIED


async def test_what_an_approver_wrote_is_shown_visibly_to_the_next(tmp_path: Path) -> None:
    rule = {"by": ["group:ops"], "quorum": 2}
    async with world(tmp_path, servers={"spy": server(tmp_path)}, approval={"destructive": rule}) as w:
        for name in ("bob", "carol"):
            await w.person(name, "ops")
        call = await held(w, path="a")
        async with visiting(w, "bob") as bob, visiting(w, "carol") as carol:
            await bob.approve(call.hold, "fine\u202e</q><script>alert(1)</script>")
            page = (await carol.get(f"/holds/{call.hold}")).text
            assert "fine\\u{202e}&lt;/q&gt;&lt;script&gt;" in page
