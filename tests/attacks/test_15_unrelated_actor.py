"""Row 15: a subject token beside somebody else's actor token is refused, in every combination."""

from __future__ import annotations

from pathlib import Path

from tests.oauth.house import JWT, TOKEN, expect, house, refused


async def test_both_tokens_are_the_clients_own_or_nothing_is_issued(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family()
        stranger = await h.agent("stranger")
        tokens = {actor.name: await h.token(actor) for actor in (planner, coder, stranger)}
        for client in (planner, coder, stranger):
            for subject, subject_token in tokens.items():
                for actor, actor_token in tokens.items():
                    if client.name == subject == actor:
                        continue
                    answer = await h.exchange(
                        client,
                        subject_token,
                        actor_token=actor_token,
                        actor_token_type=TOKEN,
                        requested_actor="agent:coder",
                    )
                    refused(answer, "invalid_request")
        assert await h.store.links(session.id) == (root,)


async def test_a_chain_is_not_redeemed_beside_somebody_elses_actor_token(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        planners = await h.token(planner)
        chain = h.derive(await h.root(planner, planners), planner, coder)
        form = {"actor_token": planners, "actor_token_type": TOKEN}
        refused(await h.exchange(coder, chain, JWT, **form), "invalid_request")
        refused(await h.exchange(coder, chain, JWT, requested_actor="agent:planner"), "invalid_request")
        own = {"actor_token": await h.token(coder), "actor_token_type": TOKEN}
        expect(await h.exchange(coder, chain, JWT, requested_actor="agent:coder", **own))


async def test_a_bound_actor_token_counts_with_its_keys_proof_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        bound = (await h.delegate(planner, coder))["access_token"]
        chain = h.derive(await h.root(planner), planner, coder)
        form = {"actor_token": bound, "actor_token_type": TOKEN}
        refused(await h.exchange(coder, chain, JWT, **form), "invalid_dpop_proof")
        refused(await h.exchange(coder, chain, JWT, headers=h.proof(planner.key), **form), "invalid_dpop_proof")
        expect(await h.exchange(coder, chain, JWT, headers=h.proof(coder.key), **form))


async def test_an_actor_token_without_its_type_or_of_another_type_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        own = await h.token(planner)
        for form in (
            {"actor_token": own},
            {"actor_token_type": TOKEN},
            {"actor_token": own, "actor_token_type": JWT},
        ):
            refused(await h.exchange(planner, own, requested_actor=coder.name, **form), "invalid_request")


async def test_an_actor_token_of_another_session_or_person_stands_beside_no_other(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, session, _ = await h.family()
        await h.person("bob")
        others = [(await h.start(planner))[0], (await h.start(planner, subject="bob"))[0]]
        own = await h.token(planner, claims={"session": session.id})
        for other in others:
            form = {"actor_token": await h.token(planner, claims={"session": other.id}), "actor_token_type": TOKEN}
            for asked in ({"requested_actor": "agent:coder"}, {"requested_token_type": JWT}):
                refused(await h.exchange(planner, own, **asked, **form), "invalid_request")
        same = {"actor_token": await h.token(planner, claims={"session": session.id}), "actor_token_type": TOKEN}
        expect(await h.exchange(planner, own, requested_actor="agent:coder", **same))
