"""Each chat receiver gets its own form, and what it gets is whole or says that it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from mcp_authz import limits
from mcp_authz.model import ApprovalRule, Hazard, HeldCall, HoldId, HoldState, ToolName
from mcp_authz.principals import AgentName, Mode, PersonName, SessionId
from mcp_authz.rules import webhook_message
from mcp_authz.rules.chat_templates import Template, body_of
from mcp_authz.rules.display import displayed
from mcp_authz.rules.webhook_message import Message, concerns

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
PAGE = "https://authz.example.com/holds"
HELD = HeldCall(
    id=HoldId("h_1"),
    state=HoldState.PENDING,
    digest=bytes(32),
    tool=ToolName("acme__deploy"),
    server="acme",
    arguments={"release_tag": "9.8.7-canary"},
    hazard=Hazard.DESTRUCTIVE,
    session=SessionId("s_1"),
    purpose="ship-it",
    subject=PersonName("alice"),
    owner=PersonName("alice"),
    actor=AgentName("coder"),
    chain=(AgentName("coder"),),
    interactive=False,
    rules=(ApprovalRule(name="destructive"),),
    asked_at=AT,
    expires_at=AT + timedelta(minutes=15),
)


def whole(**changes: Any) -> Message:
    return webhook_message.opened_whole(replace(HELD, **changes), page=PAGE, at=AT, verdict_url=None)


def made(template: Template, message: Message) -> Any:
    return json.loads(body_of(template, message, topic="approvals"))


@pytest.mark.parametrize("template", get_args(Template))
def test_a_summary_has_who_for_whom_tool_hazard_time_and_link_and_nothing_of_the_arguments(template: Template) -> None:
    text = body_of(template, webhook_message.opened(HELD, page=PAGE, at=AT), topic="approvals").decode()
    for part in ("coder", "alice", "acme__deploy", "destructive", "2026-11-21", "10:15", f"{PAGE}/h_1"):
        assert part in text
    for part in ("9.8.7-canary", "release_tag", "ship-it", "s256"):
        assert part not in text


@pytest.mark.parametrize("template", get_args(Template))
def test_how_it_ended_says_nothing_of_who_ended_it(template: Template) -> None:
    over = replace(HELD, state=HoldState.DENIED, subject=PersonName("bob"), owner=PersonName("carol"))
    text = body_of(template, webhook_message.ended(over, page=PAGE, at=AT), topic="approvals").decode()
    assert "denied" in text and f"{PAGE}/h_1" in text
    assert not any(name in text for name in ("alice", "bob", "carol"))


def test_a_generic_receiver_gets_the_form_of_the_specification() -> None:
    opened = made("json", webhook_message.opened(HELD, page=PAGE, at=AT))
    assert opened == {
        "type": "hold.opened",
        "timestamp": "2026-11-21T10:00:00Z",
        "data": {
            "hold": "h_1",
            "actor": "agent:coder",
            "for": "alice",
            "tool": "acme__deploy",
            "server": "acme",
            "hazard": "destructive",
            "rules": ["destructive"],
            "asked_at": "2026-11-21T10:00:00Z",
            "expires_at": "2026-11-21T10:15:00Z",
            "url": f"{PAGE}/h_1",
        },
    }
    everything = made("json", whole())["data"]
    assert everything["shown"] == displayed(HELD) and len(everything["act_s256"]) == len(everything["shown_s256"]) == 43
    assert "verdict_url" not in everything
    ended = made("json", webhook_message.ended(replace(HELD, state=HoldState.EXPIRED), page=PAGE, at=AT))
    assert (ended["type"], ended["data"]["state"]) == ("hold.ended", "expired")


@pytest.mark.parametrize("template", ["slack", "teams", "discord", "ntfy"])
def test_everything_is_everything_that_an_approver_is_shown(template: Template) -> None:
    text = json.dumps(made(template, whole())).replace("&gt;", ">")
    for line in displayed(HELD).split("\n"):
        assert json.dumps(line)[1:-1] in text


@pytest.mark.parametrize(("template", "most"), [("slack", 50), ("teams", 28 * 1024), ("discord", 4096), ("ntfy", 4096)])
@pytest.mark.parametrize("character", ["a", "<", "`", "\u20ac", "\u202e"])
def test_the_largest_call_that_can_be_shown_fits_or_is_said_to_be_too_long(
    template: Template, most: int, character: str
) -> None:
    length = limits.ARGUMENTS_SHOWN - 20 if character != "\u202e" else limits.ARGUMENTS_SHOWN // 8 - 20
    message = made(template, whole(arguments={"text": character * length}))
    match template:
        case "slack":
            assert len(message["blocks"]) <= most
            texts = [block["text"]["text"] for block in message["blocks"]]
            assert all(0 < len(text) <= 3000 for text in texts)
            is_whole = "too long" not in str(message)
        case "teams":
            is_whole = "too long" not in str(message)
            assert len(body_of(template, whole(arguments={"text": character * length}))) <= most
        case "discord":
            (embed,) = message["embeds"]
            assert len(embed["description"]) <= most and len(message["content"]) <= 2000
            is_whole = "too long" not in embed["description"]
        case _:
            assert len(message["message"].encode()) <= most
            is_whole = "too long" not in message["message"]
    if not is_whole:
        assert "for alice" in str(message) and PAGE in str(message)


def test_a_webhook_for_some_rules_is_about_their_holds_alone() -> None:
    assert concerns(frozenset(), HELD) and concerns(frozenset({"destructive", "other"}), HELD)
    assert not concerns(frozenset({"other"}), HELD)


def test_a_request_for_a_session_and_an_agent_of_its_own_are_told_as_what_they_are() -> None:
    asks = replace(HELD, tool=ToolName("authz__request_session"), mode=Mode.OWN)
    opened = webhook_message.opened(asks, page=PAGE, at=AT)
    assert opened.title == "coder asks for a session" and opened.lines[0] == "for itself, owner alice"
