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


async def test_a_statement_is_not_redeemed_beside_somebody_elses_actor_token(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        statement, planners = await h.delegate(planner, coder), await h.token(planner)
        form = {"actor_token": planners, "actor_token_type": TOKEN}
        refused(await h.exchange(coder, statement, JWT, **form), "invalid_request")
        refused(await h.exchange(coder, statement, JWT, requested_actor="agent:planner"), "invalid_request")
        expect(await h.exchange(coder, statement, JWT, requested_actor="agent:coder"))


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
