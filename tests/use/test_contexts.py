"""Whom a tool server is told of, in each mode; and that each forwarding has a token of its own."""

from __future__ import annotations

from dataclasses import replace

from mcp_authz.context import ContextAudience, Contexts
from mcp_authz.live_keys import LiveKeys
from mcp_authz.model import Admitted
from mcp_authz.principals import AccessToken, Caller, Chain, Mode, Proof, Thumbprint
from mcp_authz.rules import jose
from mcp_authz.rules.context_token import CallContext, Expected, read_context
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.signing_key import SigningKey
from tests.servers.start import admitted
from tests.store.world import CODER, HOUR, LEAF, SESSION, START, agent, grant, link, person, root, session

ISSUER = "https://authz.example.com"


def one_key(seed: bytes) -> LiveKeys:
    kid = Thumbprint(PrivateKey.from_seed(seed).public.thumbprint)
    known = (SigningKey(kid=kid, use="context", made_at=START, signs_from=START, seed=seed),)

    async def read() -> tuple[SigningKey, ...]:
        return known

    return LiveKeys(read, "context", lambda: START, known)


CONTEXTS = Contexts(
    issuer=ISSUER,
    audiences={"tools": ContextAudience(audience="tools", subject="plain")},
    keys=one_key(b"\x01" * 32),
    pairwise_key=b"\x02" * 32,
)
TOKEN = AccessToken(
    id="t_1",
    client_id=CODER,
    actor=CODER,
    key=Thumbprint("print"),
    subject="user:alice",
    session=SESSION,
    link=LEAF,
    scope=link().scope,
    issued_at=START,
    expires_at=START + HOUR,
)
CALLER = Caller(
    agent=agent(),
    key=Thumbprint("print"),
    proof=Proof.BEARER,
    token=TOKEN,
    person=person(),
    grant=grant(),
    session=session(),
    chain=Chain(links=(root(), link())),
)
CALL = admitted("look", {"path": "a"})


def said(caller: Caller, contexts: Contexts = CONTEXTS, call: Admitted = CALL) -> CallContext:
    token = jose.read(contexts.token(call, caller, None, at=START))
    expected = Expected(issuer=ISSUER, audience="tools", tool="look", arguments={"path": "a"})
    return read_context(token, contexts.keys.signing.public, expected, now=START)


def test_the_agent_that_acts_now_comes_first_and_the_one_that_it_acts_for_last() -> None:
    told = said(CALLER)
    assert (told.subject, told.actors, told.actor) == ("user:alice", ("agent:coder", "agent:planner"), "agent:coder")


def test_in_its_own_name_an_agent_is_the_subject() -> None:
    own = replace(session(), subject=None, mode=Mode.OWN)
    for subject in ("plain", "pairwise"):
        audience = ContextAudience(audience="tools", subject=subject)
        told = said(replace(CALLER, session=own, person=None), replace(CONTEXTS, audiences={"tools": audience}))
        assert (told.subject, told.mode) == ("agent:planner", Mode.OWN)
        assert told.actors == ("agent:coder", "agent:planner")


def test_where_an_agent_is_not_to_be_seen_the_person_alone_is() -> None:
    told = said(replace(CALLER, session=replace(session(), mode=Mode.IMPERSONATED)))
    assert (told.subject, told.actors, told.actor) == ("user:alice", (), None)


def test_each_forwarding_has_a_token_of_its_own() -> None:
    first, second = said(CALLER), said(CALLER)
    assert first.id != second.id and first.call == second.call
    salts = {jose.read(CONTEXTS.token(CALL, CALLER, None, at=START)).claims["args_salt"] for _ in range(2)}
    assert len(salts) == 2


def test_neither_keys_nor_tokens_are_printed() -> None:
    token = CONTEXTS.token(CALL, CALLER, None, at=START)
    assert token not in repr(replace(CALL, context=token))
    assert "\\x01" not in repr(CONTEXTS) and "\\x02" not in repr(CONTEXTS)
