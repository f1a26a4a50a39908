"""Threat 28: a client accepts every prompt by itself, so a prompt counts only where an operator said that it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp_types import ElicitResult

from mcp_authz.model import HoldState
from mcp_authz.rules.session_request import NAME
from tests.world import LEGACY, MODERN, Actor, Called, World, called, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
ASK = {"purpose": "everything, for as long as possible", "minutes": 720}
CALLS = {"a destructive call": ("acme__deploy", DEPLOY), "a session": (NAME, ASK)}


class Accepting:
    """A client that says yes to whatever it is asked, and more than that."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked += params.mode == "form"  # that an address was opened is no answer
        return ElicitResult(action="accept", content={"approve": True, "minutes": 720, "assurance": "passkey"})


async def accepting(w: World, actor: Actor, mode: str, tool: str, arguments: Any) -> tuple[Called, int]:
    """One call by a client that accepts by itself, and how often it was asked."""
    client_side = Accepting()
    async with w.client(actor, mode, elicitation_callback=client_side) as client:
        return await called(client, tool, arguments), client_side.asked


def both_calls(test: Any) -> Any:
    test = pytest.mark.parametrize("mode", [MODERN, LEGACY])(test)
    return pytest.mark.parametrize("call", CALLS)(test)


@both_calls
async def test_the_client_of_an_agent_that_is_not_interactive_is_not_asked(
    tmp_path: Path, call: str, mode: str
) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        held, asked = await accepting(w, coder, mode, *CALLS[call])
        assert held.is_held and asked == 0 and w.deployments() == []
        assert len(await w.store.sessions()) == 1


@both_calls
async def test_a_rule_that_asks_for_a_person_takes_no_word_of_a_client(tmp_path: Path, call: str, mode: str) -> None:
    rules = {"destructive": {"by": ["subject"], "assurance": "passkey"}}
    async with world(tmp_path, approval=rules) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        held, asked = await accepting(w, coder, mode, *CALLS[call])
        assert held.is_held and asked == 0 and w.deployments() == []
        assert len(await w.store.sessions()) == 1


async def test_where_a_prompt_may_answer_it_is_recorded_as_the_clients_word_and_no_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        done, asked = await accepting(w, coder, MODERN, "acme__deploy", DEPLOY)
        assert not done.is_error and asked == 1
        (approval,) = [record.event.fields for record in await w.records("approval")]
        assert approval["assurance"] == "client"
        (permit,) = [fields for fields in await w.decisions() if fields["decision"] == "permit"]
        assert permit["approval"]["assurance"] == "client"


async def test_a_client_that_accepts_more_minutes_than_were_asked_for_opens_no_session(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        held, asked = await accepting(w, coder, LEGACY, NAME, {**ASK, "minutes": 10})
        assert asked == 1 and held.is_held
        assert (await w.store.hold(held.hold)).state is HoldState.PENDING and len(await w.store.sessions()) == 1


async def test_an_accepted_session_is_no_more_than_the_person_agreed_to_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="deploy secret", interactive=True)
        await w.grant("alice", "coder", "deploy")
        opened, _ = await accepting(w, coder, MODERN, NAME, ASK)
        assert opened.envelope["outcome"] == "session", opened.text
        (session,) = [s for s in await w.store.sessions() if s.status == "active"]
        (root,) = await w.store.links(session.id)
        assert root.scope == {"deploy"} and "acme__read_secret" not in root.tools


async def test_a_client_does_not_consent_for_a_person_who_never_let_its_agent_act(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="deploy", owner="alice", interactive=True)
        held, asked = await accepting(w, coder, MODERN, NAME, ASK)
        assert held.is_held and asked == 0 and await w.store.grants() == ()
