"""Row 14: a token that its owner hands to another agent is worth nothing at the token endpoint.

The other agent gets authority by a link of its own, under its own name, and by nothing else.
"""

from __future__ import annotations

from pathlib import Path

from tests.oauth.house import JWT, claims_of, house, refused


async def test_a_coder_does_not_exchange_the_token_that_its_planner_handed_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family()
        handed = await h.token(planner)
        for target in ("agent:coder", "agent:planner", ""):
            refused(await h.exchange(coder, handed, requested_actor=target), "invalid_request")
        refused(await h.exchange(coder, handed, JWT), "invalid_request")
        assert await h.store.links(session.id) == (root,)


async def test_an_attempt_to_exchange_somebody_elses_token_is_recorded_by_both_names(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        await h.exchange(coder, await h.token(planner), requested_actor="agent:coder")
        (fields,) = [fields for fields in await h.events("sign-in") if fields["decision"] == "deny"]
        assert fields["actor"] == "agent:coder" and "`planner`" in fields["reason"]


async def test_a_handed_on_token_is_no_assertion_and_no_session_for_who_has_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family()
        handed = await h.token(planner)
        refused(await h.post(coder, grant_type="client_credentials", client_assertion=handed), "invalid_client")
        for claims in ({"session": session.id}, {"delegation": root.id}):
            own = claims_of(await h.token(coder, claims=claims))
            assert own["sub"] == "agent:coder" and "sid" not in own


async def test_the_right_way_leads_to_a_token_in_the_coders_own_name(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        for token in (await h.delegated(planner, coder), (await h.delegate(planner, coder))["access_token"]):
            said = claims_of(token)
            assert (said["client_id"], said["act"]["sub"], said["akt"]) == (
                "coder",
                "agent:coder",
                coder.key.public.thumbprint,
            )


async def test_what_the_planner_gets_for_its_coder_is_worth_nothing_to_the_planner(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        token = (await h.delegate(planner, coder))["access_token"]
        for form in ({"requested_actor": "coder"}, {"requested_token_type": JWT}):
            refused(await h.exchange(planner, token, **form), "invalid_request")
            refused(await h.exchange(planner, token, headers=h.proof(planner.key), **form), "invalid_request")
        refused(await h.exchange(planner, token, JWT), "invalid_request")
        for scheme in ("Bearer", "DPoP"):
            proof = h.proof(planner.key, "/mcp", access_token=token)
            answer = await h.http.post(h.resource, json={}, headers={"Authorization": f"{scheme} {token}", **proof})
            assert answer.status_code == 401


async def test_a_chain_that_was_given_to_the_coder_is_worth_nothing_to_anybody_else(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family()
        stranger = await h.agent("stranger")
        chain = h.derive(await h.root(planner), planner, coder)
        for thief in (planner, stranger):
            refused(await h.exchange(thief, chain, JWT), "invalid_request")
        refused(await h.exchange(coder, await h.root(planner), JWT), "invalid_request")
        assert await h.store.links(session.id) == (root,)
        assert claims_of((await h.redeem(coder, chain))["access_token"])["act"]["sub"] == "agent:coder"
