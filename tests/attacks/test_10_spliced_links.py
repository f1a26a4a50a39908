"""Row 10: a link counts where it was made, for whom it was made, and by what was signed; nothing beside that counts."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from mcp_authz.ids import new_uuid7
from mcp_authz.principals import AgentName
from mcp_authz.rules import jose
from mcp_authz.rules.keys import b64url, unb64url
from mcp_authz.rules.signed_link import TYP, parse_chain, write_chain
from tests.oauth.house import JWT, Actor, House, claims_of, expect, house, refused


async def _families(h: House) -> tuple[Actor, Actor, str, str]:
    """Two sessions of one planner, for alice and for bob, each as a root."""
    planner = await h.agent("planner", depth=3, delegates_to=frozenset({AgentName("coder"), AgentName("tester")}))
    coder = await h.agent("coder", depth=2, delegates_to=frozenset({AgentName("tester")}))
    await h.person("bob")
    roots = []
    for person, scope in (("alice", "pr:read"), ("bob", "pr")):
        session, _ = await h.start(planner, scope, subject=person)
        roots.append(await h.root(planner, await h.token(planner, claims={"session": session.id})))
    return planner, coder, roots[0], roots[1]


async def _is_refused(h: House, actor: Actor, chain: str) -> None:
    sessions = await h.store.sessions()
    before = [await h.store.links(session.id) for session in sessions]
    refused(await h.exchange(actor, chain, JWT), "invalid_request")
    assert [await h.store.links(session.id) for session in sessions] == before


async def test_a_link_made_for_one_persons_session_does_not_stand_under_anothers(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, alices, bobs = await _families(h)
        link = parse_chain(h.derive(alices, planner, coder))[-1]
        await _is_refused(h, coder, write_chain([*parse_chain(bobs), link]))
        expect(await h.exchange(coder, write_chain([*parse_chain(alices), link]), JWT))
        await _is_refused(h, coder, write_chain([*parse_chain(bobs), link]))


async def test_a_link_made_under_one_link_does_not_stand_under_another_of_the_same_holder(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _families(h)
        tester = await h.agent("tester")
        narrow, wide = (h.derive(root, planner, coder, scope=scope, depth=1) for scope in ("pr:read", "pr"))
        link = parse_chain(h.derive(narrow, coder, tester))[-1]
        await _is_refused(h, tester, write_chain([*parse_chain(wide), link]))
        await h.redeem(coder, wide)
        await _is_refused(h, tester, write_chain([*parse_chain(wide), link]))
        assert (await h.redeem(tester, write_chain([*parse_chain(narrow), link])))["scope"] == "mcp:connect pr:read"


async def test_a_link_in_between_is_not_left_out_swapped_or_repeated(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _families(h)
        tester = await h.agent("tester")
        chain = h.derive(h.derive(root, planner, coder, depth=1), coder, tester)
        first, second, third = parse_chain(chain)
        for links in ([first, third], [second, third], [third], [first, third, second], [first, second, second, third]):
            for actor in (tester, coder):
                await _is_refused(h, actor, write_chain(links))
        expect(await h.exchange(tester, chain, JWT))


async def test_a_stolen_chain_is_of_no_use_without_the_key_it_was_given_to(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _families(h)
        thief = await h.agent("thief")
        chain = h.derive(root, planner, coder)
        await _is_refused(h, thief, chain)
        onward = jose.read(parse_chain(chain)[-1]).claims
        claims = {**onward, "jti": new_uuid7(h.clock()), "cnf": {"jwk": thief.key.public.jwk}}
        for key in (thief.key, coder.key):
            forged = jose.sign(claims, typ=TYP, key=key)
            await _is_refused(h, thief, write_chain([*parse_chain(root), forged]))


@pytest.mark.parametrize("name", ["iss", "par_hash"])
async def test_a_link_says_who_signed_it_and_under_what(tmp_path: Path, name: str) -> None:
    async with house(tmp_path) as h:
        planner, coder, alices, bobs = await _families(h)
        *above, link = parse_chain(h.derive(bobs, planner, coder))
        other = claims_of(parse_chain(h.derive(alices, planner, coder))[-1]) | {"iss": h.issuer}
        for value in (other[name], None):
            claims = {key: said for key, said in {**claims_of(link), name: value}.items() if said is not None}
            await _is_refused(h, coder, write_chain([*above, jose.sign(claims, typ=TYP, key=planner.key)]))


async def test_what_stands_beside_the_signed_parts_does_not_count(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _families(h)
        chain = h.derive(root, planner, coder, scope="pr:read")
        form = {"scope": "pr", "max_depth": "", "sub": "user:alice", "act": "agent:planner", "session": "s_1"}
        refused(await h.exchange(coder, chain, JWT, **{**form, "max_depth": "7"}), "invalid_request")
        answer = await h.redeem(coder, chain, **form)
        said = claims_of(answer["access_token"])
        assert (said["scope"], said["sub"], said["act"]["sub"]) == ("mcp:connect pr:read", "user:bob", "agent:coder")


async def test_no_bit_of_a_chain_can_be_changed(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await _families(h)
        chain = h.derive(root, planner, coder, scope="pr:read")
        for number, link in enumerate(parse_chain(chain)):
            header, payload, signature = link.split(".")
            wider = {**json.loads(unb64url(payload)), "scope": "pr secret:read"}
            other = b64url(json.dumps(wider).encode())
            flipped = b64url(bytes([unb64url(signature)[0] ^ 1]) + unb64url(signature)[1:])
            unsigned = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": TYP}).encode()).decode().rstrip("=")
            for forged in (
                f"{header}.{other}.{signature}",
                f"{header}.{payload}.{flipped}",
                f"{unsigned}.{other}.",
                f"{link}=",
            ):
                links = list(parse_chain(chain))
                links[number] = forged
                await _is_refused(h, coder, write_chain(links))
