"""Signed links: whoever holds one gives on some of it, and no more; whatever else is done to a chain is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.errors import AuthzError, DelegationError, SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.constraint import parse_tools, permits_call
from mcp_authz.rules.keys import PrivateKey, b64url, unb64url
from mcp_authz.rules.scope import covered, parse_scopes
from mcp_authz.rules.signed_link import TYP, Given, Purpose, SignedChain, derive, sign_root, verify_links

ISSUER = "https://gateway.example"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KEYS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 12)]
GATEWAY, HOLDERS = KEYS[0], KEYS[1:]
PURPOSE = Purpose(subject="user:alice", subject_issuer=ISSUER, session="s_1", purpose="fix issue 41")
OPEN = {"repo": {"constraint_type": "one_of", "values": ["api", "web"]}, "title": {"constraint_type": "wildcard"}}
NARROW = {"repo": {"constraint_type": "exact", "value": "api"}, "title": {"constraint_type": "wildcard"}}


def uuid7(number: int) -> str:
    return f"0199a3c0-0000-7000-8000-{number:012x}"


def step(number: int, **changes: Any) -> Given:
    """What the holder `number` is given, unless the test says otherwise."""
    start = Given(
        id=uuid7(number),
        holder=HOLDERS[number].public,
        scope=parse_scopes("pr:read pr:write:acme"),
        tools=parse_tools({"acme__open": OPEN, "acme__list": {}}),
        max_depth=4,
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=30),
        max_calls=20,
    )
    return replace(start, **changes)


def chain(*steps: Given) -> list[str]:
    """The signed links of these steps, each made with the key of the one before."""
    links = [sign_root(steps[0], PURPOSE, issuer=ISSUER, key=GATEWAY)]
    for number, one in enumerate(steps[1:]):
        links.append(derive(links, one, key=HOLDERS[number]))
    return links


def verified(links: list[str], presenter: PrivateKey | None = None, now: datetime = NOW) -> SignedChain:
    holder = presenter or HOLDERS[len(links) - 1]
    keys = {GATEWAY.public.thumbprint: GATEWAY.public}
    return verify_links(links, issuer=ISSUER, keys=keys, presenter=holder.public.thumbprint, now=now)


def resigned(link: str, key: PrivateKey, **changes: Any) -> str:
    """The link with other claims, signed by this key; None removes a claim."""
    unverified = jose.read(link)
    claims = {name: value for name, value in {**unverified.claims, **changes}.items() if value is not None}
    return jose.sign(claims, typ=TYP, key=key, kid=unverified.kid)


def test_a_chain_of_four_hops_says_for_whom_by_whom_and_what() -> None:
    narrower = {"scope": parse_scopes("pr:read"), "tools": parse_tools({"acme__open": NARROW}), "max_calls": 3}
    found = verified(chain(step(0), step(1), step(2, **narrower), step(3, **narrower, reason="run the tests")))
    assert found.purpose == PURPOSE
    assert [link.depth for link in found.links] == [0, 1, 2, 3]
    assert [link.holder for link in found.links] == [key.public for key in HOLDERS[:4]]
    assert found.leaf.scope == {"pr:read"} and found.leaf.max_calls == 3 and found.leaf.reason == "run the tests"
    assert {link.session for link in found.links} == {"s_1"}


def test_the_bytes_of_a_chain_are_pinned() -> None:
    root, link = chain(step(0), step(1, reason="for the tests"))
    header, claims, _ = root.split(".")
    named = {"alg": "EdDSA", "typ": "aat+jwt", "kid": GATEWAY.public.thumbprint}
    assert json.loads(unb64url(header)) == named
    assert unb64url(claims) == canonical(json.loads(unb64url(claims)))
    assert jose.read(link).claims["par_hash"] == b64url(hashlib.sha256(f"{header}.{claims}".encode()).digest())
    assert jose.read(link).claims["iss"] == (
        f"urn:ietf:params:oauth:jwk-thumbprint:sha-256:{HOLDERS[0].public.thumbprint}"
    )
    digests = [hashlib.sha256(one.encode()).hexdigest()[:32] for one in (root, link)]
    assert digests == PINNED


PINNED = ["0ac461ef812186774b3aa00e766e4c11", "ce4ff8b6ee5dc54151f67cb674ec0f89"]  # of SHA-256, hex


WIDER: dict[str, dict[str, Any]] = {
    "a scope": {"scope": parse_scopes("pr:read pr:write")},
    "another scope": {"scope": parse_scopes("deploy")},
    "a tool": {"tools": parse_tools({"acme__open": OPEN, "acme__deploy": {}})},
    "every tool": {"tools": None},
    "an argument's values": {"tools": parse_tools({"acme__open": {**OPEN, "repo": {"constraint_type": "wildcard"}}})},
    "an argument more": {"tools": parse_tools({"acme__open": {**OPEN, "draft": {"constraint_type": "wildcard"}}})},
    "any argument": {"tools": parse_tools({"acme__open": {}})},
    "depth": {"max_depth": 5},
    "time": {"expires_at": NOW + timedelta(minutes=31)},
    "an earlier beginning": {"issued_at": NOW - timedelta(seconds=1)},
    "calls": {"max_calls": 21},
    "any number of calls": {"max_calls": None},
}


@pytest.mark.parametrize("what", WIDER)
def test_nobody_gives_more_than_they_have(what: str) -> None:
    with pytest.raises(DelegationError):
        chain(step(0), step(1, **WIDER[what]))


@pytest.mark.parametrize("what", WIDER)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_link_that_gives_more_is_refused_wherever_it_stands_and_however_it_was_made(what: str, at: int) -> None:
    links = chain(*(step(number) for number in range(4)))[:at]
    wide = sign_root(step(at, **WIDER[what]), PURPOSE, issuer=ISSUER, key=GATEWAY)  # made without asking `derive`
    parent = hashlib.sha256(jose.read(links[-1]).signing_input).digest()
    holder = HOLDERS[at - 1]
    own = {"iss": f"urn:ietf:params:oauth:jwk-thumbprint:sha-256:{holder.public.thumbprint}", "del_depth": at}
    own |= {"par_hash": b64url(parent), "sub": None, "sub_iss": None, "sid": None, "purpose": None}
    with pytest.raises(DelegationError):
        verified([*links, resigned(wide, holder, **own)])


def spoilt(links: list[str]) -> dict[str, Callable[[], list[str]]]:
    """What an attacker makes of a chain of three links."""
    root, first, second = links
    other = chain(step(0, id=uuid7(90)), step(1, id=uuid7(91)), step(2, id=uuid7(92)))
    return {
        "a link left out": lambda: [root, second],
        "the root left out": lambda: [first, second],
        "another order": lambda: [root, second, first],
        "a link twice": lambda: [root, first, first],
        "a link of another chain": lambda: [root, other[1], other[2]],
        "a link under another parent of the same holder": lambda: [other[0], first, second],
        "a root of somebody's own": lambda: [resigned(root, HOLDERS[0]), first, second],
        "a link signed by a stranger": lambda: [root, resigned(first, HOLDERS[9]), second],
        "a link that names another issuer": lambda: [root, first, resigned(second, HOLDERS[1], iss=ISSUER)],
        "a depth skipped": lambda: [root, first, resigned(second, HOLDERS[1], del_depth=3)],
        "a private key inside": lambda: [
            root, first, resigned(second, HOLDERS[1], cnf={"jwk": {**HOLDERS[2].public.jwk, "d": "AA"}}),
        ],
        "no tools map of the right kind": lambda: [
            root, first, resigned(second, HOLDERS[1], authorization_details=[{"type": "other", "tools": {}}]),
        ],
        "an unknown constraint": lambda: [
            root,
            first,
            resigned(
                second,
                HOLDERS[1],
                authorization_details=[
                    {"type": "attenuating_agent_token", "tools": {"t": {"repo": {"constraint_type": "any_of"}}}}
                ],
            ),
        ],
        "an id of another kind": lambda: [root, first, resigned(second, HOLDERS[1], jti="l_1")],
        "a budget of nothing": lambda: [root, first, resigned(second, HOLDERS[1], max_calls=0)],
        "true for a number": lambda: [root, first, resigned(second, HOLDERS[1], del_depth=True)],
        "too many links": lambda: [root] * (limits.CHAIN_LINKS + 1),
        "no link at all": lambda: [],
        "a megabyte": lambda: [root, "a" * limits.CHAIN_BYTES],
    }  # fmt: skip


CHAIN = chain(step(0), step(1), step(2))


@pytest.mark.parametrize("what", spoilt(CHAIN))
def test_a_chain_that_was_tampered_with_is_refused(what: str) -> None:
    assert verified(CHAIN).leaf.depth == 2
    with pytest.raises(AuthzError) as refused:
        verified(spoilt(CHAIN)[what](), presenter=HOLDERS[2])
    assert isinstance(refused.value, DelegationError | SignatureRefused)


def test_an_id_that_was_given_to_two_links_is_refused() -> None:
    with pytest.raises(DelegationError, match="twice"):
        verified(chain(step(0), step(1), step(2, id=uuid7(0))))


def test_a_root_of_this_gateway_that_names_a_parent_is_no_root() -> None:
    with pytest.raises(SignatureRefused, match="no root"):
        verified([resigned(CHAIN[0], GATEWAY, par_hash="AA")])


def test_links_that_are_too_long_together_are_not_looked_at() -> None:
    long = [resigned(link, key, padding="x" * 9_000) for link, key in zip(CHAIN, (GATEWAY, *HOLDERS), strict=False)]
    assert verified([long[0]], presenter=HOLDERS[0]).leaf.depth == 0  # one of them is not too long
    with pytest.raises(SignatureRefused, match="together"):
        verified([*long, *long])


def test_a_chain_is_presented_by_the_holder_of_its_last_link_only() -> None:
    for other in (HOLDERS[0], HOLDERS[1], HOLDERS[9]):
        with pytest.raises(DelegationError, match="another key"):
            verified(CHAIN, presenter=other)


def test_a_link_is_derived_by_the_holder_of_the_one_before_only() -> None:
    with pytest.raises(DelegationError, match="another key"):
        derive(CHAIN, step(3), key=HOLDERS[0])


@pytest.mark.parametrize("at", [NOW - timedelta(minutes=1), NOW + timedelta(minutes=31)], ids=["early", "late"])
def test_a_chain_is_good_in_its_time_only(at: datetime) -> None:
    with pytest.raises(SignatureRefused):
        verified(CHAIN, now=at)


def test_what_only_the_root_may_say_is_not_believed_of_a_later_link() -> None:
    root, first, second = CHAIN
    claimed = resigned(second, HOLDERS[1], sub="user:bob", sid="s_other", purpose="everything")
    assert verified([root, first, claimed]).purpose == PURPOSE


scopes = st.lists(st.sampled_from(["a", "a:b", "a:b:c", "a:*", "d", "d:e"]), min_size=1, max_size=3, unique=True)
values = st.lists(st.sampled_from(["api", "web", "docs"]), min_size=1, unique=True)


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.lists(
        st.tuples(scopes, values, st.integers(0, 4), st.integers(1, 30), st.integers(1, 20)), min_size=1, max_size=4
    )
)
def test_whatever_the_leaf_permits_every_link_before_it_permits(wanted: list[Any]) -> None:
    steps: list[Given] = []
    for number, (scope, repos, depth, minutes, calls) in enumerate(wanted):
        tools = parse_tools({"t": {"repo": {"constraint_type": "one_of", "values": repos}}})
        one = step(number, scope=parse_scopes(scope), tools=tools, max_depth=depth, max_calls=calls)
        steps.append(replace(one, expires_at=NOW + timedelta(minutes=minutes)))
    try:
        found = verified(chain(*steps))
    except DelegationError:
        return  # something in it grew, or went deeper than it may: refused is always right
    for link in found.links:
        assert all(covered(scope, link.scope) for scope in found.leaf.scope)
        assert link.expires_at >= found.leaf.expires_at and link.max_depth >= found.leaf.depth
        assert link.tools is not None and found.leaf.tools is not None
        for repo in ("api", "web", "docs"):
            if permits_call(found.leaf.tools, "t", {"repo": repo}) is None:
                assert permits_call(link.tools, "t", {"repo": repo}) is None


@settings(max_examples=40, deadline=None)
@given(repos=st.lists(values, min_size=1, max_size=4), minutes=st.lists(st.integers(1, 30), min_size=4, max_size=4))
def test_a_chain_whose_every_step_narrows_is_verified(repos: list[list[str]], minutes: list[int]) -> None:
    left, steps = {"api", "web", "docs"}, []
    for number, (some, _) in enumerate(zip(repos, minutes, strict=False)):
        left = left & set(some) or left
        tools = parse_tools({"t": {"repo": {"constraint_type": "one_of", "values": sorted(left)}}})
        ends = NOW + timedelta(minutes=min(minutes[: number + 1]))
        steps.append(step(number, tools=tools, expires_at=ends))
    assert len(verified(chain(*steps)).links) == len(steps)
