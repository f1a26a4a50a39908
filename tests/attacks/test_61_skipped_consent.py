"""Row 61: consent is skipped for a client that anybody can imitate, or comes to stand for more than was agreed to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.principals import AgentName
from tests.web.asking import agree, answer, asks, client, grants, question
from tests.web.authenticator import Authenticator, visiting
from tests.world import World, world

READ, DEPLOY = "pr:read:*:*", "deploy:*"
WEB = "https://cursor.example/callback"


async def imitated(w: World, kind: str) -> Any:
    """A client of a kind that anybody can say they are."""
    match kind:
        case "loopback":
            return await client(w)
        case "loopback with a key":  # whoever listens gets the code, and the key's owner may be asked to redeem it
            return await client(w, method="private_key_jwt", jwks={"keys": []})
        case "app":
            return await client(w, to="cursor://anysphere/callback")
        case "public on the web":
            return await client(w, to=WEB)
        case _:
            return await client(w, kind="dynamic", to=WEB)


@pytest.mark.parametrize("kind", ["loopback", "loopback with a key", "app", "public on the web", "dynamic"])
async def test_a_client_that_anybody_can_imitate_is_asked_about_each_time(tmp_path: Path, kind: str) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await imitated(w, kind)
        async with visiting(w, "alice") as alice:
            assert (await agree(alice, asks(by, scope=READ), [READ])).status_code == 200
            for prompt in (None, "none"):
                again = await alice.get(f"/authorize?{asks(by, scope=READ, prompt=prompt)}")
                assert again.status_code == 200, "a page, and no code"
                assert "Nothing new is asked" in again.text and "Continue with passkey" in again.text
        assert len(await grants(w)) == 1


async def test_a_client_that_proves_who_it_is_goes_on_at_once_but_never_wider_or_longer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w, to=WEB, method="private_key_jwt", jwks={"keys": []})
        async with visiting(w, "alice") as alice:
            assert (await agree(alice, asks(by, scope=READ), [READ], 7)).status_code == 200
            w.clock.advance(timedelta(hours=1))
            went = await alice.get(f"/authorize?{asks(by, scope=READ)}")
            assert went.status_code == 303 and "code" in answer(went)
            first, second = await grants(w)
            assert second.scope == first.scope and second.expires_at == first.expires_at

            query = asks(by, scope=READ)
            for dest in ("image", "iframe", "script", "empty"):  # what another page loads in passing
                assert (await alice.get(f"/authorize?{query}", sec_fetch_dest=dest)).status_code == 200
            assert (await alice.http.head(f"{alice.origin}/authorize?{query}")).status_code == 200

            for wider in (DEPLOY, f"{READ} {DEPLOY}"):
                assert (await alice.get(f"/authorize?{asks(by, scope=wider)}")).status_code == 200
            for asked in ({"prompt": "consent"}, {"prompt": "login"}, {"max_age": "600"}):
                assert (await alice.get(f"/authorize?{asks(by, scope=READ, **asked)}")).status_code in {200, 401}
            assert len(await grants(w)) == 2
        async with visiting(w, await w.person("bob")) as bob:
            assert (await bob.get(f"/authorize?{asks(by, scope=READ)}")).status_code == 200
        assert len(await grants(w)) == 2


@pytest.mark.parametrize(
    ("scopes", "days"),
    [([DEPLOY], 30), ([READ, DEPLOY], 30), (["*"], 30), (["pr:read"], 30), (["no scope "], 30), ([READ], 31),
     ([READ], 0), ([READ], -1), ([READ], True), ([], 30), ("*", 30), ([1], 30), (None, 30), ([READ], "30")],
)  # fmt: skip
async def test_nobody_agrees_to_more_than_they_were_shown(tmp_path: Path, scopes: Any, days: Any) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            body = {"query": asks(by, scope=READ), "scopes": scopes, "days": days}
            assert (await alice.post("/authorize/question", body)).status_code == 400
        assert await grants(w) == []


async def test_what_was_shown_is_what_counts_whatever_else_is_sent_with_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by, evil = await client(w), await client(w, "Evil")
        async with visiting(w, "alice") as alice:
            nonce, options = await question(alice, asks(by, scope=READ), [READ])
            shown = alice.passkey.show(options, alice.origin)
            other = {"query": asks(evil), "scopes": [DEPLOY], "days": 90}
            went = await alice.post("/authorize/agree", {"nonce": nonce, "answer": shown, **other})
            assert went.status_code == 200
        (grant,) = await grants(w)
        assert grant.client == by.id and set(grant.scope) == {READ}


async def test_a_passkey_that_was_shown_for_one_question_answers_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by, evil = await client(w), await client(w, "Evil")
        query = asks(by, scope=f"{READ} {DEPLOY}")
        async with visiting(w, "alice") as alice:
            _, options = await question(alice, query, [READ])
            shown = alice.passkey.show(options, alice.origin)
            others: list[tuple[str, list[str], int]] = [
                (query, [READ], 30),  # the same, asked once more
                (query, [READ, DEPLOY], 30),
                (query, [READ], 7),
                (asks(by, scope=f"{READ} {DEPLOY}", state="s-2"), [READ], 30),
                (asks(by, scope=f"{READ} {DEPLOY}", code_challenge="c" * 43), [READ], 30),
                (asks(by, scope=f"{READ} {DEPLOY}", redirect_uri="http://127.0.0.1:7778/callback"), [READ], 30),
                (asks(evil, scope=f"{READ} {DEPLOY}"), [READ], 30),
            ]
            for other in others:
                nonce, _ = await question(alice, *other)
                answered = await alice.post("/authorize/agree", {"nonce": nonce, "answer": shown})
                assert answered.status_code == 403, other
            _, sign_in = await alice.question("/sign-in")
            nonce, _ = await question(alice, query, [READ])
            for_sign_in = alice.passkey.show(sign_in, alice.origin)
            assert (await alice.post("/authorize/agree", {"nonce": nonce, "answer": for_sign_in})).status_code == 403
        assert await grants(w) == []


async def test_an_answer_counts_once_and_not_for_long(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            nonce, options = await question(alice, asks(by, scope=READ), [READ])
            body = {"nonce": nonce, "answer": alice.passkey.show(options, alice.origin)}
            assert (await alice.post("/authorize/agree", body)).status_code == 200
            assert (await alice.post("/authorize/agree", body)).status_code == 409

            nonce, options = await question(alice, asks(by, scope=READ), [READ])
            body = {"nonce": nonce, "answer": alice.passkey.show(options, alice.origin)}
            w.clock.advance(timedelta(minutes=6))
            assert (await alice.post("/authorize/agree", body)).status_code == 409
        assert len(await grants(w)) == 1


async def test_a_cookie_alone_agrees_to_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            unknown = Authenticator()
            nonce, options = await question(alice, asks(by, scope=READ), [READ])
            bodies: list[Any] = [{}, {"answer": None}, {"answer": {}}]
            for body in bodies:
                nonce, options = await question(alice, asks(by, scope=READ), [READ])
                assert (await alice.post("/authorize/agree", {"nonce": nonce, **body})).status_code in {400, 403}
            nonce, options = await question(alice, asks(by, scope=READ), [READ])
            forged = {"nonce": nonce, "answer": unknown.show(options, alice.origin)}
            assert (await alice.post("/authorize/agree", forged)).status_code == 409
            alice.passkey.flags = 0x01  # present, but not recognised
            assert (await agree(alice, asks(by, scope=READ), [READ])).status_code == 403
            assert (await alice.post("/authorize/agree", {"query": asks(by), "scopes": [READ]})).status_code == 409
        assert await grants(w) == []


async def test_a_scope_that_left_the_catalogue_meanwhile_is_not_agreed_to(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            nonce, options = await question(alice, asks(by, scope=READ), [READ])
            shown = alice.passkey.show(options, alice.origin)
            w.running.catalog._by_name = {}  # its server lists nothing any more
            answered = await alice.post("/authorize/agree", {"nonce": nonce, "answer": shown})
            assert answered.status_code == 400 and "open the page again" in answered.text
        assert await grants(w) == []


async def test_a_client_that_calls_itself_otherwise_meanwhile_is_asked_about_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            nonce, options = await question(alice, asks(by, scope=READ), [READ])
            await w.store.update_client(replace(by, name="Claude"), None)
            body = {"nonce": nonce, "answer": alice.passkey.show(options, alice.origin)}
            answered = await alice.post("/authorize/agree", body)
            assert answered.status_code == 409 and "has changed" in answered.text
        assert await grants(w) == []


async def test_what_the_operator_takes_from_clients_is_gone_whatever_was_agreed_to(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            assert (await agree(alice, asks(by, scope=f"{READ} {DEPLOY}"), [READ, DEPLOY])).status_code == 200
    async with world(tmp_path, clients={"ceiling": [READ]}) as w:
        agent = await w.store.agent(AgentName("cursor@alice"))
        assert agent is not None and agent.ceiling == {READ}


async def test_no_client_has_more_by_an_agent_in_its_place_than_the_operator_gives_clients(tmp_path: Path) -> None:
    async with world(tmp_path, clients={"ceiling": [READ]}) as w:
        await w.person("alice")
        await w.agent("coder", ceiling=f"{READ} {DEPLOY}")
        by = await client(w)
        async with visiting(w, "alice") as alice:
            query = asks(by, scope=f"{READ} {DEPLOY}", requested_actor="agent:coder")
            body = {"query": query, "scopes": [READ, DEPLOY], "days": 1}
            assert (await alice.post("/authorize/question", body)).status_code == 400
            assert (await agree(alice, query, [READ], 1)).status_code == 200
        assert [grant.scope for grant in await grants(w)] == [{READ}]
