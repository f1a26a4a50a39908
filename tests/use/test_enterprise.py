"""Sessions that a company's identity provider opens: for whom, for what, and when none is opened."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.authorization import Identity, RegisteredClient
from mcp_authz.clients import Clients
from mcp_authz.config import parse_config
from mcp_authz.enterprise import Enterprise, NothingGiven, NotTrusted, Trust, Trusted, is_by_assertion
from mcp_authz.errors import Conflict, FetchRefused, NotFound, SignatureRefused, TokenRefused
from mcp_authz.people_elsewhere import NotAdmitted, Provider
from mcp_authz.principals import Agent, ClientId, Grant, GrantId, PersonName, Proof, Thumbprint
from mcp_authz.provider_keys import ProviderKeys
from mcp_authz.renewing import Renewed
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import Event
from mcp_authz.vouching import known_by, trust_of
from tests.identity_provider import OTHER_RSA, RSA, IdentityProvider, public, signed
from tests.oauth.house import House, claims_of, office
from tests.use.test_consent import desk

ISSUER = "https://login.example.com"
PROVIDER = Provider(issuer=ISSUER, client_id="", name="login.example.com", groups={"Engineering": "engineers"})
CURSOR = Trusted(scope=parse_scopes("pr deploy:staging"), known_as="cursor")


@dataclass
class Keys:
    """What the provider publishes, and how often it was asked."""

    published: list[dict[str, Any]]
    asked: int = 0
    is_down: bool = False
    answers: anyio.Event | None = None  # when it does, where it takes its time
    is_asked: anyio.Event = field(default_factory=anyio.Event)  # while that is so

    async def __call__(self) -> bytes:
        self.asked += 1
        if self.answers is not None:
            self.is_asked.set()
            await self.answers.wait()
        if self.is_down:
            raise FetchRefused("the provider is away")
        return json.dumps({"keys": self.published}).encode()


@dataclass
class Firm:
    """An authorization server and what takes the assertions of its company's provider."""

    house: House
    keys: Keys
    provider: IdentityProvider
    enterprise: Enterprise
    client: RegisteredClient

    def assertion(self, sub: str = "U1", *, key: Any = RSA, **claims: Any) -> str:
        said = self.provider.claims(sub, self.house.issuer, "cursor", **{"scope": "pr:read", **claims})
        return signed(said, key=key)

    async def open(
        self, text: str | None = None, *, asked: str | None = None, shown: str | None = None, **claims: Any
    ) -> Renewed:
        """What the client gets for an assertion."""
        text = self.assertion(**claims) if text is None else text
        await self.enterprise.ready(text)
        thumbprint = None if shown is None else Thumbprint(shown)
        assertion = await self.enterprise.read(self.client, text, shown=thumbprint)
        return await self.enterprise.open(self.client, assertion, None if asked is None else parse_scopes(asked))

    async def uses(self, got: Renewed) -> None:
        """The token that stands for it is good for a call.

        Raises:
            TokenRefused: it is not.
        """
        body = await self.house.issuing.renewed(self.client, got, None, "peer", confirmation=None)
        caller = await self.house.caller(body["access_token"], Proof.BEARER)
        if caller.session is None:
            raise TokenRefused("there is no session")


@asynccontextmanager
async def firm(
    directory: Path, *, ceiling: str = "pr deploy", method: Any = "client_secret_post", **trust: Any
) -> AsyncIterator[Firm]:
    """A firm with one client, whose provider knows alice as U1."""
    async with office(directory) as h:
        keys = Keys([public(RSA)])
        provider = IdentityProvider(issuer=ISSUER, clock=h.clock)
        provider.people = {"U1": {"preferred_username": "alice", "groups": ["Engineering"]}}
        client = RegisteredClient(
            id=ClientId("cursor"),
            handle="cursor",
            name="Cursor",
            kind="registered",
            redirect_uris=(),
            method=method,
            registered_at=h.clock(),
        )
        await h.store.add_client(client, Event(kind="enrolment", at=h.clock(), fields={}))

        async def kept(known: RegisteredClient) -> RegisteredClient:
            return known

        enterprise = Enterprise(
            store=h.store,
            clock=h.clock,
            sessions=h.sessions,
            keys=ProviderKeys(keys, h.clock),
            trust=replace(Trust(provider=PROVIDER, clients={client.id: CURSOR}), **trust),
            audience=h.issuer,
            resource=h.resource,
            ceiling=lambda: parse_scopes(ceiling),
            keep=kept,
        )
        yield Firm(house=h, keys=keys, provider=provider, enterprise=enterprise, client=client)


async def test_an_assertion_opens_a_session_of_the_persons_own_client_agent(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        signed_in = int(f.house.clock().timestamp()) - 60
        got = await f.open(auth_time=signed_in, amr=["pwd", "mfa"])
        assert (got.agent.name, got.agent.owner, got.agent.client) == ("cursor@alice", "alice", "cursor")
        assert got.refresh is None and got.link.scope == parse_scopes("pr:read")
        person = await f.house.store.person(PersonName("alice"))
        assert person is not None and person.groups == {"engineers"}
        shown = got.grant.authentication
        assert shown is not None and (shown.at.timestamp(), shown.amr, shown.issuer) == (
            signed_in,
            ("pwd", "mfa"),
            ISSUER,
        )
        assert (
            got.grant.expires_at - got.grant.granted_at
            == timedelta(hours=12)
            == got.session.expires_at - got.session.started_at
        )
        (event,) = await f.house.events("grant")
        assert (event["by"], event["subject"], event["agent"]) == (
            f"issuer:{ISSUER}",
            "user:alice",
            "agent:cursor@alice",
        )
        await f.uses(got)


async def test_the_next_assertion_of_the_same_sign_in_finds_the_session_open(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        at = int(f.house.clock().timestamp())
        first, second = await f.open(auth_time=at), await f.open(auth_time=at)
        assert second.session == first.session and second.grant == first.grant
        later = await f.open(auth_time=at + 1)
        assert later.session.id != first.session.id and later.grant.authentication != first.grant.authentication
        wider = await f.open(auth_time=at, scope="pr:read pr:write")
        assert wider.session.id != first.session.id and first.link.scope == parse_scopes("pr:read")


async def test_a_session_that_is_over_is_followed_by_another_one(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        first = await f.open()
        f.house.clock.advance(hours=3)
        second = await f.open()
        assert second.session.id != first.session.id
        f.house.clock.advance(hours=3)
        with pytest.raises(TokenRefused):
            await f.uses(second)


@pytest.mark.parametrize(
    ("said", "asked", "given"),
    [
        ("pr:read", None, "pr:read"),
        ("pr:read pr:write", "pr:read", "pr:read"),
        ("pr:read", "pr:read pr:write", "pr:read"),
        ("pr:read", "mcp:connect pr", "pr:read"),
        (None, "pr:write", "pr:write"),
        (None, None, "pr deploy:staging"),
        ("*", None, "pr deploy:staging"),
        ("deploy pr:read secret:read openid", None, "deploy:staging pr:read"),
    ],
)
async def test_what_is_given_is_what_provider_operator_and_client_agree_on(
    tmp_path: Path, said: str | None, asked: str | None, given: str
) -> None:
    async with firm(tmp_path) as f:
        assert (await f.open(scope=said, asked=asked)).link.scope == parse_scopes(given)


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("secret:read", None),
        ("pr:read", "pr:write"),
        (None, "secret:read"),
        ("", None),
        ("openid", None),
        ("pr:read", "mcp:connect"),
    ],
)
async def test_where_nothing_is_agreed_on_nothing_is_given(tmp_path: Path, said: str | None, asked: str | None) -> None:
    async with firm(tmp_path) as f:
        with pytest.raises(NothingGiven):
            await f.open(scope=said, asked=asked)
        assert await f.house.store.person(PersonName("alice")) is None


async def test_the_ceiling_of_client_agents_holds_here_too(tmp_path: Path) -> None:
    async with firm(tmp_path, ceiling="pr:read:acme") as f:
        assert (await f.open(scope="pr:read")).link.scope == parse_scopes("pr:read:acme")


async def test_an_assertion_counts_once(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        text = f.assertion()
        await f.open(text)
        with pytest.raises(SignatureRefused, match="used before"):
            await f.open(text)
        f.house.clock.advance(minutes=4)
        with pytest.raises(SignatureRefused, match="used before"):
            await f.open(text)


async def test_only_clients_that_the_operator_named_and_that_prove_who_they_are_bring_assertions(
    tmp_path: Path,
) -> None:
    async with firm(tmp_path) as f:
        with pytest.raises(NotTrusted):
            await f.enterprise.read(replace(f.client, id=ClientId("claude")), f.assertion(), shown=None)
        with pytest.raises(NotTrusted):
            await f.enterprise.read(replace(f.client, method="none"), f.assertion(), shown=None)


async def test_an_assertion_that_is_bound_to_a_key_takes_a_proof_by_that_key(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        bound: dict[str, Any] = {"cnf": {"jkt": "print"}}
        for shown in (None, "another"):
            with pytest.raises(SignatureRefused, match="bound"):
                await f.open(shown=shown, **bound)
        assert (await f.open(shown="print", **bound)).session.status == "active"


async def test_a_person_is_known_by_the_providers_subject_and_by_no_name(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        await f.house.person("alice")
        with pytest.raises(NotAdmitted):
            await f.open()
        await f.house.store.link_identity(
            Identity(issuer=ISSUER, subject="U7", person=PersonName("alice"), linked_at=f.house.clock()),
            None,
            Event(kind="enrolment", at=f.house.clock(), fields={}),
        )
        assert (await f.open(sub="U7", preferred_username="mallory")).grant.subject == "alice"


async def test_nobody_new_is_registered_unless_the_operator_wants_that(tmp_path: Path) -> None:
    async with firm(tmp_path, provider=replace(PROVIDER, provision=False)) as f:
        with pytest.raises(NotAdmitted):
            await f.open()


async def test_an_assertion_that_does_not_say_the_groups_takes_nobody_out_of_any(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        await f.open()
        f.provider.people = {}
        await f.open()
        assert (await f.house.store.person(PersonName("alice"))).groups == {"engineers"}  # type: ignore[union-attr]
        await f.open(groups=[])
        assert (await f.house.store.person(PersonName("alice"))).groups == frozenset()  # type: ignore[union-attr]


async def test_who_is_in_no_allowed_group_is_not_let_in(tmp_path: Path) -> None:
    async with firm(tmp_path, provider=replace(PROVIDER, allowed_groups=frozenset({"Engineering"}))) as f:
        await f.open()
        for groups in (["Sales"], None, "Engineering"):
            with pytest.raises(NotAdmitted):
                await f.open(groups=groups)


@pytest.mark.parametrize("kind", ["grant", "session", "link", "agent", "person", "client"])
async def test_revoking_whatever_a_session_stands_on_stops_it_at_once(tmp_path: Path, kind: str) -> None:
    async with firm(tmp_path) as f:
        got = await f.open()
        await f.uses(got)
        names = {
            "grant": got.grant.id,
            "session": got.session.id,
            "link": got.link.id,
            "agent": got.agent.name,
            "person": "alice",
            "client": "cursor",
        }
        await f.house.revoke(kind, names[kind])
        with pytest.raises(TokenRefused):
            await f.uses(got)
        if kind in {"agent", "person", "client"}:  # who stops one of these stops the provider's word for it, too
            with pytest.raises((Conflict, NotAdmitted)):
                await f.open()
        else:
            await f.uses(await f.open())


async def test_a_new_key_of_the_provider_counts_as_soon_as_it_signs(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        await f.open()
        f.keys.published = [public(OTHER_RSA)]
        f.house.clock.advance(minutes=2)
        await f.open(f.assertion(key=OTHER_RSA))
        with pytest.raises(SignatureRefused):
            await f.open(f.assertion(key=RSA))


async def test_nobody_makes_the_gateway_ask_for_keys_more_than_once_a_minute(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        await f.open()
        for _ in range(5):
            with pytest.raises(SignatureRefused):
                await f.open(f.assertion(key=OTHER_RSA))
        assert f.keys.asked == 1
        f.house.clock.advance(minutes=2)
        await f.open()
        assert f.keys.asked == 1


async def test_keys_outlast_the_providers_absence_for_a_day(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        await f.open()
        f.keys.is_down = True
        f.house.clock.advance(hours=23)
        await f.open()
        assert f.keys.asked == 2
        f.house.clock.advance(hours=2)
        with pytest.raises(SignatureRefused):
            await f.open()


async def test_the_token_of_the_session_names_client_agent_and_person(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        got = await f.open(auth_time=int(f.house.clock().timestamp()) - 5)
        body = await f.house.issuing.renewed(f.client, got, None, "peer", confirmation=None)
        claims = claims_of(body["access_token"])
        assert "refresh_token" not in body
        assert (claims["client_id"], claims["sub"], claims["act"]["sub"]) == (
            "cursor",
            "user:alice",
            "agent:cursor@alice",
        )
        assert claims["auth_time"] == int(f.house.clock().timestamp()) - 5


async def test_what_the_provider_gave_is_not_taken_for_the_persons_own_consent(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        asking = await d.asking("portal", scope="files:read")
        agent = (await d.consents.question(asking, d.who())).agent
        now = d.clock().replace(microsecond=0)
        given = Grant(
            id=GrantId("g_given"),
            subject=PersonName("alice"),
            agent=agent,
            scope=parse_scopes("files:read"),
            tools=None,
            granted_at=now,
            expires_at=now + limits.SESSION_LIFETIME,
            client=ClientId("portal"),
        )
        owned = Agent(name=agent, owner=PersonName("alice"), ceiling=given.scope, client=given.client)
        await d.store.authorize(owned, given, None, Event(kind="grant", at=now, fields={}))
        assert is_by_assertion(given)
        assert await d.consents.remembered(asking, d.who()) is None
        assert not (await d.consents.question(asking, d.who())).already
        await d.agree(sorted(given.scope), "portal", scope="files:read", days=1)
        assert await d.consents.remembered(asking, d.who()) is not None


async def test_the_document_of_a_client_that_the_operator_named_is_read_before_anybody_agreed(tmp_path: Path) -> None:
    named, stranger = "https://chat.example.com/client.json", "https://evil.example.com/client.json"
    asked = list[str]()

    async def fetch(url: str) -> bytes:
        asked.append(url)
        document = {
            "client_id": url,
            "client_name": "Team Chat",
            "redirect_uris": ["https://chat.example.com/callback"],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [{**PrivateKey.generate().public.jwk, "kid": "k"}]},
        }
        return json.dumps(document).encode()

    config = parse_config({"enterprise": {"issuer": ISSUER, "clients": {named: {"scopes": ["pr:read"]}}}})
    async with firm(tmp_path) as f:
        clients = Clients(f.house.store, f.house.clock, fetch, schemes=(), dynamic=False)
        known = known_by(config, clients)
        with pytest.raises(NotFound):
            await known(ClientId(stranger))
        client = await known(ClientId(named))
        assert asked == [named] and not client.is_public
        assert config.enterprise is not None
        trust = trust_of(config.enterprise)
        enterprise = Enterprise(
            store=f.house.store,
            clock=f.house.clock,
            sessions=f.house.sessions,
            keys=ProviderKeys(f.keys, f.house.clock),
            trust=trust,
            audience=f.house.issuer,
            resource=f.house.resource,
            ceiling=lambda: parse_scopes("pr"),
            keep=clients.keep,
        )
        text = signed(f.provider.claims("U1", f.house.issuer, named))
        await enterprise.ready(text)
        got = await enterprise.open(client, await enterprise.read(client, text, shown=None), None)
        assert (got.agent.name, got.agent.client) == ("team-chat@alice", named)
        kept = await f.house.store.client(ClientId(named))
        assert kept is not None and kept.handle == "team-chat"


async def test_a_slow_provider_keeps_nobody_waiting_whose_key_is_known(tmp_path: Path) -> None:
    async with firm(tmp_path) as f:
        await f.open()
        f.house.clock.advance(minutes=2)
        f.keys.answers = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(f.enterprise.ready, f.assertion(key=OTHER_RSA))
            with anyio.fail_after(5):
                await f.keys.is_asked.wait()
                await f.open()
            f.keys.answers.set()
