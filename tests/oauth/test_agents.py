"""What the authorization server says of agents, and what agents do to their own keys."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_authz import limits
from mcp_authz.enrolment import Codes
from mcp_authz.ids import new_id
from mcp_authz.principals import AgentName
from mcp_authz.rules import jose
from mcp_authz.rules.client_metadata import read_document
from mcp_authz.rules.key_proof import TYP, enrolment_url, prove_key, rotation_url
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.house import OPERATOR, Actor, House, expect, house, refused

GRANT = {"grant_type": "client_credentials"}


async def shown(h: House, name: str, more: str = "") -> httpx2.Response:
    return await h.http.get(f"{h.issuer}/agents/{name}{more}")


async def rotate(
    h: House, actor: Actor, new: PrivateKey, *, name: str | None = None, proof: str | None = None, **form: str
) -> httpx2.Response:
    """The agent asks for another key."""
    name = name or actor.name
    if proof is None:
        proof = prove_key(new, agent=name, audience=rotation_url(h.issuer, name), id=new_id("k"), at=h.clock())
    return await h.post(actor, f"/agents/{name}/key", proof=proof, **form)


async def announced(h: House, name: str = "coder") -> str:
    """The code of an agent that has no key yet."""
    if "alice" not in {person.name for person in await h.people.list()}:
        await h.person("alice")
    await h.agents.add(name, owner="alice", by=OPERATOR)
    return (await Codes(h.store, h.clock).make(AgentName(name), by=OPERATOR)).text


async def enrol(h: House, code: str, key: PrivateKey, *, name: str = "coder", proof: str | None = None) -> Any:
    """Somebody who has a code asks for their key to be the agent's."""
    if proof is None:
        proof = prove_key(key, agent=name, audience=enrolment_url(h.issuer, name), id=new_id("k"), at=h.clock())
    return await h.http.post(f"{h.issuer}/agents/{name}/enrol", data={"code": code, "proof": proof})


def kept(directory: Path) -> bytes:
    """Every byte of the store."""
    return b"".join(path.read_bytes() for path in directory.iterdir() if path.is_file())


# Documents


async def test_an_agent_has_a_public_document_at_its_url(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder", "pr secret:read", labels={"team": "payments"})
        answer = await shown(h, "coder")
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "public, max-age=60"
        read = read_document(answer.content, url=f"{h.issuer}/agents/coder")
        assert read.keys == (coder.key.public,)
        assert not any(word in answer.text for word in ("alice", "secret:read", "payments"))
        assert (await shown(h, "coder", "/jwks.json")).json() == answer.json()["jwks"]


async def test_a_document_shows_the_old_key_until_the_overlap_is_over(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, new = await h.agent("coder"), PrivateKey.generate()
        await h.agents.rotate("coder", new.public, timedelta(minutes=5), by=OPERATOR)

        async def ids() -> set[str]:
            return {key["kid"] for key in (await shown(h, "coder", "/jwks.json")).json()["keys"]}

        assert await ids() == {coder.key.public.thumbprint, new.public.thumbprint}
        h.clock.advance(minutes=5)
        assert await ids() == {new.public.thumbprint}
        await h.revoke("key", new.public.thumbprint)
        assert (await shown(h, "coder")).status_code == 404


async def test_who_is_not_there_is_answered_alike_whatever_the_reason(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await h.agent("gone")
        await h.revoke("agent", "gone")
        await h.agents.add("keyless", owner="alice", by=OPERATOR)
        for more in ("", "/jwks.json"):
            answers = [await shown(h, name, more) for name in ("nobody", "gone", "keyless", "Coder", "%00", "coder%20")]
            assert {(answer.status_code, answer.content, answer.headers["cache-control"]) for answer in answers} == {
                (404, b'{"error":"not_found"}', "no-store")
            }


@pytest.mark.parametrize("spelled", ["name", "url"])
async def test_an_agent_signs_in_by_its_name_or_by_the_url_of_its_document(tmp_path: Path, spelled: str) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        id_ = {"name": "coder", "url": f"{h.issuer}/agents/coder"}[spelled]
        answer = await h.sign_in(coder, claims={"iss": id_, "sub": id_}, client_id=id_)
        assert h.read(answer["access_token"]).client_id == "coder"


async def test_two_names_of_an_agent_in_one_assertion_are_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        url = f"{h.issuer}/agents/coder"
        for iss, sub, client in (
            (url, "coder", None),
            ("coder", url, None),
            (url, url, "coder"),
            ("coder",) * 2 + (url,),
        ):
            form = {} if client is None else {"client_id": client}
            assertion = h.assertion(coder, iss=iss, sub=sub)
            refused(await h.post(coder, **GRANT, client_assertion=assertion, **form), "invalid_client")


async def test_the_url_of_another_issuer_is_no_name_here(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        for id_ in ("https://other.example.com/agents/coder", f"{h.issuer}/agents//coder", f"{h.issuer}x/agents/coder"):
            assertion = h.assertion(coder, iss=id_, sub=id_)
            refused(await h.post(coder, **GRANT, client_assertion=assertion), "invalid_client")


# Rotation


async def test_an_agent_replaces_its_own_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, new = await h.agent("coder"), PrivateKey.generate()
        await h.start(coder)
        token = await h.token(coder)
        answer = expect(await rotate(h, coder, new))
        assert answer["key"] == new.public.thumbprint and answer["old_keys_end_at"].endswith("Z")
        assert (await h.caller(token)).agent.name == "coder"  # what was issued to the old key
        refused(await h.post(coder, **GRANT), "invalid_client")
        assert await h.sign_in(Actor(coder.name, new))
        recorded = (await h.events("enrolment"))[-1]
        assert (recorded["by"], recorded["key"]) == ("agent:coder", new.public.thumbprint)


async def test_the_overlap_lasts_as_long_as_a_session_unless_the_agent_asks_for_less(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        first, second = await h.agent("first"), await h.agent("second")
        expect(await rotate(h, first, PrivateKey.generate()))
        expect(await rotate(h, second, PrivateKey.generate(), overlap="60"))
        for name, overlap in (("first", limits.SESSION_LIFETIME), ("second", timedelta(minutes=1))):
            old, new = (await h.agents.show(name)).keys
            assert old.retires_at == new.added_at + overlap


async def test_the_same_rotation_again_by_the_new_key_is_answered_alike_and_changes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, new = await h.agent("coder"), PrivateKey.generate()
        expect(await rotate(h, coder, new))
        before = (await h.agents.show("coder")).keys
        assert expect(await rotate(h, Actor(coder.name, new), new))["key"] == new.public.thumbprint
        assert (await h.agents.show("coder")).keys == before


async def test_an_agent_replaces_nobody_elses_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, planner = await h.agent("coder"), await h.agent("planner")
        refused(await rotate(h, coder, PrivateKey.generate(), name="planner"), "unauthorized_client", 403)
        assert len((await h.agents.show("planner")).keys) == 1
        assert (await h.events("enrolment"))[-1]["decision"] == "deny"
        assert await h.sign_in(planner)


async def test_a_key_is_not_replaced_without_the_key_there_is(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, thief = await h.agent("coder"), PrivateKey.generate()
        refused(await rotate(h, Actor(coder.name, thief), thief), "invalid_client")
        proof = prove_key(thief, agent="coder", audience=rotation_url(h.issuer, "coder"), id="k", at=h.clock())
        bare = await h.http.post(f"{h.issuer}/agents/coder/key", data={"proof": proof})
        refused(bare, "invalid_client")
        used = h.assertion(coder)
        await h.post(coder, **GRANT, client_assertion=used)
        refused(await rotate(h, coder, thief, client_assertion=used), "invalid_client")
        assert len((await h.agents.show("coder")).keys) == 1


async def test_a_new_key_proves_itself_for_this_agent_at_this_endpoint_just_now(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, new = await h.agent("coder"), PrivateKey.generate()
        where = rotation_url(h.issuer, "coder")
        good = {"sub": "coder", "aud": where, "iat": int(h.clock().timestamp()), "jti": "k1"}
        wrong = [
            {**good, "sub": "planner"},
            {**good, "aud": enrolment_url(h.issuer, "coder")},
            {**good, "aud": where.replace(h.issuer, "https://other.example.com")},
            {**good, "aud": [where]},
            {**good, "iat": good["iat"] - 200},
            {**good, "iat": good["iat"] + 100},
            {name: value for name, value in good.items() if name != "jti"},
            {name: value for name, value in good.items() if name != "iat"},
        ]
        proofs = [jose.sign_showing_key(claims, typ=TYP, key=new) for claims in wrong]
        proofs += [jose.sign_showing_key(good, typ="dpop+jwt", key=new), jose.sign(good, typ=TYP, key=new), "", "x.y.z"]
        whole = jose.sign_showing_key(good, typ=TYP, key=new)
        head, claims, _ = whole.split(".")
        other = jose.sign_showing_key(good, typ=TYP, key=PrivateKey.generate())
        proofs.append(f"{head}.{claims}.{other.split('.')[2]}")  # shown, and not signed with
        for proof in proofs:
            refused(await rotate(h, coder, new, proof=proof), "invalid_key_proof")
        assert len((await h.agents.show("coder")).keys) == 1
        expect(await rotate(h, coder, new, proof=whole))


async def test_a_third_key_is_refused_while_a_rotation_is_under_way(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, new = await h.agent("coder"), PrivateKey.generate()
        expect(await rotate(h, coder, new))
        answer = await rotate(h, Actor(coder.name, new), PrivateKey.generate())
        refused(answer, "invalid_request", 409)
        assert "wait until one has retired" in answer.json()["error_description"]


@pytest.mark.parametrize("overlap", ["-1", "x", "1e3", "9999999", "90000", "\u0661"])
async def test_an_overlap_that_is_no_sensible_number_of_seconds_is_refused(tmp_path: Path, overlap: str) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        refused(await rotate(h, coder, PrivateKey.generate(), overlap=overlap), "invalid_request")


# Enrolment by a code


async def test_whoever_has_the_code_registers_the_agents_first_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        code, key = await announced(h), PrivateKey.generate()
        assert expect(await enrol(h, code, key)) == {"agent": "coder", "key": key.public.thumbprint}
        assert await h.sign_in(Actor(AgentName("coder"), key))
        assert (await h.events("enrolment"))[-1]["by"] == "agent:coder"


async def test_a_code_is_good_once_for_an_hour_for_its_agent_and_until_there_is_a_newer_one(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        used, late, old = await announced(h, "used"), await announced(h, "late"), await announced(h, "old")
        newer = (await Codes(h.store, h.clock).make(AgentName("old"), by=OPERATOR)).text
        expect(await enrol(h, used, PrivateKey.generate(), name="used"))
        wrong = [
            await enrol(h, used, PrivateKey.generate(), name="used"),
            await enrol(h, old, PrivateKey.generate(), name="old"),
            await enrol(h, newer, PrivateKey.generate(), name="late"),
            await enrol(h, "a" * 26, PrivateKey.generate(), name="late"),
            await enrol(h, "", PrivateKey.generate(), name="late"),
            await enrol(h, newer.upper(), PrivateKey.generate(), name="old"),
            await enrol(h, newer, PrivateKey.generate(), name="nobody"),
        ]
        h.clock.advance(hours=1)
        wrong.append(await enrol(h, late, PrivateKey.generate(), name="late"))
        for answer in wrong:
            refused(answer, "invalid_grant")
        assert len({answer.content for answer in wrong}) == 1
        assert sum(count for reason, count in h.refusals.items() if "code" in reason) == len(wrong)
        assert [len((await h.agents.show(name)).keys) for name in ("used", "late", "old")] == [1, 0, 0]


async def test_the_same_code_with_the_same_key_again_is_answered_alike(tmp_path: Path) -> None:
    """The answer to the first may have been lost, and with it the only way in."""
    async with house(tmp_path) as h:
        code, key = await announced(h), PrivateKey.generate()
        first = expect(await enrol(h, code, key))
        records = len(await h.events("enrolment"))
        assert expect(await enrol(h, code, key)) == first and len(await h.events("enrolment")) == records
        await h.agents.rotate("coder", PrivateKey.generate().public, timedelta(0), by=OPERATOR)
        refused(await enrol(h, code, key), "invalid_grant")


async def test_a_code_is_not_spent_by_a_key_that_cannot_be_registered(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, code = await h.agent("planner"), await announced(h)
        refused(await enrol(h, code, planner.key), "invalid_request", 409)
        refused(await enrol(h, code, PrivateKey.generate(), proof="x"), "invalid_key_proof")
        expect(await enrol(h, code, PrivateKey.generate()))


async def test_a_code_brings_no_revoked_agent_back_and_gives_none_a_second_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        gone, other = await announced(h, "gone"), await announced(h, "other")
        await h.revoke("agent", "gone")
        await h.agents.rotate("other", PrivateKey.generate().public, timedelta(0), by=OPERATOR)
        for name, code in (("gone", gone), ("other", other)):
            refused(await enrol(h, code, PrivateKey.generate(), name=name), "invalid_grant")


async def test_a_source_that_guesses_is_slowed_down(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await announced(h)
        answers = list[httpx2.Response]()
        while not answers or answers[-1].status_code != 429:
            assert len(answers) < 10 * limits.ENROLMENTS_BURST
            answers.append(await enrol(h, "a" * 26, PrivateKey.generate()))
        assert len(answers) > limits.ENROLMENTS_BURST
        refused(answers[-1], "slow_down", 429)
        for answer in answers[:-1]:
            refused(answer, "invalid_grant")


async def test_no_code_is_kept_or_recorded_anywhere(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        code, guess = await announced(h), "b" * 26
        await enrol(h, guess, PrivateKey.generate())
        await enrol(h, code, PrivateKey.generate())
        assert not any(secret in str(reason) for secret in (code, guess) for reason in h.refusals)
    assert not any(secret in kept(tmp_path) for secret in (code.encode(), guess.encode()))


@pytest.mark.parametrize("path", ["key", "enrol"])
async def test_what_is_no_form_is_refused(tmp_path: Path, path: str) -> None:
    async with house(tmp_path) as h:
        await h.agent("coder")
        answer = await h.http.post(f"{h.issuer}/agents/coder/{path}", json={"code": "x"})
        refused(answer, "invalid_request")
        assert (await h.http.get(f"{h.issuer}/agents/coder/{path}")).status_code == 405
