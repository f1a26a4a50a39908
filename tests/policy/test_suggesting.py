"""Suggestions, without a gateway: what is listed, what is put together, and text that stays text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mcp_authz.inputs import read_kept
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.cedar_writing import permits, quoted
from mcp_authz.rules.scope import Scope, covered
from mcp_authz.suggesting import Needs
from tests.policy.documents import ask, document

NASTY = ('"', "\\", '" || true || "', "a\nb", "\x00", "\u2028", "é\u202e", "*", "\\u{41}", "💥", "//", "")
Asks = tuple[tuple[str, str], ...]


def deed(
    needs: Needs,
    *scopes: str,
    asks: Asks = (),
    declared: tuple[str, ...] = ("repo",),
    tool: str = "github__x",
    **attributes: Any,
) -> Mapping[str, Any]:
    """One more permitted call, whose document is returned."""
    resource = {"server": "github", "tool": tool, "environment": "e", "hazard": "write", **attributes}
    asked = document(resource=resource)
    kept = {
        "document": asked,
        "needed": scopes,
        "declared": declared,
        "own_rule": None,
        "outcome": "permit",
        "reason": "",
        "rules": [],
        "because": [],
        "asks": asks,
    }
    needs.add(read_kept(kept), {"subject": "user:alice", "chain": ["agent:coder"]})
    return asked


async def permitted(needs: Needs, asked: Mapping[str, Any]) -> bool:
    answer = await ask(permits(needs.permitted), asked)
    assert answer.errors == ()
    return answer.permit


@pytest.mark.parametrize("value", [*NASTY, 0, -7, 2**63 - 1, True, False], ids=ascii)
async def test_a_value_that_was_seen_is_permitted_and_no_other(value: str | int) -> None:
    needs = Needs(agent="coder")
    seen = deed(needs, repo=value)
    assert await permitted(needs, seen)
    other = not value if isinstance(value, bool) else value + type(value)("1")
    for changed in ({**seen["resource"], "repo": other}, {k: v for k, v in seen["resource"].items() if k != "repo"}):
        assert not await permitted(needs, {**seen, "resource": changed})
    for member in ("actor", "resource"):
        named = {"id": "somebody"} if member == "actor" else {"tool": "github__y"}
        assert not await permitted(needs, {**seen, member: {**seen[member], **named}})
    assert not await permitted(needs, {**seen, "action": "pr.merge"})


@pytest.mark.parametrize("name", ["if", "a-b", 'x"y', "ü", "has", "ordinary", "0"])
async def test_an_attribute_may_have_any_name(name: str) -> None:
    needs = Needs(agent="coder")
    seen = deed(needs, declared=(name,), **{name: "v"})
    assert await permitted(needs, seen)
    assert not await permitted(needs, {**seen, "resource": {**seen["resource"], name: "w"}})


async def test_an_attribute_that_was_absent_may_be_absent_and_nothing_else() -> None:
    needs = Needs(agent="coder")
    without = deed(needs)
    assert await permitted(needs, without)
    assert not await permitted(needs, {**without, "resource": {**without["resource"], "repo": "a"}})
    one = deed(needs, repo="a")
    assert await permitted(needs, without) and await permitted(needs, one)
    assert not await permitted(needs, {**one, "resource": {**one["resource"], "repo": "b"}})


async def test_what_cannot_be_listed_is_left_open_and_said() -> None:
    needs = Needs(agent="coder", most=2)
    names = ("many", "list", "long", "mixed", "two")
    for number in range(3):
        values = {"many": str(number), "list": [1], "long": "x" * 200, "mixed": number or "0", "two": number % 2}
        seen = deed(needs, declared=names, **values)
    deed(needs, tool="github__y", declared=("two",), two="text")  # an integer elsewhere
    assert await permitted(needs, seen)
    assert [name for tool, name in needs.left_open if tool == "github__x"] == sorted(names)
    assert ("github__y", "two") in needs.left_open


async def test_everything_that_was_asked_for_is_asked_for_again() -> None:
    asks: Asks = (("approval", "a"), ("approval", "b"), ("rate_limit", "3/m"), ("notify", 'us"'))
    needs = Needs(agent="coder")
    seen = deed(needs, asks=asks[:3], repo="a")
    answer = await CedarEngine.load({"x": permits(needs.permitted)}).evaluate(seen)
    assert answer.permit and {(one.kind, one.argument) for one in answer.obligations} == set(asks[:3])


def test_a_scope_has_a_star_only_where_many_values_were_seen() -> None:
    needs, literal = Needs(agent="coder", most=3), []
    for number in range(5):
        for owner in ("acme", "others")[: number + 1]:
            literal.append(Scope(f"pr:read:{owner}:{number}"))
            deed(needs, literal[-1], "use", repo="a")
    deed(needs, "pr:write:1", tool="github__y", repo="a")
    deed(needs, "pr:write:2", tool="github__y", repo="a")
    assert needs.ceiling.narrowest == ("pr:read:acme:*", "pr:read:others:*", "pr:write:1", "pr:write:2", "use")
    assert needs.ceiling.widened == ("pr:read:acme:*", "pr:read:others:*")
    assert all(covered(scope, needs.ceiling.narrowest) for scope in literal)


def test_ids_are_unique_and_names_of_clients_make_no_policy_unreadable() -> None:
    needs = Needs(agent="cursor@alice")
    for number in range(3):
        deed(needs, tool=f"github__{number}", repo="a")
    assert len(CedarEngine.load({"x": permits(needs.permitted)}).policies and needs.permitted) == 3
    assert quoted('a"b\n') == '"a\\"b\\u{a}"'
