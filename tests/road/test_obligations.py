"""What a policy asks for beside its permit is carried out before the call is forwarded, or the call is denied."""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError

from mcp_authz.cli.serve import open_app
from mcp_authz.config import parse_config
from mcp_authz.errors import ConfigError, PolicyError
from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.engine import PolicyAnswer
from tests.attacks.attacker import answer_in
from tests.road.desktop_service import desktop
from tests.road.limited import permitting
from tests.road.places import BOTH, DESTRUCTIVE, READ, asking, plain
from tests.road.test_offers import bookshelf
from tests.road.test_prompt import Person
from tests.road.test_questions import ASKED, FORM
from tests.road.wire import wire
from tests.world import LEGACY, MODERN, World, called, world

KEY = "sk-abcdef123456"
SECRETS = {"secrets": {"patterns": ["sk-[a-z0-9]{12}"], "fields": ["password"]}}
SAID = {"content": [{"type": "text", "text": f"the key is {KEY}"}], "structuredContent": {"password": "x", "n": 1}}
MONEY = {"money": {"amount": "{amount}", "per_call": "60", "per_session": "100.50", "per_day": 150}}


def paying(directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "policy": permitting(directory, '@budget("money")'),
        "budgets": MONEY,
        "servers": {"plain": plain()},
        **more,
    }


async def decisions(w: World) -> list[Mapping[str, Any]]:
    """The decisions, without those that sent a stock client for a token with more scope."""
    return [fields for fields in await w.decisions() if "missing" not in fields]


# Rate limits.


@BOTH
async def test_a_limit_denies_says_when_to_try_again_and_ends(tmp_path: Path, mode: str) -> None:
    policy = permitting(tmp_path, '@rate_limit("2/m")')
    async with world(tmp_path, servers={"plain": plain()}, policy=policy) as w:
        coder = await w.ready("coder", "use")
        async with w.client(coder, mode) as client:
            for _ in range(2):
                assert not (await called(client, "plain__say", {"result": SAID})).is_error
            refused = await called(client, "plain__say", {"result": SAID})
            w.clock.advance(timedelta(minutes=1))
            assert not (await called(client, "plain__say", {"result": SAID})).is_error
        decided = await decisions(w)
    assert refused.envelope["reason"] == "rate_limited"
    assert re.search(r"\(try again in (55|60) seconds\)", refused.text)
    assert [d["decision"] for d in decided] == ["permit", "permit", "deny", "permit"]
    assert decided[0]["obligations"] == ["rate_limit(2/m)"]


async def test_a_limit_is_of_each_agent_and_each_action(tmp_path: Path) -> None:
    policy = permitting(tmp_path, '@rate_limit("1/h")')
    async with world(tmp_path, servers={"plain": plain(), "other": plain()}, policy=policy) as w:
        one, two = await w.ready("one", "use"), await w.ready("two", "use")
        assert not (await w.call(one, "plain__say", result=SAID)).is_error
        assert not (await w.call(two, "plain__say", result=SAID)).is_error
        assert not (await w.call(one, "other__say", result=SAID)).is_error
        assert (await w.call(one, "plain__say", result=SAID)).envelope["reason"] == "rate_limited"


async def test_a_call_that_asks_its_caller_something_is_one_call(tmp_path: Path) -> None:
    policy = permitting(tmp_path, '@rate_limit("1/h")', '@budget("calls")')
    servers, budgets = {"asking": asking(tmp_path / "f")}, {"calls": {"per_session": 1}}
    async with world(tmp_path, servers=servers, policy=policy, budgets=budgets) as w:
        coder = await w.ready("coder", "use")
        async with w.client(coder, MODERN, elicitation_callback=Person("accept", {"colour": "red"})) as client:
            done = await called(client, "asking__ask", {"asked": ASKED, "rounds": 2})
            assert not done.is_error, done.text
            again = await called(client, "asking__ask", {"asked": ASKED, "rounds": 2})
    assert again.envelope["reason"] == "rate_limited"


async def test_a_held_call_counts_when_it_runs(tmp_path: Path) -> None:
    policy = permitting(tmp_path, '@rate_limit("1/h")')
    async with world(tmp_path, servers={"plain": plain(tools=DESTRUCTIVE)}, policy=policy) as w:
        coder = await w.ready("coder", "use")
        held = [await w.call(coder, "plain__say", result={**SAID, "n": n}) for n in (1, 2)]
        for one in held:
            await w.answer(one.hold, by="alice")
        assert not (await w.call(coder, "plain__say", result={**SAID, "n": 1})).is_error
        refused = await w.call(coder, "plain__say", result={**SAID, "n": 2})
        assert refused.envelope["reason"] == "rate_limited"
        w.clock.advance(timedelta(minutes=10))
        assert (await w.store.hold(held[1].hold)).state in {"approved", "expired"}


# Budgets.


@BOTH
async def test_a_budget_is_spent_by_exact_amounts_and_then_denies(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, **paying(tmp_path)) as w:
        coder = await w.ready("coder", "use")
        async with w.client(coder, mode) as client:

            async def pay(amount: Any) -> str:
                done = await called(client, "plain__say", {"result": SAID, "amount": amount})
                return str(done.envelope["reason"]) if done.is_error else "paid"

            assert [await pay(amount) for amount in ("50.25", 61, "50.26", "50.25", "0.000001", 0)] == [
                "paid",
                "spent",
                "spent",
                "paid",
                "spent",
                "paid",
            ]
            assert [await pay(amount) for amount in (1.5, -1, None, "1e3", True)] == ["obligation"] * 5
        denied = [d["detail"] for d in await decisions(w) if d["decision"] == "deny"]
    assert denied[:2] == ["budget `money`: more than 60 for one call", "budget `money` has not so much left"]
    assert denied[3].startswith("budget `money`: `amount`: an amount is")


async def test_a_call_that_fails_after_it_was_forwarded_has_spent_its_budget(tmp_path: Path) -> None:
    async with world(tmp_path, **paying(tmp_path)) as w:
        coder = await w.ready("coder", "use")
        async with w.client(coder) as client:
            with pytest.raises(MCPError, match="no"):
                await called(client, "plain__fail", {"error": {"code": -32000, "message": "no"}, "amount": 60})
        assert (await w.call(coder, "plain__say", result=SAID, amount=60)).envelope["reason"] == "spent"


async def test_a_day_is_of_the_person_over_all_sessions_and_ends_at_midnight(tmp_path: Path) -> None:
    async with world(tmp_path, **paying(tmp_path)) as w:
        one, two = await w.ready("one", "use"), await w.ready("two", "use")
        three = await w.agent("three", ceiling="use")
        for amount in (60, 40):
            assert not (await w.call(one, "plain__say", result=SAID, amount=amount)).is_error
        assert not (await w.call(two, "plain__say", result=SAID, amount=50)).is_error
        assert (await w.call(two, "plain__say", result=SAID, amount=1)).envelope["reason"] == "spent"
        w.clock.advance(timedelta(days=1))
        await w.start(await w.grant("alice", "three", "use"))
        tomorrow = await w.raw_call(await w.token(three), "plain__say", {"result": SAID, "amount": 60})
        assert "isError" not in answer_in(tomorrow)["result"]


async def test_nobody_is_asked_to_approve_what_no_budget_has_room_for(tmp_path: Path) -> None:
    async with world(tmp_path, **paying(tmp_path, servers={"plain": plain(tools=DESTRUCTIVE)})) as w:
        coder = await w.ready("coder", "use")
        assert (await w.call(coder, "plain__say", result=SAID, amount=61)).envelope["reason"] == "spent"
        assert await w.store.holds() == ()


# Redaction.


@BOTH
async def test_a_result_is_redacted_before_its_caller_and_its_digest_see_it(tmp_path: Path, mode: str) -> None:
    policy = permitting(tmp_path, '@redact("secrets")')
    async with world(tmp_path, servers={"plain": plain()}, policy=policy, redact=SECRETS) as w:
        coder = await w.ready("coder", "use")
        done = await w.call(coder, "plain__say", mode, result=SAID)
        (outcome,) = await w.records("outcome")
        digest = w.running.parts.evidence.digest_of_result(
            {
                "content": [{"type": "text", "text": "the key is [redacted]"}],
                "structuredContent": {"password": "[redacted]", "n": 1},
            }
        )
    assert done.text == "the key is [redacted]"
    assert done.result["structuredContent"] == {"password": "[redacted]", "n": 1}
    assert (outcome.event.fields["redacted"], outcome.event.fields["result_digest"]) == (2, digest)


@BOTH
async def test_errors_progress_and_log_messages_are_redacted(tmp_path: Path, mode: str) -> None:
    policy = permitting(tmp_path, '@redact("secrets")')
    said = [
        {"method": "notifications/progress", "params": {"progress": 1, "message": f"with {KEY}"}},
        {"method": "notifications/message", "params": {"level": "error", "data": {"password": 1, "k": [KEY]}}},
    ]
    meta = {"progressToken": "mine", **({"io.modelcontextprotocol/logLevel": "debug"} if mode == MODERN else {})}
    async with world(tmp_path, servers={"plain": plain()}, policy=policy, redact=SECRETS) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client:
            reply = await client.call("plain__notify", {"notifications": said}, meta=meta)
            error = {"code": -32000, "message": f"bad {KEY}", "data": {"password": "x", "n": 1}}
            failed = await client.call("plain__fail", {"error": error})
    assert KEY not in json.dumps([reply.messages, failed.messages])
    assert reply.said("notifications/progress") == [
        {"progress": 1, "message": "with [redacted]", "progressToken": "mine"}
    ]
    assert reply.said("notifications/message") == [
        {"level": "error", "data": {"password": "[redacted]", "k": ["[redacted]"]}}
    ]
    told = failed.messages[-1]["error"]
    assert (told["message"], told["data"]) == ("bad [redacted]", {"password": "[redacted]", "n": 1})


@pytest.mark.parametrize(("mode", "server"), [(LEGACY, "plain"), (MODERN, "asking"), (LEGACY, "asking")])
async def test_questions_are_redacted(tmp_path: Path, mode: str, server: str) -> None:
    policy, person = permitting(tmp_path, '@redact("secrets")'), Person("accept", {"colour": "red"})
    servers = {"plain": plain(), "asking": asking(tmp_path / "f")}
    form = {**FORM, "message": f"Use {KEY}?"}
    asked: dict[str, Any] = {"method": "elicitation/create", "params": form}
    if server == "asking":
        asked = {"asked": {"inputRequests": {"q": asked}}, "rounds": 1}
    async with world(tmp_path, servers=servers, policy=policy, redact=SECRETS) as w:
        coder = await w.ready("coder", "use")
        async with w.client(coder, mode, elicitation_callback=person) as client:
            done = await called(client, f"{server}__ask", asked)
    assert not done.is_error and person.asked == [f"[tool server `{server}`] Use [redacted]?"]


async def test_a_servers_own_state_comes_back_to_it_as_it_was(tmp_path: Path) -> None:
    policy, person = permitting(tmp_path, '@redact("all")'), Person("accept", {"colour": "red"})
    redact = {"all": {"patterns": ["round", "of the tool server"]}}
    async with world(tmp_path, servers={"asking": asking(tmp_path / "f")}, policy=policy, redact=redact) as w:
        coder = await w.ready("coder", "use")
        async with w.client(coder, MODERN, elicitation_callback=person) as client:
            done = await called(client, "asking__ask", {"asked": ASKED, "rounds": 2})
    assert len(person.asked) == 2 and "of the tool server" not in json.dumps(dict(done.result))


@BOTH
async def test_resources_and_prompts_are_redacted(tmp_path: Path, mode: str) -> None:
    policy = permitting(tmp_path, '@redact("names")')
    redact = {"names": {"patterns": ["Ishmael", "Emma"]}}
    async with world(tmp_path, servers={"lib": bookshelf()}, policy=policy, redact=redact) as w:
        reader = await w.ready("reader", "lib:resources lib:prompts")
        async with w.client(reader, mode) as client:
            assert (await client.read_resource("book://one")).contents[0].text == "Call me [redacted]."
            prompt = await client.get_prompt("lib__review", {"title": "Emma"})
            assert prompt.messages[0].content.text == "Review [redacted]"


async def test_what_is_given_again_of_a_held_call_is_what_was_redacted(tmp_path: Path) -> None:
    policy = permitting(tmp_path, '@redact("secrets")')
    async with world(tmp_path, servers={"plain": plain(tools=DESTRUCTIVE)}, policy=policy, redact=SECRETS) as w:
        coder = await w.ready("coder", "use")
        await w.answer((await w.call(coder, "plain__say", result=SAID)).hold, by="alice")
        first, again = [await w.call(coder, "plain__say", result=SAID) for _ in range(2)]
    assert again.envelope["outcome"] == "replayed"
    assert first.text == again.text == "the key is [redacted]"


async def test_what_is_given_again_is_redacted_as_the_policy_of_now_asks_for(tmp_path: Path) -> None:
    policy = permitting(tmp_path)
    async with world(tmp_path, servers={"plain": plain(tools=DESTRUCTIVE)}, policy=policy, redact=SECRETS) as w:
        coder = await w.ready("coder", "use")
        await w.answer((await w.call(coder, "plain__say", result=SAID)).hold, by="alice")
        first = await w.call(coder, "plain__say", result=SAID)
        w.running.parts.evaluator.engine = Asks("redact", "secrets")
        again = await w.call(coder, "plain__say", result=SAID)
    assert KEY in first.text
    assert (again.envelope["outcome"], again.text) == ("replayed", "the key is [redacted]")


async def test_numbers_in_the_data_of_an_error_are_redacted_whatever_they_are_called(tmp_path: Path) -> None:
    redact = {"cards": {"patterns": ["^4[0-9]{15}$"]}}
    policy = permitting(tmp_path, '@redact("cards")')
    async with world(tmp_path, servers={"plain": plain()}, policy=policy, redact=redact) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, MODERN, "use") as client:
            error = {"code": -32000, "message": "bad", "data": {"total": 4000123412341234}}
            failed = await client.call("plain__fail", {"error": error})
    assert failed.messages[-1]["error"]["data"] == {"total": "[redacted]"}


async def test_in_observe_mode_obligations_of_a_held_call_are_carried_out(tmp_path: Path) -> None:
    policy = permitting(tmp_path, '@redact("secrets")', '@rate_limit("1/h")')
    servers = {"plain": plain(mode="observe", tools={"*": {**READ["*"], "approval": "destructive"}})}
    async with world(tmp_path, servers=servers, policy=policy, redact=SECRETS) as w:
        coder = await w.ready("coder", "use")
        done, refused = [await w.call(coder, "plain__say", result=SAID) for _ in range(2)]
        assert (await decisions(w))[0]["observed"]["would"] == "hold"
    assert done.text == "the key is [redacted]"
    assert refused.envelope["reason"] == "rate_limited"


# Notices.


async def test_a_notice_is_a_line_in_the_log_with_attributes_and_no_other_argument(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tools = {"say": {"hazard": "read", "scopes": ["use"], "resource": {"what": "{what}"}}}
    policy = permitting(tmp_path, '@notify("ops")')
    with caplog.at_level(logging.WARNING, "mcp_authz.obligations"):
        async with world(
            tmp_path, servers={"plain": plain(tools=tools)}, policy=policy, notices={"ops": {"to": "log"}}
        ) as w:
            coder = await w.ready("coder", "use")
            await w.call(coder, "plain__say", result=SAID, what="a\nb", other="unsaid")
            (decision,) = await decisions(w)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "mcp_authz.obligations"]
    assert line.startswith("notice `ops`: coder runs plain__say (what a") and line.endswith("). For alice.")
    assert "\n" not in line and "unsaid" not in line and KEY not in line
    assert decision["obligations"] == ["notify(ops)"]


async def test_a_notice_is_shown_on_the_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="bus") as place:
        options: dict[str, Any] = {"notices": {"me": {"to": "desktop"}}, "notify": "desktop"}
        policy = permitting(tmp_path, '@notify("me")')
        async with (
            desktop(Path(place), monkeypatch) as service,
            world(tmp_path, servers={"plain": plain()}, policy=policy, **options) as w,
        ):
            coder = await w.ready("coder", "use")
            assert not (await w.call(coder, "plain__say", result=SAID)).is_error
            (shown,) = await service.until(1)
    assert (shown.summary, shown.body) == ("coder runs plain__say", "For alice.")


# What cannot be carried out.


class Asks:
    """A policy engine that permits everything, and asks for this."""

    digest = "00"

    def __init__(self, kind: str, argument: str) -> None:
        self._asked = (Obligation(kind=kind, argument=argument),)

    async def evaluate(self, document: Any) -> PolicyAnswer:
        return PolicyAnswer(permit=True, because=(RuleId("it"),), obligations=self._asked)


@pytest.mark.parametrize(
    ("kind", "argument"),
    [("quarantine", "x"), ("redact", "nowhere"), ("budget", "nowhere"), ("notify", "nowhere"), ("rate_limit", "often")],
)
async def test_an_obligation_that_cannot_be_carried_out_denies_and_nothing_is_forwarded(
    tmp_path: Path, kind: str, argument: str
) -> None:
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        w.running.parts.evaluator.engine = Asks(kind, argument)
        denied = await w.call(coder, "plain__say", result=SAID)
        assert await w.records("outcome") == ()
    assert denied.envelope["reason"] == "obligation"


async def test_a_policy_that_names_what_nobody_configured_does_not_start(tmp_path: Path) -> None:
    policy = permitting(tmp_path, '@redact("nowhere")')
    config = parse_config({"policy": policy, "data_dir": str(tmp_path / "data"), "notify": "none"})
    with pytest.raises(PolicyError, match=r"the configuration has no \[redact.nowhere\]; add it"):
        async with open_app(config):
            pass


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"budgets": {"m": {"amount": "{a}"}}}, "a budget without an end"),
        ({"budgets": {"m": {"amount": "a", "per_call": 1}}}, "is no `{argument}`"),
        ({"budgets": {"m": {"per_call": 1.5}}}, 'write it as text: "1.50"'),
        ({"budgets": {"m": {"per_call": "-1"}}}, "an amount is not negative"),
        ({"budgets": {"m": {"per_call": True}}}, "an amount is an integer"),
        ({"budgets": {"a b": {"per_call": 1}}}, "`a b` is no name"),
        ({"redact": {"m": {}}}, "nothing is redacted"),
        ({"redact": {"m": {"patterns": ["("]}}}, "no pattern of RE2"),
        ({"redact": {"m": {"patterns": [f"x{n}" for n in range(33)]}}}, "at most 32"),
        ({"notices": {"m": {"to": "desktop"}}, "notify": "none"}, "a notice goes to the desktop"),
        ({"notices": {"m": {"to": "mail"}}}, "'desktop' or 'log'"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(values)
    assert why in str(refused.value)
