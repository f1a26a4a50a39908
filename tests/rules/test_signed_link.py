"""Signed links: whoever holds one gives on some of it, and no more; whatever else is done to a chain is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.errors import AuthzError, ConstraintError, DelegationError, SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.constraint import ToolsMap, parse_tools, permits_call, require_bounded
from mcp_authz.rules.constraint_kinds import Wildcard
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, unb64url
from mcp_authz.rules.link_claims import derived_claims
from mcp_authz.rules.scope import Scope, covered, parse_scopes
from mcp_authz.rules.signed_link import (
    TYP,
    Given,
    Purpose,
    SignedChain,
    derive,
    read_unverified,
    sign_root,
    verify_derived,
    verify_links,
)
from tests.rules.drawn import arguments, constraints, narrower, near

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
    unverified = jose.read(link, max_depth=limits.LINK_JSON_DEPTH)
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


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every signature that is verified, as it happens."""
    done = list[bytes]()
    verify = PublicKey.verify

    def counted(key: PublicKey, message: bytes, signature: bytes) -> None:
        done.append(signature)
        verify(key, message, signature)

    monkeypatch.setattr(PublicKey, "verify", counted)
    return done


def test_each_link_of_a_chain_that_holds_is_verified_once(verifications: list[bytes]) -> None:
    verified(CHAIN)
    assert len(verifications) == len(CHAIN) == 3


@pytest.mark.parametrize("what", ["too many links", "no link at all", "a megabyte"])
def test_the_bounds_of_a_chain_come_before_any_cryptography(what: str, verifications: list[bytes]) -> None:
    with pytest.raises(SignatureRefused):
        verified(spoilt(CHAIN)[what](), presenter=HOLDERS[2])
    assert verifications == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_link_that_cannot_be_read_stops_a_chain_before_any_cryptography(at: int, verifications: list[bytes]) -> None:
    head, claims, signature = CHAIN[at].split(".")
    for text in (f"{head}.{claims}", f"{head}.{claims}=.{signature}", f"{claims}.{head}.{signature}", ""):
        with pytest.raises(SignatureRefused):
            verified([*CHAIN[:at], text, *CHAIN[at + 1 :]], presenter=HOLDERS[2])
    assert verifications == []


def test_nothing_below_a_link_that_does_not_verify_is_looked_at(verifications: list[bytes]) -> None:
    root, first, second = CHAIN
    with pytest.raises(SignatureRefused, match="link 2 of 3"):
        verified([root, resigned(first, HOLDERS[9]), second], presenter=HOLDERS[2])
    assert len(verifications) == 2


def test_a_chain_has_as_many_links_as_it_may_and_no_more() -> None:
    deep = {"max_depth": limits.CHAIN_LINKS - 1}
    longest = chain(*(step(number, **deep) for number in range(limits.CHAIN_LINKS)))
    assert len(verified(longest).links) == limits.CHAIN_LINKS
    with pytest.raises(DelegationError, match="are not possible"):
        derive(longest, step(limits.CHAIN_LINKS, **deep), key=HOLDERS[limits.CHAIN_LINKS - 1])
    with pytest.raises(DelegationError, match="may grow beyond"):
        verified(chain(step(0, max_depth=limits.CHAIN_LINKS)))


def nested(levels: int) -> dict[str, Any]:
    constraint: dict[str, Any] = {"constraint_type": "wildcard"}
    for _ in range(levels - 1):
        constraint = {"constraint_type": "all", "constraints": [constraint]}
    return constraint


def tools_claim(constraint: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "attenuating_agent_token", "tools": {"acme__list": {"a": constraint}}}]


def test_constraints_in_a_link_are_read_up_to_their_bounds() -> None:
    (root,) = chain(step(0))
    most = tools_claim(nested(limits.CONSTRAINT_DEPTH))
    assert verified([resigned(root, GATEWAY, authorization_details=most)]).leaf.tools is not None
    clauses = [{"constraint_type": "wildcard"}] * limits.CONSTRAINT_CLAUSES
    for more in (nested(limits.CONSTRAINT_DEPTH + 1), {"constraint_type": "any", "constraints": clauses}):
        with pytest.raises(SignatureRefused):
            verified([resigned(root, GATEWAY, authorization_details=tools_claim(more))])


def test_what_was_derived_is_verified_without_the_keys_of_the_gateway() -> None:
    assert [link.id for link in verify_derived(CHAIN)] == [link.id for link in verified(CHAIN).links]
    root, first, second = CHAIN
    stranger = resigned(root, HOLDERS[9])  # believed, as it is by whoever has no key of the gateway
    with pytest.raises(SignatureRefused, match="link 2 of 3: a link stands under another link"):
        verify_derived([resigned(root, GATEWAY, purpose="another"), first, second])
    with pytest.raises(SignatureRefused, match="link 3 of 3"):
        verify_derived([root, first, resigned(second, HOLDERS[9])])
    assert verify_derived([stranger])[0].depth == 0


scopes = st.lists(st.sampled_from(["a", "a:b", "a:b:c", "a:*", "d", "d:e"]), min_size=1, max_size=3, unique=True)
values = st.lists(st.sampled_from(["api", "web", "docs"]), min_size=1, unique=True)


tools_of_all_kinds = st.dictionaries(
    st.sampled_from(["t", "u"]), st.dictionaries(st.sampled_from(["a", "b"]), constraints, max_size=2), min_size=1
)


def less(given_: Given, number: int, data: st.DataObject) -> Given:
    """What the next holder could be given of this, drawn at random in every dimension."""
    assert given_.tools is not None
    kept = data.draw(st.lists(st.sampled_from(sorted(given_.tools)), min_size=1, unique=True))
    tools = {
        tool: {name: narrower(one, data) for name, one in given_.tools[tool].items()}
        or data.draw(st.dictionaries(st.sampled_from(["a", "b"]), constraints, max_size=2))
        for tool in kept
    }
    assume(fits(tools))
    scope = data.draw(st.lists(st.sampled_from(sorted(given_.scope)), min_size=1, unique=True))
    seconds = data.draw(st.integers(1, int((given_.expires_at - given_.issued_at).total_seconds())))
    assert given_.max_calls is not None
    return replace(
        given_,
        id=uuid7(number),
        holder=HOLDERS[number].public,
        scope=frozenset(Scope(f"{one}{data.draw(st.sampled_from(['', ':x']))}") for one in scope),
        tools=tools,
        max_depth=data.draw(st.integers(max(number, 3), given_.max_depth)),
        expires_at=given_.issued_at + timedelta(seconds=seconds),
        max_calls=data.draw(st.integers(1, given_.max_calls)),
    )


def fits(tools: ToolsMap) -> bool:
    """Whether a link can carry these tools: what narrows was drawn, and may have become long."""
    try:
        require_bounded(tools)
    except ConstraintError:
        return False
    return True


def drawn_steps(count: int, tools: Any, data: st.DataObject) -> list[Given]:
    steps = [step(0, tools=tools, max_depth=4)]
    for number in range(1, count):
        steps.append(less(steps[-1], number, data))
    return steps


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), tools_of_all_kinds, st.lists(arguments, min_size=4, max_size=4), st.data())
def test_a_random_chain_that_narrows_verifies_and_its_leaf_permits_what_all_before_it_permit(
    count: int, tools: Any, some: list[Any], data: st.DataObject
) -> None:
    found = verified(chain(*drawn_steps(count, tools, data)))
    assert len(found.links) == count and found.leaf.tools is not None
    telling = [*some, *(value for shape in found.leaf.tools.values() for one in shape.values() for value in near(one))]
    calls = [{}, *({"a": value} for value in telling), *({"a": value, "b": telling[0]} for value in telling)]
    for link in found.links:
        assert all(covered(scope, link.scope) for scope in found.leaf.scope)
        for tool in ("t", "u", "v"):
            for call in calls:
                if permits_call(found.leaf.tools, tool, call) is None:
                    assert link.tools is not None and permits_call(link.tools, tool, call) is None


def widened(parent: Given, child: Given, what: str) -> Given:
    """The child with more of one dimension than its parent has."""
    assert parent.tools is not None and child.tools is not None and parent.max_calls is not None
    open_ = {name: Wildcard() for shape in parent.tools.values() for name in shape}
    wider: dict[str, dict[str, Any]] = {
        "scope": {"scope": child.scope | {Scope("everything")}},
        "tool": {"tools": {**child.tools, "v": {}}},
        "every tool": {"tools": None},
        "argument": {"tools": {tool: {**shape, "c": Wildcard(), **open_} for tool, shape in parent.tools.items()}},
        "closed": {"tools": {tool: {} for tool in parent.tools}},
        "depth": {"max_depth": parent.max_depth + 1},
        "end": {"expires_at": parent.expires_at + timedelta(seconds=1)},
        "beginning": {"issued_at": parent.issued_at - timedelta(seconds=1)},
        "calls": {"max_calls": parent.max_calls + 1},
        "every call": {"max_calls": None},
    }
    return replace(child, **wider[what])


DIMENSIONS = ["scope", "tool", "every tool", "argument", "closed", "depth", "end", "beginning", "calls", "every call"]


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 4), st.sampled_from(DIMENSIONS), st.data())
def test_a_random_chain_of_which_one_step_widens_one_dimension_is_refused(
    count: int, what: str, data: st.DataObject
) -> None:
    tools = parse_tools({tool: {"a": data.draw(constraints).to_json()} for tool in ("t", "u")})
    steps = drawn_steps(count, tools, data)
    at = data.draw(st.integers(1, count - 1))
    steps[at] = widened(steps[at - 1], steps[at], what)
    links = [sign_root(steps[0], PURPOSE, issuer=ISSUER, key=GATEWAY)]
    for number, one in enumerate(steps[1:]):  # signed by hand: `derive` would refuse to
        above, holder = read_unverified(links)[-1], HOLDERS[number]
        links.append(jose.sign(derived_claims(one, above, holder.public), typ=TYP, key=holder))
    with pytest.raises(DelegationError):
        verified(links)


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
