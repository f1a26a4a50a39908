"""Consent: what is asked again, what is remembered, who may act, and what is in the store when a person agreed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from mcp_authz import limits
from mcp_authz.agents import Agents, People
from mcp_authz.authorization import RegisteredClient
from mcp_authz.clients import Clients
from mcp_authz.consent import Asking, Consents, SentBack, SignInAgain, Terms
from mcp_authz.enterprise import is_by_assertion
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound
from mcp_authz.model import Hazard, Tool, ToolName
from mcp_authz.passkey import SignIn
from mcp_authz.principals import AgentName, Authentication, ClientId, PersonName, SessionId
from mcp_authz.rules.keys import PrivateKey, Sealer
from mcp_authz.rules.scope import DECIDE, Scope, parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.step_ups import StepUp, StepUps
from mcp_authz.store.ports import Event, Store
from mcp_authz.store.sqlite import SqliteStore
from tests.oauth.house import Clock
from tests.rules.test_consent import TOOLS

ISSUER, RESOURCE = "https://gateway.example", "https://gateway.example/mcp"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
READS, WRITES = Scope("files:read"), Scope("files:write")


@dataclass
class Desk:
    """A store with two people and three clients, and the question of consent over it."""

    store: Store
    clock: Clock
    consents: Consents
    step_ups: StepUps
    clients: dict[str, RegisteredClient]

    async def asking(self, client: str = "notebook", **more: str | None) -> Asking:
        found = await self.consents.read(self.query(client, **more))
        assert isinstance(found, Asking), found
        return found

    def query(self, client: str = "notebook", **more: str | None) -> str:
        params: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.clients[client].id,
            "redirect_uri": self.clients[client].redirect_uris[0],
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "state": "xyz",
            **more,
        }
        return urlencode({name: value for name, value in params.items() if value is not None})

    def who(self, name: str = "alice", *, ago: timedelta = timedelta(), passkey: bool = True) -> SignIn:
        at = self.clock() - ago
        return SignIn(
            digest=b"d" * 32,
            person=PersonName(name),
            credential=b"c" if passkey else None,
            authentication=Authentication(at=at, amr=("swk", "user"), issuer=None if passkey else "https://id.example"),
            began_at=at,
            last_used_at=at,
            expires_at=at + limits.SIGN_IN_LIFETIME,
        )

    async def agree(
        self, chosen: Sequence[Scope], client: str = "notebook", *, name: str = "alice", days: int = 30, **more: str
    ) -> dict[str, str]:
        asking = await self.asking(client, **more)
        return answer(await self.consents.agree(asking, self.who(name), chosen=frozenset(chosen), days=days))

    async def events(self) -> list[Event]:
        return [record.event for record in await self.store.records(kind="grant", limit=100)]


def answer(url: str) -> dict[str, str]:
    return {name: value[0] for name, value in parse_qs(urlsplit(url).query).items()}


async def unreachable(url: str) -> bytes:
    raise AssertionError(f"nothing is fetched here: {url}")


@asynccontextmanager
async def desk(directory: Path, *, ceiling: frozenset[Scope] | None = None) -> AsyncIterator[Desk]:
    clock = Clock()
    store = SqliteStore.open(directory / "store.db", sealer=Sealer(b"k" * 32), clock=clock)
    try:
        for name in ("alice", "bob"):
            await People(store, clock).add(name, by="user:operator")
        step_ups = StepUps(clock)
        clients = Clients(store, clock, unreachable, schemes=("cursor",), dynamic=False)
        known = {}
        for handle, redirect, method in (
            ("notebook", "http://127.0.0.1/callback", "none"),
            ("portal", "https://portal.example/callback", "private_key_jwt"),
            ("public", "https://public.example/callback", "none"),
        ):
            known[handle] = RegisteredClient(
                id=ClientId(handle),
                handle=handle,
                name=handle.title(),
                kind="registered",
                redirect_uris=(redirect,),
                method=method,  # type: ignore[arg-type]
                jwks={"keys": [PrivateKey.generate().public.jwk]} if method == "private_key_jwt" else None,
                registered_at=clock(),
            )
            await store.add_client(known[handle], Event(kind="administration", at=clock(), fields={}))
        consents = Consents(
            store=store,
            clock=clock,
            clients=clients,
            tools=lambda: TOOLS,
            terms=Terms(ceiling=ceiling, words={}, lifetime=timedelta(days=30), is_held=_destroys, has=_is_there),
            step_ups=step_ups,
            issuer=ISSUER,
            resource=RESOURCE,
        )
        yield Desk(store, clock, consents, step_ups, known)
    finally:
        await store.aclose()


def _is_there(tool: Tool) -> bool:
    return tool.method == "tools/call"  # the server of these tools knows no other method


def _destroys(tool: Tool) -> bool:
    return tool.classification.hazard is Hazard.DESTRUCTIVE


async def test_agreeing_makes_the_persons_own_agent_a_grant_and_a_code(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        told = await d.agree([READS], days=7)
        code = await d.store.code(hashlib.sha256(told["code"].encode()).digest())
        agent = await d.store.client_agent(ClientId("notebook"), PersonName("alice"))
        assert code is not None and agent is not None
        grant = await d.store.grant(code.grant)
        (event,) = await d.events()
    assert grant is not None and told == {"code": told["code"], "state": "xyz", "iss": ISSUER}
    assert (agent.name, agent.owner, agent.depth, agent.interactive) == ("notebook@alice", "alice", 0, False)
    assert (grant.subject, grant.agent, grant.client, grant.scope) == ("alice", "notebook@alice", "notebook", {READS})
    assert timedelta(days=6, hours=23) < grant.expires_at - d.clock() <= timedelta(days=7)
    assert grant.authentication is not None and grant.authentication.amr == ("swk", "user")
    assert (code.client, code.challenge, code.agent) == ("notebook", CHALLENGE, "notebook@alice")
    assert event.fields["by"] == "user:alice" and told["code"] not in str(event.fields)


async def test_two_people_of_one_client_have_an_agent_each(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS])
        await d.agree([WRITES], name="bob")
        grants = {(grant.subject, grant.agent, grant.scope) for grant in await d.store.grants()}
    assert grants == {("alice", "notebook@alice", frozenset([READS])), ("bob", "notebook@bob", frozenset([WRITES]))}


async def test_only_the_difference_is_asked_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS])
        question = await d.consents.question(await d.asking(scope="mcp:connect files:read files:write"), d.who())
        assert [(one.scope, one.chosen) for one in question.offered] == [(WRITES, True)]
        assert [one.scope for one in question.already] == [READS] and not question.is_remembered
        await d.agree([READS, WRITES], scope="files:read files:write")
        again = await d.consents.question(await d.asking(scope="files:write"), d.who())
    assert again.offered == () and [one.scope for one in again.already] == [WRITES] and again.is_remembered


async def test_a_client_that_names_no_scope_is_asked_shortly_when_it_comes_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.consents.question(await d.asking(scope="mcp:connect"), d.who())
        assert {one.scope for one in first.offered if one.chosen} == {READS} and not first.is_remembered
        await d.agree([READS])
        second = await d.consents.question(await d.asking(scope="mcp:connect"), d.who())
    assert second.is_remembered and not any(one.chosen for one in second.offered)
    assert [one.scope for one in second.already] == [READS]


async def test_nothing_is_agreed_to_that_was_not_offered(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        for scope, chosen in (("files:read", WRITES), ("files:read", Scope("files")), ("files:read", Scope("*"))):
            with pytest.raises(InputError):
                await d.agree([chosen], scope=scope)
        for days in (0, 31, -1):
            with pytest.raises(InputError):
                await d.agree([READS], days=days)
        assert await d.store.grants() == ()


async def test_the_operators_ceiling_bounds_what_is_offered(tmp_path: Path) -> None:
    async with desk(tmp_path, ceiling=parse_scopes("files:read")) as d:
        question = await d.consents.question(await d.asking(), d.who())
        assert {one.scope for one in question.offered} == {READS}
        with pytest.raises(InputError):
            await d.agree([WRITES])


async def test_what_was_taken_back_is_asked_anew(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS])
        (grant,) = await d.store.grants()
        await d.store.revoke("grant", grant.id, Event(kind="revocation", at=d.clock(), fields={}))
        question = await d.consents.question(await d.asking(), d.who())
    assert question.already == ()


async def test_an_agent_that_an_operator_stopped_is_not_brought_back_by_a_click(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS])
        await d.store.revoke("agent", "notebook@alice", Event(kind="revocation", at=d.clock(), fields={}))
        with pytest.raises(Conflict, match="operator"):
            await d.agree([READS])
        await d.agree([READS], name="bob")
        await d.store.revoke("client", "notebook", Event(kind="revocation", at=d.clock(), fields={}))
        with pytest.raises(AuthzError):
            await d.asking()


@pytest.mark.parametrize("client", ["notebook", "public"])
async def test_a_client_that_proves_nothing_is_never_remembered(tmp_path: Path, client: str) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS], client)
        assert await d.consents.remembered(await d.asking(client), d.who()) is None


async def test_a_client_with_a_key_and_an_address_is_remembered_for_the_same_and_no_longer(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is None
        await d.agree([READS], "portal", days=3)
        d.clock.advance(days=1)
        url = await d.consents.remembered(await d.asking("portal"), d.who())
        assert url is not None and url.startswith("https://portal.example/callback?")
        first, second = await d.store.grants()
        assert (second.scope, second.expires_at) == (first.scope, first.expires_at)
        wider = await d.asking("portal", scope="files:read files:write")
        assert await d.consents.remembered(wider, d.who()) is None
        for more in ({"prompt": "consent"}, {"prompt": "login"}, {"max_age": "60"}):
            assert await d.consents.remembered(await d.asking("portal", **more), d.who()) is None
        assert await d.consents.remembered(await d.asking("portal"), d.who("bob")) is None
        d.clock.advance(days=3)
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is None


async def test_in_the_last_hours_the_person_is_asked_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS], "portal", days=1)
        d.clock.advance(hours=11)
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is not None
        assert not any(map(is_by_assertion, await d.store.grants()))
        d.clock.advance(hours=2)
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is None


async def test_what_a_person_agreed_to_is_not_ended_by_leading_them_past_the_page(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS], "portal")
        for _ in range(1, limits.GRANTS_PER_CLIENT):
            assert await d.consents.remembered(await d.asking("portal"), d.who()) is not None
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is None
        grants = await d.store.grants()
    assert [grant.status for grant in grants] == ["active"] * limits.GRANTS_PER_CLIENT


async def test_a_client_that_is_another_than_was_agreed_to_is_not_remembered(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS], "portal")
        d.clock.advance(hours=1)
        other = replace(d.clients["portal"], redirect_uris=("https://evil.example/callback",), registered_at=d.clock())
        await d.store.update_client(other, None)
        d.clients["portal"] = other
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is None
        await d.agree([READS], "portal")
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is not None


@pytest.mark.parametrize("what", ["session", "link"])
async def test_what_somebody_ended_does_not_come_back_by_itself(
    tmp_path: Path, what: Literal["session", "link"]
) -> None:
    async with desk(tmp_path) as d:
        told = await d.agree([READS], "portal")
        (grant,) = await d.store.grants()
        opened = await Sessions(d.store, d.clock).prepare(grant, purpose="signed in", by="agent:portal@alice")
        await d.store.redeem_code(hashlib.sha256(told["code"].encode()).digest(), opened, None)
        d.clock.advance(seconds=1)
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is not None
        for one in (await d.store.grants())[1:]:
            await d.store.revoke("grant", one.id, Event(kind="revocation", at=d.clock(), fields={}))
        ended = opened[0].id if what == "session" else opened[1].id
        await d.store.revoke(what, ended, Event(kind="revocation", at=d.clock(), fields={}))
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is None


async def test_the_call_that_asked_is_named_until_the_person_has_answered(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        asked = StepUp(
            agent=AgentName("notebook@alice"),
            session=SessionId("s"),
            tool=ToolName("files__write"),
            scopes=(WRITES,),
            at=d.clock(),
        )
        d.step_ups.note(asked)
        asking = await d.asking(scope="files:write")
        assert (await d.consents.question(asking, d.who())).because == asked
        assert (await d.consents.question(asking, d.who("bob"))).because is None
        await d.consents.refuse(asking, d.who())
        assert (await d.consents.question(asking, d.who())).because is None


async def test_refusing_is_on_record_and_tells_the_client(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        told = answer(await d.consents.refuse(await d.asking(), d.who()))
        (event,) = await d.events()
        assert await d.store.grants() == ()
    assert (told["error"], told["state"], told["iss"]) == ("access_denied", "xyz", ISSUER)
    assert event.fields["decision"] == "deny" and event.fields["subject"] == "user:alice"


@pytest.mark.parametrize("more", [{"prompt": "login"}, {"max_age": "300"}])
async def test_a_request_for_a_fresh_sign_in_is_not_answered_by_an_old_one(
    tmp_path: Path, more: dict[str, str]
) -> None:
    async with desk(tmp_path) as d:
        asking, old = await d.asking(**more), d.who(ago=timedelta(hours=1), passkey=False)
        with pytest.raises(SignInAgain):
            await d.consents.question(asking, old)
        with pytest.raises(SignInAgain):
            await d.consents.agree(asking, old, chosen=frozenset([READS]), days=1)
        fresh = d.who(passkey=False)
        assert (await d.consents.question(asking, fresh)).offered
        assert answer(await d.consents.agree(asking, fresh, chosen=frozenset([READS]), days=1))["code"]


async def test_a_policy_that_wants_a_fresh_sign_in_has_it_whatever_the_client_says(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS])
        asked = StepUp(
            agent=AgentName("notebook@alice"),
            session=SessionId("s"),
            tool=ToolName("files__read"),
            max_age=timedelta(minutes=5),
            at=d.clock(),
        )
        d.step_ups.note(asked)
        with pytest.raises(SignInAgain):
            await d.consents.question(await d.asking(), d.who(ago=timedelta(minutes=20), passkey=False))


async def test_what_is_wrong_with_a_request_goes_back_only_where_its_client_is_registered(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        back = await d.consents.read(d.query(code_challenge=None))
        assert isinstance(back, SentBack) and back.url.startswith("http://127.0.0.1/callback?")
        assert answer(back.url)["error"] == "invalid_request"
        for wrong in (
            d.query(redirect_uri="https://evil.example/callback", code_challenge=None),
            d.query(redirect_uri=None),
            d.query("portal", redirect_uri="https://portal.example/callback/"),
        ):
            with pytest.raises(InputError) as refused:
                await d.consents.read(wrong)
            assert "evil" not in str(refused.value)
        with pytest.raises(InputError, match=r"registered to be; it is at `http://127\.0\.0\.1/callback`"):
            await d.consents.read(d.query(redirect_uri="http://localhost/callback"))
        with pytest.raises(NotFound):
            await d.consents.read(d.query(client_id="nobody"))


async def test_a_registered_agent_can_act_in_the_clients_place(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await Agents(d.store, d.clock).add(
            "coder", owner="bob", ceiling=parse_scopes("files:read"), key=PrivateKey.generate().public, by="user:op"
        )
        asking = await d.asking(requested_actor="agent:coder")
        question = await d.consents.question(asking, d.who())
        assert (question.agent, question.stands_in) == ("coder", True)
        assert {one.scope for one in question.offered} == {READS}  # no more than the agent may have
        told = answer(await d.consents.agree(asking, d.who(), chosen=frozenset([READS]), days=1))
        code = await d.store.code(hashlib.sha256(told["code"].encode()).digest())
        assert code is not None and code.agent == "coder"
        with pytest.raises(Conflict):
            await d.consents.question(await d.asking(requested_actor="agent:unknown"), d.who())
        assert isinstance(await d.consents.read(d.query(requested_actor="agent:notebook@alice")), SentBack)


async def test_one_person_has_a_bounded_number_of_grants_to_one_client(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        for _ in range(limits.GRANTS_PER_CLIENT + 2):
            await d.agree([READS])
            d.clock.advance(seconds=1)
        grants = await d.store.grants()
    assert [grant.status for grant in grants] == ["revoked"] * 2 + ["active"] * limits.GRANTS_PER_CLIENT


async def test_two_clients_that_call_themselves_alike_are_two_agents(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS])
        asking = await d.asking()
        other = replace(asking, client=replace(asking.client, id=ClientId("https://other.example/client.json")))
        await d.consents.agree(other, d.who(), chosen=frozenset([WRITES]), days=1)
        agents = {grant.agent for grant in await d.store.grants()}
    assert agents == {"notebook@alice", "notebook-2@alice"}


async def test_leave_to_answer_held_calls_is_off_unless_the_client_asks_for_it_by_name(tmp_path: Path) -> None:
    async with desk(tmp_path, ceiling=frozenset([Scope("*")])) as d:
        asked = {}
        for scope in ("mcp:connect", DECIDE, "files:read", "*", "holds", "holds:* files:read"):
            question = await d.consents.question(await d.asking(scope=scope), d.who())
            assert DECIDE not in {one.scope for one in (*question.offered, *question.already)}
            asked[scope] = None if question.deciding is None else question.deciding.chosen
        with pytest.raises(InputError):
            await d.agree([READS, DECIDE], scope="files:read")
        await d.agree([DECIDE], scope="mcp:connect")  # the person ticked it
        (grant,) = await d.store.grants()
        agent = await d.store.client_agent(ClientId("notebook"), PersonName("alice"))
    none = dict.fromkeys(["files:read", "*", "holds", "holds:* files:read"])
    assert asked == {"mcp:connect": False, DECIDE: True, **none}
    assert grant.scope == {DECIDE} and agent is not None and DECIDE not in agent.ceiling


async def test_leave_to_answer_held_calls_is_asked_for_each_time(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.agree([READS], "portal")
        assert await d.consents.remembered(await d.asking("portal"), d.who()) is not None
        assert await d.consents.remembered(await d.asking("portal", scope=f"files:read {DECIDE}"), d.who()) is None
        await d.agree([READS, DECIDE], "portal")
        for scope in ("mcp:connect", f"files:read {DECIDE}", DECIDE):
            asking = await d.asking("portal", scope=scope)
            assert await d.consents.remembered(asking, d.who()) is None, scope
            question = await d.consents.question(asking, d.who())
            assert question.decided_before and not question.is_remembered
            assert question.deciding is not None and question.deciding.chosen == (DECIDE in scope)


async def test_no_agent_in_a_clients_place_is_given_leave_to_answer_held_calls(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await Agents(d.store, d.clock).add("coder", owner="alice", ceiling=parse_scopes("files"), by="user:operator")
        asked = {"requested_actor": "agent:coder", "scope": f"files:read {DECIDE}"}
        question = await d.consents.question(await d.asking(**asked), d.who())
        assert question.deciding is None
        with pytest.raises(InputError):
            await d.agree([READS, DECIDE], **asked)
