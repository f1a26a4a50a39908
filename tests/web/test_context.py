"""What helps to judge a call: how it differs from the last approved one of its kind, and whether the same one ran."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from tests.attacks.attacker import spy, tool
from tests.web.authenticator import Visit, visiting
from tests.world import Actor, Called, World, world

TEXT = "one\ntwo\nthree\nfour\nfive\nsix"


def server(directory: Path) -> dict[str, object]:
    made = spy(directory / "spy", tool("look"), tool("other"))
    rule = {"hazard": "destructive", "scopes": ["spy:look"]}
    return {"spy": made.config(tools={"look": rule, "other": rule})}


async def run(w: World, coder: Actor, name: str = "spy__look", /, **arguments: object) -> None:
    """A call that was approved and has run."""
    held = await w.call(coder, name, **arguments)
    await w.answer(held.hold, by="alice")
    assert not (await w.call(coder, name, **arguments)).is_error


async def compared(alice: Visit, call: Called) -> str:
    """The part of the page that compares, as text."""
    page = (await alice.get(f"/holds/{call.hold}")).text
    part = page.split("<h2>Compared with before</h2>")[1].split('<div data-live="answers">')[0]
    return re.sub(r"[ \n]+", " ", re.sub(r"<[^>]*>", "", part)).strip()


async def test_the_first_call_of_its_kind_says_so_and_other_kinds_do_not_count(tmp_path: Path) -> None:
    async with world(tmp_path, servers=server(tmp_path)) as w:
        coder = await w.ready("coder", "spy:look")
        helper = await w.agent("helper", ceiling="spy:look")
        await w.start(await w.grant("alice", "helper", "spy:look"))
        await run(w, coder, "spy__other", path="a")
        await run(w, helper, path="a")
        denied = await w.call(coder, "spy__look", path="b")
        await w.answer(denied.hold, by="alice", approve=False)
        call = await w.call(coder, "spy__look", path="a")
        async with visiting(w, "alice") as alice:
            assert await compared(alice, call) == "No call of this kind by coder for alice was approved before."


async def test_what_differs_is_shown_argument_by_argument_and_texts_line_by_line(tmp_path: Path) -> None:
    async with world(tmp_path, servers=server(tmp_path)) as w:
        coder = await w.ready("coder", "spy:look")
        await run(w, coder, path="a", mode=1, gone=True, content=TEXT)
        call = await w.call(
            coder, "spy__look", path="a", mode="1", fresh=[1], content=TEXT.replace("two", "2").replace("six", "6")
        )
        async with visiting(w, "alice") as alice:
            said = await compared(alice, call)
        assert "The same call ran" not in said
        assert "mode before 1 now 1" in said and "fresh before not given now [ 1 ]" in said
        assert "gone before true now not given" in said and "path" not in said
        assert "content one gone: - two new: + 2 three … five gone: - six new: + 6" in said


async def test_a_call_that_ran_before_says_when(tmp_path: Path) -> None:
    async with world(tmp_path, servers=server(tmp_path)) as w:
        coder = await w.ready("coder", "spy:look")
        await run(w, coder, path="a")
        await run(w, coder, path="b")
        w.clock.advance(timedelta(minutes=3))  # by then it is no repetition any more
        call = await w.call(coder, "spy__look", path="a")
        async with visiting(w, "alice") as alice:
            said = await compared(alice, call)
        assert re.match(r"The same call ran \d{4}-\d\d-\d\d \d\d:\d\d UTC\.", said) and "path before b now a" in said
