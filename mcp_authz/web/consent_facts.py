"""What the page shows of a client's request, in words for people: everything in it made visible, and bounded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from mcp_authz import limits
from mcp_authz.authorization import RegisteredClient
from mcp_authz.consent import Question, SentBack
from mcp_authz.principals import PersonName
from mcp_authz.rules.consent import Offered
from mcp_authz.rules.display import visible
from mcp_authz.rules.hidden_text import hidden_characters
from mcp_authz.rules.lookalike import is_disguised
from mcp_authz.rules.redirect_uri import Place
from mcp_authz.rules.scope import PERSONAL
from mcp_authz.web.facts import HAZARDS

FOLDED: Final = 6  # tools of one scope that are shown at once; more are folded
_DAYS: Final = (1, 7, 30, 90)
_CHOSEN_DAYS: Final = 30  # at most, unless the person says otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTool:
    """One tool that a scope opens."""

    name: str
    server: str  # empty where the words of its scope name it
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownScope:
    """One row that a person can tick."""

    scope: str
    words: str
    hazard: str  # empty for leave to answer held calls, which opens no tool
    hazard_says: str
    tools: tuple[ShownTool, ...]
    chosen: bool

    @property
    def is_folded(self) -> bool:
        """Whether its tools are too many to be shown at once."""
        return len(self.tools) > FOLDED

    @property
    def names(self) -> str:
        """The tools in one line, those that are too many as a number."""
        names = [tool.name for tool in self.tools]
        more = [f"{len(names) - FOLDED} more"] if self.is_folded else []
        return ", ".join([*names[:FOLDED], *more])

    @property
    def held(self) -> str:
        """How many of its tools wait for the person each time: `all`, `some` or none."""
        count = sum(tool.held for tool in self.tools)
        return "" if not count else "all" if count == len(self.tools) else "some"


def shown_name(name: str) -> str:
    """Return how a client calls itself with nothing hidden in it, and no longer than a name is."""
    hidden = set(hidden_characters(name))
    cut = name if len(name) <= limits.CLIENT_NAME else f"{name[: limits.CLIENT_NAME]}…"
    return "".join(f"\\u{{{ord(one):04x}}}" if one in hidden else visible(one) for one in cut)


def shown_client(client: RegisteredClient) -> dict[str, Any]:
    """Return who a client says it is, and what is known of it."""
    return {
        "name": shown_name(client.name),
        "is_disguised": is_disguised(client.name),
        "kind": client.kind,
        "host": visible(urlsplit(client.id).hostname or client.id) if client.kind == "document" else None,
    }


def shown_place(where: Place) -> dict[str, str]:
    """Return where an answer goes."""
    words = {
        "web": where.host,
        "loopback": "a program on this computer",
        "app": f"the application that opens “{where.host}:” links",
    }
    return {"kind": where.kind, "host": visible(where.host), "words": visible(words[where.kind])}


def shown(question: Question, *, owner: PersonName | None) -> dict[str, Any]:
    """Return everything that a person sees before they agree; `owner` is of the agent that stands in."""
    days = sorted({*(one for one in _DAYS if one <= question.days), question.days})
    because = question.because
    return {
        "client": shown_client(question.client),
        "place": shown_place(question.place),
        # A secret proves who asks for the code's token; where the answer lands on a device, nothing does.
        "is_anybody": question.client.kind == "dynamic" or question.place.kind != "web",
        "agent": question.agent,
        "owner": owner,
        "stands_in": question.stands_in,
        "because": None if because is None else visible(because.tool),
        "because_of_scopes": because is not None and bool(because.scopes),
        "offered": shown_scopes(question.offered),
        "already": shown_scopes(question.already),
        "deciding": None if question.deciding is None else shown_scopes([question.deciding])[0],
        "administering": shown_scopes(question.administering),
        "decided_before": question.decided_before,
        "is_short": question.is_remembered and because is None,
        "any_held": any(tool.held for one in (*question.offered, *question.already) for tool in one.tools),
        "days": days,
        "chosen_days": max(one for one in days if one <= _CHOSEN_DAYS or one == days[0]),
    }


def shown_scopes(offered: Iterable[Offered]) -> list[ShownScope]:
    """Return the scopes as rows."""
    return [
        ShownScope(
            scope=one.scope,
            words=visible(one.words),
            hazard="" if one.scope in PERSONAL else one.hazard.value,
            hazard_says="" if one.scope in PERSONAL else HAZARDS[one.hazard],
            tools=tuple(
                ShownTool(
                    name=visible(tool.name),
                    server="" if tool.server in one.words else visible(tool.server),
                    held=tool.held,
                )
                for tool in one.tools
            ),
            chosen=one.chosen,
        )
        for one in offered
    ]


def sent_back(sent: SentBack) -> dict[str, Any]:
    """Return what a person sees of a request that its client is told is wrong."""
    return {
        "client": shown_client(sent.client),
        "place": shown_place(sent.place),
        "why": visible(f"{sent.why[:1].upper()}{sent.why[1:]}"),
        "url": sent.url,
    }


def may_be_sent_back(question: Question) -> bool:
    """Whether a client that wants no page is told so without one: not where anybody could have sent the person here."""
    if question.client.kind == "registered":
        return True
    known = question.client.method == "private_key_jwt" and question.place.kind == "web"
    return known and bool(question.already)
