"""Row 26: a standing approval is used by more calls than it was given for, one after the other and all at once."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.model import HoldState
from mcp_authz.store.standing_port import StandingUse
from tests.attacks.attacker import answer_in
from tests.attacks.test_26_approval_used_twice import AT_ONCE, DEPLOY, at_once, http, outcome
from tests.standing import ANY, give
from tests.world import ENVELOPE, MODERN, World, modern_call, world

DEPLOYED = {**DEPLOY, "version": "0"}
CALLS = 5


async def standing(w: World) -> tuple[str, Any]:
    """The token of an agent, and the standing approval of its next calls."""
    coder = await w.ready("coder", "deploy:staging")
    token = await w.token(coder)
    held = answer_in(await w.raw_call(token, "acme__deploy", DEPLOYED))["result"]["_meta"][ENVELOPE]
    return token, await give(w, held["hold"], by="alice", calls=CALLS, version=ANY)


def requests(w: World, token: str, versions: list[str]) -> list[bytes]:
    modern = {"accept": "application/json", "mcp-protocol-version": MODERN}
    modern |= {"mcp-method": "tools/call", "mcp-name": "acme__deploy"}
    return [http(w, token, modern, modern_call("acme__deploy", {**DEPLOY, "version": one})) for one in versions]


def answers(said: list[bytes]) -> Counter[str]:
    return Counter(outcome(json.loads(re.findall(rb'\{"jsonrpc.*\}', one)[-1])) for one in said)


async def test_fifty_calls_at_once_use_it_as_often_as_it_was_given_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        token, id_ = await standing(w)
        got = answers(await at_once(w, requests(w, token, [str(number) for number in range(1, AT_ONCE + 1)])))
        assert got["done"] == CALLS and len(w.deployments()) == CALLS
        # As many wait for a person as there is room for; nobody else got through.
        assert got == {"done": CALLS, "held": limits.HOLDS_PER_SESSION, "denied": AT_ONCE - CALLS - 20}, got
        assert (await w.store.standing_approval(id_)).used == CALLS
        rested = [held for held in await w.store.holds() if any(v.standing == id_ for v in held.verdicts)]
        assert Counter(held.state for held in rested) == {HoldState.DONE: CALLS, HoldState.APPROVED: 1}
        events = [record.event.fields for record in await w.records("approval")]
        assert sum(fields.get("standing") == id_ for fields in events) == CALLS + 1


async def test_one_call_that_is_made_fifty_times_at_once_runs_once_and_takes_one_use(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        token, id_ = await standing(w)
        got = answers(await at_once(w, requests(w, token, ["7"] * AT_ONCE)))
        assert len(w.deployments()) == 1 and (await w.store.standing_approval(id_)).used == 1, got
        assert got["held"] == 0

        # Within two minutes it is a retry; then it is another call, and takes another use.
        for minutes, used, runs in ((1, 1, 1), (2, 2, 2)):
            w.clock.advance(timedelta(minutes=minutes))
            await w.raw_call(token, "acme__deploy", {**DEPLOY, "version": "7"})
            assert (await w.store.standing_approval(id_)).used == used and len(w.deployments()) == runs


async def test_an_identical_call_that_ran_just_before_takes_no_second_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        token, id_ = await standing(w)
        use, called = w.store.use_standing, []

        async def late(wanted: StandingUse) -> Any:  # another one runs to its end while this one is on its way
            if not called:
                called.append(wanted)
                await w.raw_call(token, "acme__deploy", {**DEPLOY, "version": "7"})
            return await use(wanted)

        monkeypatch.setattr(w.store, "use_standing", late)
        again = answer_in(await w.raw_call(token, "acme__deploy", {**DEPLOY, "version": "7"}))
        assert outcome(again) == "replayed" and len(w.deployments()) == 1
        assert (await w.store.standing_approval(id_)).used == 1
