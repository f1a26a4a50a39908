"""Row 27: the agent approves its own call, or learns something by which it could."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz.errors import AuthzError
from mcp_authz.model import Assurance, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.verdict import make_statement
from tests.attacks.attacker import answer_in, handshake, spy, tool
from tests.world import ENVELOPE, Actor, World, world

FORM = {"capabilities": {"elicitation": {"form": {}}}}
ARGUMENTS = {"where": "here"}


def servers(directory: Path) -> tuple[Any, dict[str, Any]]:
    server = spy(directory / "spy", tool("drop"))
    return server, {"spy": server.config(tools={"drop": {"scopes": ["spy:drop"]}})}


async def hold_of(w: World, token: str, **more: Any) -> str:
    answer = answer_in(await w.raw_call(token, "spy__drop", ARGUMENTS, **more))["result"]
    return str(answer["_meta"][ENVELOPE]["hold"])


async def sign(w: World, hold: str, person: str, key: PrivateKey, *, says: str | None = None) -> None:
    """A verdict of `person`, signed with any key; `says` is whom the statement names."""
    held = await w.store.hold(hold)
    statement = make_statement(
        held,
        person=PersonName(says or person),
        approve=True,
        assurance=Assurance.PASSKEY,
        reason="sure",
        at=w.clock(),
        key=key,
    )
    await w.running.approvals.hear_signed(hold, PersonName(person), statement)


async def test_a_key_of_an_agent_signs_no_verdict(tmp_path: Path) -> None:
    server, config = servers(tmp_path)
    async with world(tmp_path, servers=config) as w:
        coder = await w.ready("coder", "spy:drop")
        token = await w.token(coder)
        hold = await hold_of(w, token)
        for person, key in (("alice", coder.key), ("coder", coder.key), ("alice", PrivateKey.generate())):
            with pytest.raises(AuthzError):
                await sign(w, hold, person, key)
        assert (await w.store.hold(hold)).state is HoldState.PENDING
        await w.raw_call(token, "spy__drop", ARGUMENTS)
        assert server.ran == []


async def test_a_verdict_of_one_person_is_not_one_of_another(tmp_path: Path) -> None:
    _, config = servers(tmp_path)
    async with world(tmp_path, servers=config) as w:
        hold = await hold_of(w, await w.token(await w.ready("coder", "spy:drop")))
        await w.person("mallory")
        for person, says in (("mallory", None), ("mallory", "alice"), ("alice", None), ("alice", "mallory")):
            with pytest.raises(AuthzError):
                await sign(w, hold, person, w.approvers["mallory"], says=says)
        assert (await w.store.hold(hold)).state is HoldState.PENDING


async def test_an_agent_named_among_the_approvers_is_none(tmp_path: Path) -> None:
    _, config = servers(tmp_path)
    approval = {"destructive": {"by": ["user:coder", "group:coder"]}}
    async with world(tmp_path, servers=config, approval=approval) as w:
        coder = await w.ready("coder", "spy:drop", interactive=True)
        hold = await hold_of(w, await w.token(coder), **FORM)  # and its client is not asked
        with pytest.raises(AuthzError):
            await sign(w, hold, "coder", coder.key)


@pytest.mark.parametrize(
    ("rule", "who", "may"),
    [
        ({"by": ["subject"]}, "alice", True),
        ({"by": ["subject"]}, "olga", False),
        ({"by": ["owner"]}, "olga", True),
        ({"by": ["owner"]}, "alice", False),
        ({"by": ["subject", "owner"], "outside_chain": True}, "alice", False),
        ({"by": ["subject", "owner"], "outside_chain": True}, "olga", True),
        ({"by": ["group:ops"]}, "alice", False),
        ({"by": ["owner"], "quorum": 2}, "olga", False),
        ({"by": ["owner"], "assurance": "passkey"}, "olga", False),
    ],
)
async def test_who_owns_the_agent_and_whom_it_acts_for_are_told_apart(
    tmp_path: Path, rule: dict[str, Any], who: str, may: bool
) -> None:
    server, config = servers(tmp_path)
    async with world(tmp_path, servers=config, approval={"destructive": rule}) as w:
        await w.person("alice")
        await w.person("olga")
        coder = await w.agent("coder", ceiling="spy:drop", owner="olga")
        await w.start(await w.grant("alice", "coder", "spy:drop"))
        token = await w.token(coder)
        hold = await hold_of(w, token)
        try:
            await w.answer(hold, by=who)  # type: ignore[arg-type]
        except AuthzError:
            assert not may
        await w.raw_call(token, "spy__drop", ARGUMENTS)
        assert len(server.ran) == may


async def asked(w: World, coder: Actor) -> tuple[str, dict[str, Any]]:
    token = await w.token(coder)
    return token, answer_in(await w.raw_call(token, "spy__drop", ARGUMENTS, **FORM))["result"]


NOT_YES = {
    "a number": {"action": "accept", "content": {"approve": 1}},
    "text": {"action": "accept", "content": {"approve": "true"}},
    "nothing": {"action": "accept"},
    "another field": {"action": "accept", "content": {"approved": True, "yes": True}},
    "a list": {"action": "accept", "content": [{"approve": True}]},
    "declined with a yes": {"action": "decline", "content": {"approve": True}},
    "cancelled with a yes": {"action": "cancel", "content": {"approve": True}},
    "an action of its own": {"action": "approve", "content": {"approve": True}},
    "no object": True,
}


@pytest.mark.parametrize("what", NOT_YES)
async def test_only_a_plain_yes_is_a_yes(tmp_path: Path, what: str) -> None:
    server, config = servers(tmp_path)
    async with world(tmp_path, servers=config) as w:
        token, question = await asked(w, await w.ready("coder", "spy:drop", interactive=True))
        retry = {"requestState": question["requestState"], "inputResponses": {"approval": NOT_YES[what]}}
        await w.raw_call(token, "spy__drop", ARGUMENTS, **FORM, **retry)
        assert server.ran == []


async def test_more_than_was_asked_for_makes_the_answer_no_stronger(tmp_path: Path) -> None:
    server, config = servers(tmp_path)
    async with world(tmp_path, servers=config) as w:
        await w.person("bob")
        token, question = await asked(w, await w.ready("coder", "spy:drop", interactive=True))
        content = {"approve": True, "by": "bob", "person": "bob", "assurance": "passkey", "rules": ["release"]}
        answers = {"approval": {"action": "accept", "content": content, "assurance": "passkey"}, "h_1": {}}
        retry = {"requestState": question["requestState"], "inputResponses": answers}
        await w.raw_call(token, "spy__drop", ARGUMENTS, **FORM, **retry)
        assert len(server.ran) == 1
        (verdict,) = [r.event.fields for r in await w.records("approval") if "verdict" in r.event.fields]
        assert (verdict["person"], verdict["assurance"]) == ("user:alice", "client")


@pytest.mark.parametrize("agent", [{"interactive": False}, {"interactive": True}])
async def test_a_client_that_may_not_answer_is_not_asked_and_its_answer_is_not_heard(
    tmp_path: Path, agent: dict[str, Any]
) -> None:
    server, config = servers(tmp_path)
    assurance = {"destructive": {"assurance": "signed-in"}} if agent["interactive"] else {}
    async with world(tmp_path, servers=config, approval=assurance) as w:
        token, held = await asked(w, await w.ready("coder", "spy:drop", **agent))
        assert held["_meta"][ENVELOPE]["outcome"] == "held" and "inputRequests" not in held
        hold = held["_meta"][ENVELOPE]["hold"]
        yes = {"approval": {"action": "accept", "content": {"approve": True}}}
        for state in ({}, {"requestState": hold}, {"requestState": ""}, {"requestState": {"hold": hold}}):
            await w.raw_call(token, "spy__drop", ARGUMENTS, **FORM, **state, inputResponses=yes)
        with pytest.raises(AuthzError):
            await w.running.approvals.hear_client(hold, approve=True)
        assert server.ran == []


async def test_the_client_learns_nothing_by_which_it_could_approve(tmp_path: Path) -> None:
    server, config = servers(tmp_path)
    approval = {"destructive": {"by": ["group:release-managers"], "reason": True}}
    async with world(tmp_path, servers=config, approval=approval) as w:
        await w.person("roberta", "release-managers")
        token = await w.token(await w.ready("coder", "spy:drop"))
        heard: list[str] = []

        async def call() -> None:
            answered = await w.raw_call(token, "spy__drop", ARGUMENTS, **FORM)
            heard.extend([answered.text, str(answered.headers)])

        await call()
        hold = answer_in(await w.raw_call(token, "spy__drop", ARGUMENTS))["result"]["_meta"][ENVELOPE]["hold"]
        async with handshake(w, token, capabilities={"elicitation": {"form": {}}}) as session:
            heard.append(str(await session.call("spy__drop", ARGUMENTS)))
            await w.answer(hold, by="roberta", reason="because I say so")
            heard.append(str(await session.call("spy__drop", ARGUMENTS)))
            heard.append(str(await session.call("spy__drop", ARGUMENTS)))
            heard.append(str(await session.request("tools/list")))
        await call()
        assert len(server.ran) == 1
        held = await w.store.hold(hold)
        (verdict,) = held.verdicts
        secrets = [verdict.statement, verdict.signed_by, verdict.statement.split(".")[2], "roberta", "release-managers"]
        secrets += ["because I say so", held.digest.hex(), w.approvers["roberta"].public.thumbprint]
        for secret in secrets:
            assert not [text for text in heard if secret in text], secret
