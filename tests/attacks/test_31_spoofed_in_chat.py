"""Row 31 in chat: what an agent or a tool server writes is text there, and neither markup nor mention nor link."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mcp_authz.model import ToolName
from mcp_authz.rules import webhook_message
from mcp_authz.rules.chat_templates import Template, body_of
from mcp_authz.rules.webhook_message import Message
from tests.webhooks.test_templates import AT, HELD, PAGE

EVIL = (
    "<!channel> <!here> <@U123> <#C1> <https://evil.example|approve> &lt;!everyone&gt; @everyone @here <@&1> "
    "[approve](https://evil.example) **approved** {{DATE(2030-01-01T00:00:00Z)}} {{{{TIME(x)}} ``` ` \u202e\u200b "
    "<at>alice</at> :white_check_mark:\r\nX-Actions: view\nfor alice, approved"
)


def evil(**changes: Any) -> Message:
    """A call of which every text that is not the operator's says what a chat could misread."""
    held = replace(HELD, tool=ToolName(f"\u202e\r\n{EVIL}"), purpose=EVIL, arguments={EVIL: EVIL}, **changes)
    return webhook_message.opened_whole(held, page=PAGE, at=AT, verdict_url=None)


def made(template: Template) -> Any:
    return json.loads(body_of(template, evil(), topic="approvals"))


@pytest.mark.parametrize("template", ["json", "slack", "teams", "discord", "ntfy"])
def test_no_line_and_no_hidden_character_is_the_agents_own(template: Template) -> None:
    message = evil()
    for text in (message.title, *message.lines, *message.brief):
        assert text.isprintable()
    assert not any(line.startswith("for alice, approved") for line in message.lines)
    raw = body_of(template, message, topic="approvals").decode()
    assert "\u202e" not in raw and "\u200b" not in raw and "\r" not in raw


def test_slack_reads_no_mention_no_link_and_no_emoji() -> None:
    body = made("slack")
    *texts, link = (block["text"] for block in body["blocks"])
    assert link["text"] == f"<{PAGE}/h_1|Look at it whole, and answer>"
    assert {text["type"] for text in texts} == {"plain_text"} and not any(text["emoji"] for text in texts)
    for text in (body["text"], *(text["text"] for text in texts)):
        assert "<" not in text and ">" not in text
        assert all(part.split(";")[0] in {"amp", "lt", "gt"} for part in text.split("&")[1:])
    assert "&amp;lt;!everyone&amp;gt;" in "".join(text["text"] for text in texts)
    assert body["unfurl_links"] is False and "link_names" not in body and "parse" not in body


def test_teams_reads_no_markdown_and_no_function() -> None:
    body = made("teams")
    (attachment,) = body["attachments"]
    for block in attachment["content"]["body"]:
        assert block["type"] == "RichTextBlock" and {run["type"] for run in block["inlines"]} == {"TextRun"}
        assert not any("{{" in run["text"] for run in block["inlines"])
    (action,) = attachment["content"]["actions"]
    assert action["url"] == f"{PAGE}/h_1" and "entities" not in json.dumps(body)


def test_discord_mentions_nobody_and_its_block_ends_where_it_should() -> None:
    body = made("discord")
    (embed,) = body["embeds"]
    assert body["allowed_mentions"] == {"parse": []} and body["content"] == f"A call waits for a person: <{PAGE}/h_1>"
    assert embed.keys() == {"description"}
    description = embed["description"]
    assert description.startswith("```\n") and description.endswith("\n```") and "`" not in description[3:-3]


def test_ntfy_gets_no_text_in_a_header_and_reads_no_markdown_and_no_link() -> None:
    body = made("ntfy")
    assert "https:\\u{002f}/evil.example" in body["message"] and "://" not in body["message"] + body["title"]
    assert body.keys() == {"topic", "title", "message", "click"}
    assert body["topic"] == "approvals" and body["click"] == f"{PAGE}/h_1" and "\n" not in body["title"]
