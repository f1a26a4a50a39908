"""Webhook messages in the form of each chat receiver, so that nothing in them is read as markup, mention or link.

Every text is put where the receiver reads no markup at all, and what it reads even there is escaped, or spelled out
as `rules.display.visible` does. The only link is the gateway's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from mcp_authz.rules import strict_json
from mcp_authz.rules.webhook_message import Message

Template = Literal["json", "slack", "teams", "discord", "ntfy"]
Json = dict[str, Any]

OPEN: Final = "Look at it whole, and answer"
_SLACK_TEXT: Final = 3000  # characters of one text object
_SLACK_ESCAPED: Final = 5  # times as long is a text at most when it is escaped
_SLACK_BLOCKS: Final = 45  # of the 50 that one message may have
_TEAMS_BYTES: Final = 24 * 1024  # of the 28 KB that one message may have
_DISCORD_TEXT: Final = 3900  # characters, of the 4096 that a description may have
_NTFY_BYTES: Final = 4000  # of the 4096 that one message may have: a longer one becomes an attachment


def body_of(template: Template, message: Message, topic: str = "") -> bytes:
    """Return what is posted; `topic` is ntfy's."""
    made = _ntfy(message, topic) if template == "ntfy" else _TEMPLATES[template](message)
    return strict_json.dump(made)


def _slack(message: Message) -> Json:
    """Block Kit with `plain_text` alone: in it only `&`, `<` and `>` have to be escaped."""
    texts = [message.title, *_pieces(message.lines, _SLACK_TEXT // _SLACK_ESCAPED)]
    if len(texts) > _SLACK_BLOCKS:
        texts = [message.title, *message.brief]
    plain = [{"type": "plain_text", "text": _slack_escaped(text), "emoji": False} for text in texts]
    link = {"type": "mrkdwn", "text": f"<{message.link}|{OPEN}>", "verbatim": True}
    return {
        "text": _slack_escaped(message.title),  # what a notification shows
        "blocks": [{"type": "section", "text": text} for text in (*plain, link)],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _slack_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _teams(message: Message) -> Json:
    """An Adaptive Card of `TextRun`s, in which there is no Markdown; `{{DATE(...)}}` is one even there."""
    whole = _card(message, message.lines)
    return whole if len(strict_json.dump(whole)) <= _TEAMS_BYTES else _card(message, message.brief)


def _card(message: Message, lines: Sequence[str]) -> Json:
    runs = [{"type": "TextRun", "text": _teams_spelled(message.title), "weight": "Bolder"}]
    runs += [{"type": "TextRun", "text": _teams_spelled(line), "fontType": "Monospace"} for line in lines]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "RichTextBlock", "inlines": [run]} for run in runs],
        "actions": [{"type": "Action.OpenUrl", "title": OPEN, "url": message.link}],
        "msteams": {"width": "Full"},
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _teams_spelled(text: str) -> str:
    return text.replace("{{", "{\\u{007b}")


def _discord(message: Message) -> Json:
    """Everything in a code block of an embed, which mentions nobody; a backtick could end the block."""
    text = _spelled("\n".join((message.title, *message.lines)))
    if len(text) > _DISCORD_TEXT:
        text = _spelled("\n".join((message.title, *message.brief)))
    return {
        "content": f"{_HEADLINES[message.type]} <{message.link}>",
        "embeds": [{"description": f"```\n{text}\n```"}],
        "allowed_mentions": {"parse": []},
    }


def _spelled(text: str) -> str:
    return text.replace("`", "\\u{0060}")


_HEADLINES: Final = {
    "hold.opened": "A call waits for a person:",
    "hold.ended": "A call waits for nobody any more:",
    "webhook.test": "A test:",
}


def _ntfy(message: Message, topic: str) -> Json:
    """Published as JSON, so that no text gets into a header; without `markdown` its apps make links alone of it."""
    text = _unlinked("\n".join(message.lines))
    if len(text.encode()) > _NTFY_BYTES:
        text = _unlinked("\n".join(message.brief))
    return {"topic": topic, "title": _unlinked(message.title), "message": text, "click": message.link}


def _unlinked(text: str) -> str:
    return text.replace("://", ":\\u{002f}/")


def _pieces(lines: Sequence[str], most: int) -> Iterator[str]:
    """The lines in pieces of at most `most` characters, broken between lines where that is possible."""
    piece = ""
    for part in (line[at : at + most] for line in lines for at in range(0, max(len(line), 1), most)):
        if piece and len(piece) + 1 + len(part) > most:
            yield piece
            piece = part
        else:
            piece = f"{piece}\n{part}" if piece else part
    if piece:
        yield piece


_TEMPLATES: Final[Mapping[str, Callable[[Message], Json]]] = {
    "json": Message.to_json,
    "slack": _slack,
    "teams": _teams,
    "discord": _discord,
}
