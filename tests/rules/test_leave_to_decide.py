"""`holds:decide`: no other scope implies it, no tool can need it, and no chain hands it on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.config import parse_config
from mcp_authz.errors import AuthzError, ConfigError, DelegationError, ScopeError
from mcp_authz.rules.scope import DECIDE, Scope, ScopeTemplate, common, covered, covers, narrow, parse_scopes
from mcp_authz.settings import impersonations, role_scopes, server_rules

WIDER = ("*", "holds", "*:*", "holds:*", "*:decide", "holds:decide:x", "holds:decide:*", "mcp:connect")


@pytest.mark.parametrize("other", WIDER)
def test_nothing_but_itself_covers_it_and_it_covers_nothing_else(other: str) -> None:
    scope = Scope(other)
    assert covers(DECIDE, DECIDE) and not covers(scope, DECIDE) and not covers(DECIDE, scope)
    assert common(frozenset([scope]), frozenset([DECIDE])) == frozenset()
    with pytest.raises(DelegationError, match="consent page"):
        narrow(frozenset([scope]), frozenset([DECIDE]))


@given(st.sets(st.sampled_from(["*", "holds", "decide", "a"]).flatmap(lambda a: st.sampled_from([a, f"{a}:decide"]))))
def test_it_is_covered_by_a_set_exactly_when_it_is_in_it(held: set[str]) -> None:
    assert covered(DECIDE, parse_scopes(held)) == (DECIDE in held)


@pytest.mark.parametrize("text", ["holds:decide", "holds", "holds:{x}"])
def test_no_tool_can_be_configured_to_need_it(text: str) -> None:
    with pytest.raises(ScopeError, match="the gateway's own word"):
        ScopeTemplate.parse(text)
    tools = {"t": {"hazard": "read", "scopes": [text]}}
    config = parse_config({"servers": {"files": {"url": "http://localhost:1/mcp", "tools": tools}}})
    with pytest.raises(ConfigError, match=r"`servers.files.tools.t.scopes`.*the gateway's own word"):
        server_rules("files", config.servers["files"])


def test_no_argument_makes_a_call_need_it() -> None:
    template = ScopeTemplate.parse("{kind}:{what}")
    assert not template.could_match([DECIDE])
    with pytest.raises(ScopeError, match="own word"):
        template.fill({"kind": "holds", "what": "decide"})


def test_no_server_is_called_like_it() -> None:
    with pytest.raises(ConfigError, match="`holds` is a reserved name"):
        parse_config({"servers": {"holds": {"url": "http://localhost:1/mcp"}}})


def test_no_configuration_gives_it() -> None:
    provider = {"issuer": "https://id.example", "clients": {"portal": {"scopes": ["a", DECIDE]}}}
    for wrong in ({"clients": {"ceiling": ["*", DECIDE]}}, {"enterprise": provider}):
        with pytest.raises(ConfigError, match="consent page"):
            parse_config(wrong)
    said = {"roles": {"r": [DECIDE]}, "impersonation": [{"agent": "a", "person": "p", "scopes": [DECIDE]}]}
    config = parse_config(said)
    for read in (role_scopes, impersonations):
        with pytest.raises(AuthzError, match="consent page"):
            read(config)
