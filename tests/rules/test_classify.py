"""Which classification counts for a tool."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.config import ServerConfig
from mcp_authz.model import Classification, Hazard
from mcp_authz.rules.classify import Classified, ServerRules, classify, tool_name
from mcp_authz.rules.scope import ScopeTemplate
from mcp_authz.settings import server_rules

SEEN, OTHER = b"\1" * 32, b"\2" * 32


def scopes(classification: Classification) -> list[str]:
    return [str(scope) for scope in classification.scopes]


def rules(**tools: dict[str, object]) -> ServerRules:
    return server_rules("acme", ServerConfig(command=["x"], tools=tools))


def test_what_nothing_classifies_is_destructive_and_takes_a_scope_of_its_own() -> None:
    found = classify(rules(), "drop_table", SEEN)
    assert (found.hazard, found.action, scopes(found), found.by) == (
        Hazard.DESTRUCTIVE,
        "acme.drop_table",
        ["acme:drop_table"],
        "nobody",
    )


def test_an_exact_entry_comes_before_a_pattern_whatever_their_order() -> None:
    both = rules(**{"list_*": {"hazard": "read"}, "list_secrets": {"hazard": "destructive"}})
    assert classify(both, "list_secrets", SEEN).hazard is Hazard.DESTRUCTIVE
    assert classify(both, "list_files", SEEN).hazard is Hazard.READ


def test_a_pattern_without_scopes_gives_each_tool_a_scope_of_its_own() -> None:
    every = rules(**{"*": {"hazard": "read"}})
    assert scopes(classify(every, "one", SEEN)) == ["acme:one"]
    assert classify(every, "two", SEEN).action == "acme.two"


def test_a_preset_covers_a_tool_only_while_its_definition_is_known() -> None:
    reads = Classification(action="git.log", hazard=Hazard.READ, scopes=(ScopeTemplate.parse("git:read"),))
    preset = {"git_log": Classified(classification=reads, digests=frozenset({SEEN}))}
    of = ServerRules(server="git", preset=preset)
    assert classify(of, "git_log", SEEN).hazard is Hazard.READ
    assert classify(of, "git_log", OTHER).hazard is Hazard.DESTRUCTIVE


@pytest.mark.parametrize("method", ["resources/read", "prompts/get", "completion/complete"])
def test_a_pattern_says_nothing_of_the_protocols_own_methods(method: str) -> None:
    every = rules(**{"*": {"hazard": "destructive", "scopes": ["acme:tools"]}})
    assert classify(every, method, SEEN).hazard is Hazard.READ
    assert scopes(classify(every, method, SEEN)) != ["acme:tools"]


@given(st.text(max_size=200))
def test_no_tool_whatever_its_name_is_ever_without_a_scope(tool: str) -> None:
    assert classify(rules(), tool, SEEN).scopes


@given(st.text(max_size=200))
def test_a_tools_name_is_never_longer_than_its_bound(tool: str) -> None:
    assert len(tool_name("acme", tool, SEEN)) <= 48
