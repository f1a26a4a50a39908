"""Revocation (RFC 7009): a holder ends a link below its own by a token, an id or a chain, redeemed or not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from mcp_authz.errors import TokenRefused
from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.principals import AgentName, Caller, Link, LinkId, Proof
from mcp_authz.rules import jose, link_id
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.signed_link import TYP, parse_chain, write_chain
from mcp_authz.store.ports import Event
from mcp_authz.underway import Underway
from tests.oauth.house import JWT, Actor, House, expect, house, refused
from tests.store.world import held


async def _line(h: House) -> tuple[Actor, Actor, Actor, str]:
    """planner -> coder -> tester, signed and redeemed by nobody."""
    planner = await h.agent("planner", depth=3, delegates_to=frozenset({AgentName("coder")}))
    coder = await h.agent("coder", depth=2, delegates_to=frozenset({AgentName("tester")}))
    tester = await h.agent("tester")
    await h.start(planner)
    first = h.derive(await h.root(planner), planner, coder, depth=1)
    return planner, coder, tester, h.derive(first, coder, tester)


async def _stored(h: House, chain: str) -> Link | None:
    return await h.store.link(link_id.link_id(jose.read(parse_chain(chain)[-1]).claims["jti"]))


@pytest.mark.parametrize("who", ["planner", "coder", "tester"])
async def test_any_holder_above_ends_a_chain_that_nobody_redeemed_for_good(tmp_path: Path, who: str) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester, chain = await _line(h)
        actors = {"planner": planner, "coder": coder, "tester": tester}
        assert expect(await h.post(actors[who], "/revoke", token=chain)) == {}
        ended = await _stored(h, chain)
        assert ended is not None and ended.status == "revoked"
        refused(await h.exchange(tester, chain, JWT), "invalid_grant")
        (fields,) = await h.events("revocation")
        assert (fields["by"], fields["name"]) == (f"agent:{who}", ended.id)
        first = write_chain(parse_chain(chain)[:-1])
        await h.redeem(coder, first)  # only what was named has ended
        refused(await h.exchange(tester, chain, JWT), "invalid_grant")


async def test_what_descends_from_a_chain_that_was_never_redeemed_ends_with_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester, chain = await _line(h)
        first = write_chain(parse_chain(chain)[:-1])
        expect(await h.post(planner, "/revoke", token=first))
        refused(await h.exchange(tester, chain, JWT), "invalid_grant")
        refused(await h.exchange(coder, first, JWT), "invalid_grant")
        await h.redeem(coder, h.derive(await h.root(planner), planner, coder))


async def test_a_redeemed_chain_and_its_root_are_ended_by_their_text(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, tester, chain = await _line(h)
        token = (await h.redeem(tester, chain))["access_token"]
        expect(await h.post(planner, "/revoke", token=chain))
        with pytest.raises(TokenRefused):
            await h.caller(token)
        own = await h.token(planner)
        expect(await h.post(planner, "/revoke", token=await h.root(planner)))
        with pytest.raises(TokenRefused):
            await h.caller(own)
        assert len(await h.events("revocation")) == 2


async def test_a_chain_with_a_child_is_ended_before_the_child_is_anybody(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await _line(h)
        child = Actor(AgentName("planner/worker-7"), PrivateKey.generate())
        chain = h.derive(await h.root(planner), planner, child.key, child="worker-7")
        expect(await h.post(planner, "/revoke", token=chain))
        assert await h.store.agent(child.name) is None
        refused(await h.exchange(child, chain, JWT), "invalid_grant")
        assert await h.store.agent(child.name) is None


async def test_a_delegators_bound_token_for_its_delegate_names_the_link_to_end(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await _line(h)
        answer = await h.delegate(planner, coder)
        expect(await h.post(planner, "/revoke", token=answer["access_token"]))
        with pytest.raises(TokenRefused):
            await h.caller(answer["access_token"], Proof.DPOP)


async def test_who_stands_nowhere_in_a_chain_ends_nothing_and_learns_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        _, _, tester, chain = await _line(h)
        stranger = await h.agent("stranger")
        answers = [await h.post(stranger, "/revoke", token=text) for text in (chain, "no.such.chain", "l_x")]
        assert len({(answer.status_code, answer.text) for answer in answers}) == 1
        assert await _stored(h, chain) is None
        await h.redeem(tester, chain)
        expect(await h.post(stranger, "/revoke", token=chain))
        assert (ended := await _stored(h, chain)) is not None and ended.status == "active"
        assert await h.events("revocation") == []


async def test_a_holder_further_down_ends_nothing_above_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester, chain = await _line(h)
        await h.redeem(tester, chain)
        above = write_chain(parse_chain(chain)[:-1])
        expect(await h.post(tester, "/revoke", token=above))
        expect(await h.post(coder, "/revoke", token=await h.root(planner)))
        assert await h.events("revocation") == [] and (await h.sign_in(tester))["subject"] == "user:alice"


async def test_a_link_that_borrows_the_id_of_another_does_not_end_that_one(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester, chain = await _line(h)
        leaf = LinkId((await h.redeem(tester, chain))["link"])
        stranger = await h.agent("stranger", depth=1)
        _, root = await h.start(stranger)
        *above, text = parse_chain(h.derive(await h.root(stranger), stranger, coder))
        for name in (leaf, root.id):
            claims = {**jose.read(text).claims, "jti": link_id.jti(name)}
            borrowed = write_chain([*above, jose.sign(claims, typ=TYP, key=stranger.key)])
            expect(await h.post(stranger, "/revoke", token=borrowed))
        for link in (leaf, root.id):
            found = await h.store.link(link)
            assert found is not None and found.status == "active"
        assert planner.name == "planner" and await h.events("revocation") == []


async def test_a_chain_is_ended_once_and_a_dead_one_not_again(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, tester, chain = await _line(h)
        for _ in range(2):
            expect(await h.post(planner, "/revoke", token=chain))
        assert len(await h.events("revocation")) == 1
        expect(await h.post(planner, "/revoke", token=write_chain(parse_chain(chain)[:-1])))
        other = h.derive(write_chain(parse_chain(chain)[:1]), planner, tester)
        await h.revoke("session", (await h.store.sessions())[0].id)
        expect(await h.post(planner, "/revoke", token=other))
        assert await _stored(h, other) is None


async def test_an_agent_ends_nothing_of_a_sibling_and_all_below_its_own(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner = await h.agent("planner", depth=3, delegates_to=frozenset({AgentName("coder"), AgentName("tester")}))
        coder = await h.agent("coder", depth=2, delegates_to=frozenset({AgentName("tester")}))
        tester = await h.agent("tester")
        await h.start(planner)
        own, siblings = await h.delegate(planner, coder), await h.delegate(planner, tester)
        coders = await h.token(coder, claims={"delegation": own["link"]})
        below = await h.delegate(coder, tester, token=coders)
        for token in (siblings["access_token"], siblings["link"], await h.token(planner)):
            expect(await h.post(coder, "/revoke", token=token))
        assert await h.events("revocation") == []
        expect(await h.post(coder, "/revoke", token=below["link"], token_type_hint="refresh_token"))
        states = {link: (await h.store.link(link)).status for link in (own["link"], siblings["link"])}  # type: ignore[union-attr]
        assert set(states.values()) == {"active"} and len(await h.events("revocation")) == 1


async def test_a_hint_leads_nowhere_wrong_and_a_token_in_the_own_name_is_not_said_to_have_ended(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app)
        expect(await h.ask(app, "/revoke", token=said["refresh_token"], token_type_hint="access_token"))
        with pytest.raises(TokenRefused):
            await h.caller(said["access_token"])
        expect(await h.ask(app, "/revoke", token=said["refresh_token"], token_type_hint="of-no-kind"))
        assert len(await h.events("revocation")) == 1  # it was given back already
        lonely = await h.agent("lonely")
        own = await h.token(lonely)
        refused(await h.post(lonely, "/revoke", token=own), "unsupported_token_type")
        assert (await h.caller(own)).agent.name == "lonely"
        other = await h.agent("other")  # who learns nothing of it
        assert expect(await h.post(other, "/revoke", token=own)) == {}
        assert (await h.http.get(f"{h.issuer}/revoke", params={"token": own})).status_code == 405


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_what_a_client_gives_back_ends_what_runs_listens_and_waits_by_it_and_nothing_else(
    tmp_path: Path, which: str
) -> None:
    async with house(tmp_path) as h, anyio.create_task_group() as group:
        underway, ended = Underway(h.store, h.keys.live, h.sessions.identify, nothing_is_approved, h.clock), list[str]()

        async def told() -> None:
            pass

        async def run(caller: Caller, name: str) -> None:
            with underway.while_standing(caller):
                await anyio.sleep_forever()
            ended.append(name)

        async def listen(caller: Caller, name: str) -> None:
            with underway.while_listening(caller):
                await anyio.sleep_forever()
            ended.append(name)

        group.start_soon(underway.run, told)
        apps = [await h.client(handle) for handle in ("cursor", "other")]
        said = [await h.signed_in(app) for app in apps]
        now, later = h.clock(), h.clock() + timedelta(minutes=10)
        for app, answer in zip(apps, said, strict=True):
            caller, handle = await h.caller(answer["access_token"]), app.registered.handle
            assert caller.session is not None
            waiting = held(f"h_{handle}", digest=handle.encode().ljust(32), session=caller.session.id)
            await h.store.open_hold(
                replace(waiting, actor=caller.agent.name, chain=(caller.agent.name,), asked_at=now, expires_at=later),
                Event(kind="approval", at=h.clock()), per_session=9, per_agent=9,
            )  # fmt: skip
            group.start_soon(run, caller, f"call of {handle}")
            group.start_soon(listen, caller, f"stream of {handle}")
        await anyio.sleep(0.05)
        expect(await h.ask(apps[0], "/revoke", token=said[0][which]))
        with anyio.fail_after(10):
            while len(ended) < 2:  # noqa: ASYNC110 - whoever runs has no event for this
                await anyio.sleep(0.005)
        await anyio.sleep(0.05)
        assert set(ended) == {"call of cursor", "stream of cursor"}
        states = {id_: (await h.store.hold(HoldId(id_))).state for id_ in ("h_cursor", "h_other")}  # type: ignore[union-attr]
        assert states == {"h_cursor": HoldState.CANCELLED, "h_other": HoldState.PENDING}
        (fields,) = await h.events("revocation")
        assert (fields["by"], fields["client"], fields["of"]) == ("agent:cursor@alice", apps[0].id, "grant")
        refused(await h.refresh(apps[0], said[0]["refresh_token"]), "invalid_grant")
        expect(await h.refresh(apps[1], said[1]["refresh_token"]))
        group.cancel_scope.cancel()


async def nothing_is_approved(call: HeldCall, *, at: object = None) -> bool:
    raise AssertionError("nothing here rests on an approval")
