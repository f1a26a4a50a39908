"""Delegating with nothing but a chain and a key."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_authz.client.delegation import delegate, describe
from mcp_authz.errors import AuthzError, SignatureRefused
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import Given, Purpose, parse_chain, sign_root

NOW = datetime(2026, 11, 21, 12, 0, 0, 500_000, tzinfo=UTC)
START = NOW.replace(microsecond=0)
GATEWAY, PLANNER, CODER, TESTER, STRANGER = (PrivateKey.from_seed(bytes([n]) * 32) for n in range(1, 6))
KEYS = {GATEWAY.public.thumbprint: GATEWAY.public}
TOOLS = parse_tools({"acme__open": {"repo": {"constraint_type": "wildcard"}}, "acme__list": {}})

ONLY_API, ONLY_WEB = (
    parse_tools({"acme__open": {"repo": {"constraint_type": "exact", "value": repo}}}) for repo in ("api", "web")
)


def root(**changes: Any) -> str:
    given = {
        "id": "0199a3c0-0000-7000-8000-000000000001",
        "holder": PLANNER.public,
        "scope": parse_scopes("pr:read pr:write:acme"),
        "tools": TOOLS,
        "max_depth": 2,
        "issued_at": START,
        "expires_at": START + timedelta(minutes=30),
        "max_calls": 20,
    }
    purpose = Purpose(subject="user:alice", subject_issuer="https://g.example", session="s_1", purpose="fix 41")
    return sign_root(Given(**{**given, **changes}), purpose, issuer="https://g.example", key=GATEWAY)


def to_coder(chain: str | None = None, **changes: Any) -> str:
    return delegate(chain or root(), PLANNER, **{"to": CODER.public, "at": NOW, **changes})


def test_what_is_not_given_is_as_the_delegator_has_it() -> None:
    leaf = describe(to_coder(), KEYS).leaf
    assert (leaf.scope, leaf.tools, leaf.max_calls) == (parse_scopes("pr:read pr:write:acme"), TOOLS, 20)
    assert (leaf.depth, leaf.max_depth, leaf.reason, leaf.child) == (1, 1, "", "")
    assert (leaf.issued_at, leaf.expires_at) == (START, START + timedelta(minutes=30))
    assert leaf.holder == CODER.public and leaf.signer == PLANNER.public


def test_what_is_given_is_less() -> None:
    tools = parse_tools({"acme__open": {"repo": {"constraint_type": "exact", "value": "api"}}})
    chain = to_coder(
        scope="pr:read",
        tools=tools,
        lifetime=timedelta(minutes=10),
        max_calls=3,
        depth=1,
        reason="run the tests",
        child="worker-7",
    )
    leaf = describe(chain, KEYS).leaf
    assert (leaf.scope, leaf.tools, leaf.max_calls, leaf.max_depth) == (parse_scopes("pr:read"), tools, 3, 2)
    assert (leaf.reason, leaf.child, leaf.expires_at) == ("run the tests", "worker-7", START + timedelta(minutes=10))
    further = describe(delegate(chain, CODER, to=TESTER.public, at=NOW), KEYS)
    assert [link.depth for link in further.links] == [0, 1, 2] and further.leaf.max_calls == 3


def test_a_link_ends_with_the_one_it_stands_under() -> None:
    assert describe(to_coder(lifetime=timedelta(hours=9))).leaf.expires_at == START + timedelta(minutes=30)


def test_a_clock_that_is_behind_makes_links_all_the_same() -> None:
    late = to_coder(at=NOW - timedelta(seconds=20), lifetime=timedelta(seconds=5))
    leaf = describe(late, KEYS).leaf
    assert (leaf.issued_at, leaf.expires_at) == (START, START + timedelta(seconds=5))


@pytest.mark.parametrize(
    ("changes", "say"),
    [
        ({"scope": "pr:read deploy"}, "scope `deploy` is not in the chain, which has: pr:read pr:write:acme"),
        ({"scope": ""}, "name at least one"),
        ({"scope": 'pr:"'}, "RFC 6749"),
        ({"tools": parse_tools({"acme__drop": {}})}, "tool `acme__drop` is not in the chain, which has `acme__list`"),
        ({"tools": parse_tools({"acme__open": {}})}, "drops argument `repo`"),
        ({"chain": root(tools=ONLY_API), "tools": ONLY_WEB}, "`repo` of `acme__open` is web: that is not within"),
        ({"lifetime": timedelta(0)}, "for a second"),
        ({"at": NOW + timedelta(minutes=30)}, "the chain ended at 2026-11-21 12:30:00 UTC"),
        ({"max_calls": 21}, "the chain is for 20 calls"),
        ({"max_calls": 0}, "one call at least"),
        ({"depth": -1}, "0 or more"),
        ({"depth": 2}, "1 at most are left"),
        ({"reason": "x" * 257}, "shorten it"),
        ({"child": "Worker 7"}, "claim `child` is no name"),
        ({"child": "x/y"}, "claim `child` is no name"),
        ({"chain": "nonsense"}, ""),
        ({"chain": root(max_depth=0)}, "may not be delegated further"),
        ({"chain": root(holder=STRANGER.public)}, "given to another key"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_more_than_there_is_cannot_be_given_and_the_error_says_what_there_is(changes: dict[str, Any], say: str) -> None:
    with pytest.raises(AuthzError) as refused:
        to_coder(**changes)
    assert say in str(refused.value)


def test_without_the_keys_of_the_gateway_only_the_first_link_is_believed() -> None:
    chain = to_coder()
    assert describe(chain, KEYS).verified == "all" and describe(chain).verified == "derived"
    assert describe(chain).links[1:] == describe(chain, KEYS).links[1:]
    with pytest.raises(SignatureRefused, match="not signed by a key of this gateway"):
        describe(chain, {STRANGER.public.thumbprint: STRANGER.public})


def test_a_link_that_was_tampered_with_is_seen_without_the_keys_of_the_gateway() -> None:
    first, second = parse_chain(to_coder())
    forged = delegate([first], PLANNER, to=STRANGER.public, at=NOW).split()[1]
    mixed = f"{second.rpartition('.')[0]}.{forged.rpartition('.')[2]}"
    with pytest.raises(SignatureRefused):
        describe([first, mixed])
    with pytest.raises(SignatureRefused, match="another link"):
        describe([root(max_depth=0), second])


def test_delegating_loads_nothing_of_the_server() -> None:
    code = """
import sys, mcp_authz.client.delegation
server = {"starlette", "authlib", "cedarpy", "sqlite3", "mcp", "uvicorn", "webauthn", "httpx2"}
print(sorted(server & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]"
