"""Row 65: whoever has a webhook's secret answers no better than another client, for known people, and once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.model import Assurance, HeldCall, HoldState
from mcp_authz.rules import jose
from mcp_authz.rules.display import displayed_digest
from mcp_authz.rules.keys import b64url
from mcp_authz.rules.verdict import TYP
from tests.webhooks.receiver import Bot, answering, secret
from tests.world import Actor, World, incident_server, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
NOWHERE = "http://localhost:9/hook"  # who answers need not have been reached
OTHER = {"by": ["subject", "group:leads"], "assurance": "client-other"}


@dataclass
class Case:
    """A held call, and who answers it."""

    w: World
    coder: Actor
    held: HeldCall
    bot: Bot
    sent: int = 0

    async def state(self) -> HoldState:
        held: HeldCall = await self.w.store.hold(self.held.id)
        return held.state

    def answer(self, **changes: Any) -> dict[str, Any]:
        body = {
            "hold": self.held.id,
            "act_s256": b64url(self.held.digest),
            "shown_s256": b64url(displayed_digest(self.held)),
            "person": "alice",
            "verdict": "approve",
            **changes,
        }
        return {name: value for name, value in body.items() if value is not None}

    async def refused(self, status: int, body: Any = None, **more: Any) -> str:
        """What is said when this is sent; the call waits on."""
        self.sent += 1
        more = {"message_id": f"msg_refused_{self.sent}", **more}
        response = await self.bot.send(self.answer() if body is None else body, **more)
        assert (response.status_code, await self.state()) == (status, HoldState.PENDING), response.text
        return str(response.json()["error"])


@asynccontextmanager
async def case(directory: Path, rule: Mapping[str, Any] = OTHER, **hook: Any) -> AsyncIterator[Case]:
    hooks = {
        "team": answering(directory, NOWHERE, **hook),
        "quiet": {"url": NOWHERE, "secret_file": secret(directory, "out.whsec", 1)},
        "other": answering(directory, NOWHERE, callback_secret_file=secret(directory, "other.whsec", 3)),
    }
    async with world(directory, approval={"destructive": dict(rule)}, webhooks=hooks) as w:
        coder = await w.ready("coder", "deploy")
        await w.person("bob")
        held = await w.store.hold((await w.call(coder, "acme__deploy", **DEPLOY)).hold)
        yield Case(w, coder, held, Bot(w))


async def test_a_signed_answer_approves_as_another_client_whatever_it_says_and_once(tmp_path: Path) -> None:
    async with case(tmp_path) as c:
        for claim in ("assurance", "proof", "signed_by", "terms", "iat"):
            assert "give exactly" in await c.refused(400, c.answer(**{claim: "passkey"}))
        sent = await c.bot.send(c.answer(reason="fine"), message_id="msg_yes")
        assert (sent.status_code, sent.json()) == (200, {"hold": c.held.id, "state": "approved"})
        (verdict,) = (await c.w.store.hold(c.held.id)).verdicts
        assert (verdict.person, verdict.assurance, verdict.reason) == ("alice", Assurance.CLIENT_OTHER, "fine")
        claims = jose.read(verdict.statement).claims
        assert claims["proof"] == {"type": "webhook", "webhook": "team", "id": "msg_yes"}
        assert claims["assurance"] == "client-other" and jose.read(verdict.statement).header["typ"] == TYP
        assert not (await c.w.call(c.coder, "acme__deploy", **DEPLOY)).is_error
        assert len(c.w.deployments()) == 1

        late = await c.bot.send(c.answer(verdict="deny"), message_id="msg_no")
        assert late.status_code == 409 and "cannot be answered any more" in late.json()["error"]


@pytest.mark.parametrize("assurance", ["signed-in", pytest.param("passkey", marks=pytest.mark.thorough)])
async def test_a_rule_that_asks_for_more_is_not_met_by_it_but_a_no_counts(tmp_path: Path, assurance: str) -> None:
    async with case(tmp_path, {**OTHER, "assurance": assurance}) as c:
        assert "stronger proof than `client-other`" in await c.refused(409)
        sent = await c.bot.send(c.answer(verdict="deny", reason="not today"), message_id="msg_no")
        assert sent.json()["state"] == "denied"
        again = await c.w.call(c.coder, "acme__deploy", **DEPLOY)
        assert "not today" in again.text and "alice" not in again.text and c.w.deployments() == []


async def test_an_approval_that_is_too_little_for_one_of_two_rules_does_not_take_the_persons_one_word(
    tmp_path: Path,
) -> None:
    hooks = {"team": answering(tmp_path, NOWHERE)}
    server = incident_server(tmp_path)
    server["tools"]["deploy"]["approval"] = "release"
    rules = {"destructive": OTHER, "release": {"by": ["subject"], "assurance": "signed-in"}}
    async with world(tmp_path, approval=rules, webhooks=hooks, servers={"acme": server}) as w:
        coder = await w.ready("coder", "deploy")
        held = await w.store.hold((await w.call(coder, "acme__deploy", **DEPLOY)).hold)
        c = Case(w, coder, held, Bot(w))
        assert "stronger proof than `client-other`" in await c.refused(409)
        await w.answer(held.id, by="alice")
        assert await c.state() is HoldState.APPROVED


async def test_the_list_of_people_is_all_who_answer_and_by_no_other_name(tmp_path: Path) -> None:
    async with case(tmp_path, people={"U024BE7LH": "alice", "U0EVIL": "bob"}) as c:
        assert "no person `alice`" in await c.refused(404, message_id="msg_1")
        assert "no rule" in await c.refused(409, c.answer(person="U0EVIL"), message_id="msg_2")
        sent = await c.bot.send(c.answer(person="U024BE7LH"), message_id="msg_3")
        assert sent.json()["state"] == "approved"


async def test_a_webhook_for_some_rules_answers_no_other_hold(tmp_path: Path) -> None:
    async with case(tmp_path, rules=["session"]) as c:
        assert "there is no hold" in await c.refused(404)


async def test_an_answer_counts_once_also_of_ten_at_the_same_time(tmp_path: Path) -> None:
    async with case(tmp_path) as c:
        assert (await c.bot.send(c.answer(person="bob"), message_id="msg_1")).status_code == 409
        assert "received before" in await c.refused(409, message_id="msg_1")
        codes: list[int] = []

        async def send() -> None:
            codes.append((await c.bot.send(c.answer(), message_id="msg_2")).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(send)
        assert sorted(codes) == [200] + [409] * 9
        assert len((await c.w.store.hold(c.held.id)).verdicts) == 1


async def test_whatever_else_a_webhook_sends_leaves_the_call_waiting(tmp_path: Path) -> None:
    async with case(tmp_path) as c:
        await only_known_people(c)
        await exactly_what_was_shown(c)
        await signed_by_its_own_secret(c)
        await read_in_one_way(c)
        await one_of_each_header_and_no_flood(c)


async def only_known_people(c: Case) -> None:
    """Only people who are known, and whom the rule names, answer."""
    for nobody in ("mallory", "coder", "agent:coder", "user:alice", "", "ALICE", "operator"):
        said = await c.refused(404, c.answer(person=nobody))
        assert said == f"there is no person `{nobody}`"
    assert "no rule of it names them" in await c.refused(409, c.answer(person="bob"))


async def exactly_what_was_shown(c: Case) -> None:
    """An answer is about exactly what was shown of exactly this call."""
    other = await c.w.store.hold((await c.w.call(c.coder, "acme__deploy", **{**DEPLOY, "version": "2"})).hold)
    theirs = {"act_s256": b64url(other.digest), "shown_s256": b64url(displayed_digest(other))}
    swapped = (theirs, *({name: value} for name, value in theirs.items()), {"act_s256": ""})
    for changes in swapped:
        said = await c.refused(409, c.answer(**changes))
        assert "about something else" in said
    assert "there is no hold" in await c.refused(404, c.answer(hold="h_nothing"))
    assert (await c.w.store.hold(other.id)).state is HoldState.PENDING


async def signed_by_its_own_secret(c: Case) -> None:
    """Only what the webhook's own secret signed just now counts."""
    body = c.answer()
    altered = json.dumps({**body, "verdict": "deny"}).encode()
    assert "no signature" in await c.refused(401, body, sent=altered)
    for bot in (Bot(c.w, seed=1), Bot(c.w, seed=3), Bot(c.w, seed=9), Bot(c.w, name="other")):
        c.bot = bot  # the secret of messages, that of another webhook, any, and the right one elsewhere
        assert "no signature" in await c.refused(401)
    c.bot = Bot(c.w)
    for late in (timedelta(minutes=-6), timedelta(minutes=6)):
        assert "just now" in await c.refused(401, at=c.w.clock() + late)
    assert await c.refused(401, headers=[("content-type", "application/json")])
    for name in ("nobody", "quiet", "..%2Fteam"):
        c.bot = Bot(c.w, name=name)
        assert (await c.bot.send(c.answer())).status_code == 404
    c.bot = Bot(c.w)


UNREADABLE = (
    b"",
    b"[]",
    b"{}",
    b'{"hold":"h","hold":"h"}',
    b"\xff",
    b'{"hold":1,"act_s256":"","shown_s256":"","person":"alice","verdict":"deny"}',
    b'{"hold":"h","act_s256":"","shown_s256":"","person":"alice","verdict":true}',
    b'{"hold":"h","act_s256":"","shown_s256":"","person":"alice","verdict":["approve"]}',
    b'{"hold":"h","act_s256":"","shown_s256":"","person":"' + b"a" * 200 + b'","verdict":"deny"}',
    b"{" + b" " * 17_000 + b"}",
)


async def read_in_one_way(c: Case) -> None:
    """What cannot be read in exactly one way is refused, and spends no id."""
    for body in UNREADABLE:
        assert await c.refused(400, body, message_id="msg_unreadable")
    assert "no rule" in await c.refused(409, c.answer(person="bob"), message_id="msg_unreadable")


async def one_of_each_header_and_no_flood(c: Case) -> None:
    """Doubled headers, other content and floods are refused before anything is read."""
    kind = ("content-type", "application/json")
    twice = [kind, *((name, "1") for name in ("webhook-id", "webhook-id", "webhook-timestamp"))]
    assert "more than once" in await c.refused(400, headers=twice)
    assert "send JSON" in await c.refused(400, headers=[("content-type", "text/plain")])
    url = f"{c.w.config.public_url}/webhooks/team/verdict"
    async with httpx2.AsyncClient() as http:
        assert (await http.get(url)).status_code == 405
        codes = [(await http.post(url, content=b"{}", headers=[kind])).status_code for _ in range(60)]
    assert set(codes) == {401, 429} and codes[-1] == 429
    reasons = {reason for reason, *_ in c.w.app._refusals.take()}
    assert {"webhook: invalid_input", "webhook: signature_refused"} <= reasons


async def test_a_no_is_a_send_back_only_with_words_and_reaches_the_agent(tmp_path: Path) -> None:
    async with case(tmp_path) as c:
        assert "with a reason" in await c.refused(409, c.answer(verdict="send-back"), message_id="msg_1")
        body = c.answer(verdict="send-back", reason="use version 1.4.1")
        assert (await c.bot.send(body, message_id="msg_2")).json()["state"] == "denied"
        assert "use version 1.4.1" in (await c.w.call(c.coder, "acme__deploy", **DEPLOY)).text
