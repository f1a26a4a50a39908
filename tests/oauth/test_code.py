"""A person's consent becomes a client's token: the authorization code, for its client, with its verifier, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.errors import TokenRefused
from mcp_authz.limits import SESSION_LIFETIME
from mcp_authz.principals import AgentName, Mode, PersonName
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.house import CALLBACK, SIGNED_IN, TOKEN, VERIFIER, claims_of, expect, house, refused


async def test_a_code_and_its_verifier_give_a_token_of_the_client_agent_for_the_person(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app, scope="pr issue:read")
        assert said["token_type"] == "Bearer" and said["subject"] == "user:alice" and said["refresh_token"]
        assert 0 < said["expires_in"] <= 600
        assert said["scope"] == "issue:read mcp:connect pr"
        claims = claims_of(said["access_token"])
        assert claims["client_id"] == app.id and claims["sub"] == "user:alice" and "akt" not in claims
        assert claims["act"]["sub"] == "agent:cursor@alice" and claims["mode"] == "delegated"
        assert claims["auth_time"] == int(SIGNED_IN.at.timestamp()) and claims["amr"] == ["swk", "user"]
        caller = await h.caller(said["access_token"])
        assert caller.session is not None and caller.session.mode is Mode.DELEGATED
        assert caller.session.purpose == "signed in through Cursor"
        assert (caller.agent.name, caller.key) == ("cursor@alice", None)


async def test_the_record_of_a_sign_in_names_person_client_and_grant(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app)
        (recorded,) = await h.events("sign-in")
        caller = await h.caller(said["access_token"])
        assert caller.grant is not None
        assert recorded["summary"] == "cursor@alice signed in for alice"
        assert (recorded["client"], recorded["grant"], recorded["subject"]) == (app.id, caller.grant.id, "user:alice")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
async def test_a_client_that_proves_itself_gets_its_token_the_same_way(tmp_path: Path, method: Any) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method=method)
        assert claims_of((await h.signed_in(app))["access_token"])["client_id"] == app.id


@pytest.mark.parametrize(
    "form",
    [
        {"code_verifier": None},
        {"code_verifier": "w" * 43},
        {"code_verifier": VERIFIER[:-1]},
        {"code_verifier": f"{VERIFIER}v"},
        {"redirect_uri": None},
        {"redirect_uri": "http://127.0.0.1:3001/callback"},
        {"redirect_uri": f"{CALLBACK}/"},
        {"redirect_uri": CALLBACK.replace("127.0.0.1", "localhost")},
        {"resource": "https://other.example/mcp"},
        {"code": None},
        {"code": "x" * 300},
        {"code": "unknown"},
        {"client_id": "cursor"},
        {"client_id": None},
    ],
    ids=str,
)
async def test_a_request_with_a_part_missing_or_wrong_gets_nothing_and_ends_nothing(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        code = await h.agreed(app)
        answer = await h.redeem_code(app, code, **form)
        assert answer.status_code == 400
        assert answer.json()["error"] in {"invalid_request", "invalid_grant", "invalid_target", "invalid_client"}
        assert await h.events("session") == []
        expect(await h.redeem_code(app, code))


async def test_what_is_wrong_with_a_strangers_code_is_counted_and_not_recorded(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        refused(await h.redeem_code(app, "unknown"), "invalid_grant")
        refused(await h.redeem_code(app, await h.agreed(app), code_verifier="w" * 43), "invalid_grant")
        assert await h.events("sign-in") == []
        assert h.refusals == {"invalid_grant: no such code": 1, "invalid_grant": 1}


async def test_a_client_that_proved_itself_is_recorded_when_it_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_post")
        refused(await h.redeem_code(app, "unknown"), "invalid_grant")
        (recorded,) = await h.events("sign-in")
        assert (recorded["actor"], recorded["decision"]) == ("client:cursor-id", "deny")
        assert not h.refusals


async def test_a_code_lives_for_a_minute(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        code = await h.agreed(app)
        h.clock.advance(seconds=61)
        refused(await h.redeem_code(app, code), "invalid_grant")


@pytest.mark.parametrize("what", ["grant", "agent", "person", "client"])
async def test_a_code_gives_nothing_once_what_it_stands_on_was_revoked(tmp_path: Path, what: str) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        code = await h.agreed(app)
        (grant,) = await h.store.client_grants(app.id, PersonName("alice"), AgentName("cursor@alice"))
        named = {"grant": grant.id, "agent": "cursor@alice", "person": "alice", "client": app.id}[what]
        await h.revoke(what, named)
        refused(await h.redeem_code(app, code), "invalid_client" if what == "client" else "invalid_grant")


async def test_a_code_that_is_bound_to_a_key_needs_a_proof_by_that_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, key = await h.client(), PrivateKey.generate()
        code = await h.agreed(app, confirmation=key.public.thumbprint)
        refused(await h.redeem_code(app, code), "invalid_grant")
        refused(await h.redeem_code(app, code, headers=h.proof(PrivateKey.generate())), "invalid_grant")
        said = expect(await h.redeem_code(app, code, headers=h.proof(key)))
        assert said["token_type"] == "DPoP"
        assert claims_of(said["access_token"])["cnf"] == {"jkt": key.public.thumbprint}


async def test_a_proof_of_possession_counts_once_also_for_a_public_client(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, header = await h.client(), h.proof(PrivateKey.generate())
        expect(await h.redeem_code(app, await h.agreed(app), headers=header))
        refused(await h.redeem_code(app, await h.agreed(app), headers=header), "invalid_dpop_proof")


async def test_a_token_carries_no_more_than_the_ceiling_that_was_written_at_consent(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        said = await h.signed_in(await h.client(), scope="pr issue:read", ceiling="pr")
        assert said["scope"] == "mcp:connect pr"


async def test_the_session_ends_with_the_grant_at_the_latest(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app, days=1)
        caller = await h.caller(said["access_token"])
        assert caller.session is not None and caller.session.expires_at - caller.session.started_at <= SESSION_LIFETIME


async def test_an_agent_that_was_named_to_act_gets_its_own_token_by_its_own_proof(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, coder = await h.client(), await h.agent("coder", "pr secret:read")
        code = await h.agreed(app, actor=coder)
        own = await h.token(coder)
        said = expect(await h.redeem_code(app, code, actor_token=own, actor_token_type=TOKEN))
        assert "refresh_token" not in said
        token = h.read(said["access_token"])
        assert (token.client_id, token.actor, token.key) == ("coder", "coder", coder.key.public.thumbprint)
        assert (token.subject, token.scope) == ("user:alice", {"mcp:connect", "pr"})
        assert (await h.caller(said["access_token"])).session is not None
        recorded = (await h.events("sign-in"))[-1]
        assert recorded["client"] == app.id and recorded["actor"] == "agent:coder"


async def test_an_agent_that_was_named_to_act_may_redeem_the_code_itself(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, coder, other = await h.client(), await h.agent("coder"), await h.agent("other")
        code = await h.agreed(app, actor=coder)
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        refused(await h.post(other, **form), "invalid_grant")
        said = expect(await h.post(coder, **form))
        assert h.read(said["access_token"]).actor == "coder"


async def test_without_a_token_of_the_agent_that_was_named_nobody_gets_one(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, coder, other = await h.client(), await h.agent("coder"), await h.agent("other")
        code = await h.agreed(app, actor=coder)
        refused(await h.redeem_code(app, code), "invalid_request")
        for text in (await h.token(other), "nonsense", (await h.signed_in(app))["access_token"]):
            refused(await h.redeem_code(app, code, actor_token=text, actor_token_type=TOKEN), "invalid_request")
        own = await h.token(coder)
        refused(await h.redeem_code(app, code, actor_token=own), "invalid_request")
        await h.revoke("key", coder.key.public.thumbprint)
        refused(await h.redeem_code(app, code, actor_token=own, actor_token_type=TOKEN), "invalid_grant")


async def test_an_actor_token_that_is_bound_to_a_key_needs_its_proof(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, coder, key = await h.client(), await h.agent("coder"), PrivateKey.generate()
        code = await h.agreed(app, actor=coder)
        own = await h.token(coder, headers=h.proof(key))
        form = {"actor_token": own, "actor_token_type": TOKEN}
        refused(await h.redeem_code(app, code, **form), "invalid_dpop_proof")
        said = expect(await h.redeem_code(app, code, headers=h.proof(key), **form))
        assert claims_of(said["access_token"])["cnf"] == {"jkt": key.public.thumbprint}


async def test_a_code_for_the_client_itself_takes_no_other_actor(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, coder = await h.client(), await h.agent("coder")
        code = await h.agreed(app)
        own = await h.token(coder)
        refused(await h.redeem_code(app, code, actor_token=own, actor_token_type=TOKEN), "invalid_request")


async def test_of_ten_redemptions_at_once_one_at_most_gives_a_token_and_its_grant_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        code, given = await h.agreed(app), list[dict[str, Any]]()

        async def redeem() -> None:
            answer = await h.redeem_code(app, code)
            if answer.status_code == 200:
                given.append(answer.json())
            else:
                refused(answer, "invalid_grant")

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(redeem)
        assert len(given) == 1
        with pytest.raises(TokenRefused, match="grant"):
            await h.caller(given[0]["access_token"])
        (revoked,) = await h.events("revocation")
        assert "used the same code twice" in revoked["summary"]


async def test_a_nonce_that_is_asked_for_first_costs_neither_code_nor_refresh_token(tmp_path: Path) -> None:
    async with house(tmp_path, demand_nonce=True) as h:
        app, key = await h.client(), PrivateKey.generate()
        code = await h.agreed(app)
        answer = await h.redeem_code(app, code, headers=h.proof(key))
        refused(answer, "use_dpop_nonce")
        nonce = answer.headers["dpop-nonce"]
        said = expect(await h.redeem_code(app, code, headers=h.proof(key, nonce=nonce)))
        refused(await h.refresh(app, said["refresh_token"], headers=h.proof(key)), "use_dpop_nonce")
        expect(await h.refresh(app, said["refresh_token"], headers=h.proof(key, nonce=nonce)))
        assert not h.refusals


async def test_a_public_client_spends_no_proof_before_it_has_shown_a_code_that_counts(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, header = await h.client(), h.proof(PrivateKey.generate())
        refused(await h.redeem_code(app, "unknown", headers=header), "invalid_grant")
        refused(await h.refresh(app, "unknown", headers=header), "invalid_grant")
        expect(await h.redeem_code(app, await h.agreed(app), headers=header))
