"""What a webhook says: that a call is held, what became of it, or that this is a test; all of it made visible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from mcp_authz.model import HeldCall
from mcp_authz.rules.display import displayed, displayed_digest, for_whom, visible
from mcp_authz.rules.keys import b64url
from mcp_authz.rules.session_request import NAME as REQUEST_SESSION

Type = Literal["hold.opened", "hold.ended", "webhook.test"]

_SHOWN: Final = 80  # characters of a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message: `data` for programs, the rest for people; no line break in it is an agent's choice."""

    type: Type
    at: datetime
    title: str
    lines: tuple[str, ...]
    brief: tuple[str, ...]  # instead of `lines`, where those are more than a receiver takes
    link: str
    data: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The body that the Standard Webhooks specification recommends: type, time, data."""
        return {"type": self.type, "timestamp": _rfc3339(self.at), "data": dict(self.data)}


def concerns(rules: frozenset[str], held: HeldCall) -> bool:
    """Whether a webhook for these approval rules (none: for all) is about this hold."""
    return not rules or not rules.isdisjoint(rule.name for rule in held.rules)


def opened(held: HeldCall, *, page: str, at: datetime) -> Message:
    """That the call waits for a person: who, for whom, which tool, until when; no argument of it."""
    lines = (f"for {for_whom(held)}", f"until {held.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC")
    data = {
        "hold": held.id,
        "actor": f"agent:{held.actor}",
        "for": for_whom(held),
        "tool": visible(held.tool),
        "server": held.server,
        "hazard": held.hazard.value,
        "rules": [visible(rule.name) for rule in held.rules],
        "asked_at": _rfc3339(held.asked_at),
        "expires_at": _rfc3339(held.expires_at),
        "url": f"{page}/{held.id}",
    }
    title, link = _asks(held), f"{page}/{held.id}"
    return Message(type="hold.opened", at=at, title=title, lines=lines, brief=lines, link=link, data=data)


def opened_whole(held: HeldCall, *, page: str, at: datetime, verdict_url: str | None) -> Message:
    """The same with the call as a whole: the text that an approver must have seen, and the digests of both.

    `verdict_url` is where a signed answer may go, if anywhere.
    """
    short, shown = opened(held, page=page, at=at), displayed(held)
    data = {
        **short.data,
        "shown": shown,
        "act_s256": b64url(held.digest),
        "shown_s256": b64url(displayed_digest(held)),
        **({} if verdict_url is None else {"verdict_url": verdict_url}),
    }
    return Message(
        type="hold.opened",
        at=at,
        title=short.title,
        lines=tuple(shown.split("\n")),
        brief=(*short.lines, "the call is too long to be shown here"),
        link=short.link,
        data=data,
    )


def ended(held: HeldCall, *, page: str, at: datetime) -> Message:
    """That the call waits for nobody any more, and what became of it; not by whom."""
    data = {"hold": held.id, "state": held.state.value, "url": f"{page}/{held.id}"}
    says = (f"{held.state.value}: it waits for nobody any more",)
    title, link = _asks(held), f"{page}/{held.id}"
    return Message(type="hold.ended", at=at, title=title, lines=says, brief=says, link=link, data=data)


def test(*, webhook: str, page: str, at: datetime) -> Message:
    """That this is how messages will arrive."""
    says = ("nothing waits for you; messages about held calls arrive here",)
    title = f"A test of the webhook {webhook} of mcp-authz"
    return Message(type="webhook.test", at=at, title=title, lines=says, brief=says, link=page, data={"url": page})


def _asks(held: HeldCall) -> str:
    actor = visible(held.actor)[:_SHOWN]
    if held.tool == REQUEST_SESSION:
        return f"{actor} asks for a session"
    return f"{actor} asks to run {visible(held.tool)[:_SHOWN]} ({held.hazard.value})"


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
