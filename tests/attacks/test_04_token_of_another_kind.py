"""Row 4: a signed object counts in the slot of its own kind only, whoever signed it and whatever it says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.errors import SignatureRefused
from mcp_authz.model import Assurance
from mcp_authz.principals import AccessToken, Thumbprint
from mcp_authz.rules import id_jag, jose
from mcp_authz.rules.call_proof import Proved, prove_call, read_call_proof
from mcp_authz.rules.context_token import Expected, read_context, sign_context
from mcp_authz.rules.dpop import make_proof, read_proof
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.signed_link import Given, Purpose, sign_root, verify_links
from mcp_authz.rules.token import access_claims, read_access_token
from mcp_authz.rules.verdict import make_statement, read_statement
from mcp_authz.verify import CallContext, Mode
from tests.oauth.house import JWT, expect, house, refused
from tests.proofs import proof
from tests.store.world import ALICE, CODER, LEAF, SESSION, START, held, link

TYPES = [
    "at+jwt",
    "aat+jwt",
    "aat-pop+jwt",
    "mcp-context+jwt",
    "approval+jwt",
    "dpop+jwt",
    "client-authentication+jwt",
    "oauth-id-jag+jwt",
    "JWT",
    "jwt",
    "",
]
KEY = PrivateKey.from_seed(bytes(range(32)))
KEYS = {KEY.public.thumbprint: KEY.public}
ISSUER, AUDIENCE = "https://gate.example", "https://gate.example/mcp"


def _access_token() -> dict[str, Any]:
    token = AccessToken(
        id="t_1",
        client_id=CODER,
        actor=CODER,
        key=Thumbprint("print"),
        subject="user:alice",
        session=SESSION,
        link=LEAF,
        scope=link().scope,
        issued_at=START,
        expires_at=START + timedelta(minutes=1),
    )
    return access_claims(token, issuer=ISSUER, audience=AUDIENCE, chain=(CODER,))


def _root() -> dict[str, Any]:
    given = Given(
        id="0199a3c0-0000-7000-8000-000000000001",
        holder=KEY.public,
        scope=link().scope,
        tools=None,
        max_depth=1,
        issued_at=START,
        expires_at=START + timedelta(minutes=1),
    )
    purpose = Purpose(subject="user:alice", subject_issuer=ISSUER, session=SESSION, purpose="test")
    return jose.read(sign_root(given, purpose, issuer=ISSUER, key=KEY)).claims


def _verified(text: str) -> object:
    return verify_links([text], issuer=ISSUER, keys=KEYS, presenter=KEY.public.thumbprint, now=START)


def _verdict() -> dict[str, Any]:
    made = make_statement(
        held(), person=ALICE, approve=True, assurance=Assurance.SIGNED_IN, reason="", at=START, key=KEY
    )
    return jose.read(made).claims


def _context() -> dict[str, Any]:
    context = CallContext(
        id="x_1",
        call="c_1",
        subject="user:alice",
        actors=("agent:coder",),
        session=SESSION,
        mode=Mode.DELEGATED,
        tool="read",
        issued_at=START,
        expires_at=START + timedelta(minutes=1),
    )
    signed = sign_context(context, issuer=ISSUER, audience=AUDIENCE, arguments={}, salt=bytes(16), key=KEY)
    return jose.read(signed).claims


CALL = Proved(link="0199a3c0-0000-7000-8000-000000000001", tool="read", arguments={}, audience=AUDIENCE)


def _call_proof() -> dict[str, Any]:
    return jose.read(prove_call(CALL, id="p_1", at=START, key=KEY)).claims


def _possession() -> dict[str, Any]:
    made = make_proof(KEY, method="POST", url=AUDIENCE, at=START, id="p_1", access_token="token")
    return jose.read(made, allow_jwk=True).claims


def _assertion() -> dict[str, Any]:
    at = int(START.timestamp())
    whom = {"iss": ISSUER, "aud": AUDIENCE, "sub": "U1", "client_id": "cursor"}
    return {**whom, "jti": "j_1", "iat": at, "exp": at + 60}


def _asserted(text: str) -> object:
    expected = id_jag.Expected(issuer=ISSUER, audience=AUDIENCE, resource=AUDIENCE, client="cursor", tenant=None)
    keys = {(KEY.public.thumbprint, "EdDSA"): KEY.public}  # as if a provider had the gateway's very key
    return id_jag.read_assertion(text, keys=keys, expected=expected, now=START)


SLOTS: dict[str, tuple[dict[str, Any], Callable[[str], object]]] = {
    "at+jwt": (
        _access_token(),
        lambda text: read_access_token(text, keys=KEYS, issuer=ISSUER, audience=AUDIENCE, now=START),
    ),
    "aat+jwt": (_root(), _verified),
    "mcp-context+jwt": (
        _context(),
        lambda text: read_context(
            jose.read(text),
            KEY.public,
            Expected(issuer=ISSUER, audience=AUDIENCE, tool="read", arguments={}),
            now=START,
        ),
    ),
    "aat-pop+jwt": (_call_proof(), lambda text: read_call_proof(text, CALL, holder=KEY.public, now=START)),
    "dpop+jwt": (
        _possession(),
        lambda text: read_proof(text, method="POST", url=AUDIENCE, now=START, access_token="token", nonces=None),
    ),
    "oauth-id-jag+jwt": (_assertion(), _asserted),
    "approval+jwt": (_verdict(), lambda text: read_statement(text, held=held(), person=ALICE, keys=KEYS, now=START)),
}


def _signed(slot: str, claims: dict[str, Any], typ: str) -> str:
    """Signed as this slot wants it: a proof of possession shows its key, everything else names one."""
    if slot == "dpop+jwt":
        return jose.sign_showing_key(claims, typ=typ, key=KEY)
    return jose.sign(claims, typ=typ, key=KEY, kid=KEY.public.thumbprint)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("typ", TYPES)
def test_the_right_claims_by_the_right_key_count_as_the_right_kind_only(slot: str, typ: str) -> None:
    claims, read = SLOTS[slot]
    text = _signed(slot, claims, typ)
    if typ == slot:
        assert read(text)
    else:
        with pytest.raises(SignatureRefused, match="typ"):
            read(text)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("kind", SLOTS)
def test_what_is_right_in_its_own_slot_is_refused_in_every_other(slot: str, kind: str) -> None:
    text = _signed(kind, SLOTS[kind][0], kind)
    if slot == kind:
        assert SLOTS[slot][1](text)
    else:
        with pytest.raises(SignatureRefused):
            SLOTS[slot][1](text)


@pytest.mark.parametrize("typ", TYPES)
async def test_an_assertion_counts_as_one_only_if_it_is_not_typed_as_something_else(tmp_path: Path, typ: str) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        answer = await h.post(coder, grant_type="client_credentials", client_assertion=h.assertion(coder, typ=typ))
        if typ in {"JWT", "jwt", "client-authentication+jwt"}:
            expect(answer)
        else:
            refused(answer, "invalid_client")


async def test_no_kind_passes_for_another_over_the_wire(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        delegated = await h.delegated(planner, coder)
        kinds = {"token": delegated, "chain": await h.root(coder, delegated), "assertion": h.assertion(coder)}
        kinds["proof"] = proof(coder.key, url=f"{h.issuer}/token", at=h.clock(), iss="coder", sub="coder", aud=h.issuer)
        for name, text in kinds.items():
            bearer = await h.http.post(h.resource, json={}, headers={"Authorization": f"Bearer {text.strip()}"})
            assert (bearer.status_code == 200) == (name == "token")
            if name != "token":
                refused(await h.exchange(coder, text, requested_actor="planner"), "invalid_request")
                named = jose.read(text.strip(), allow_jwk=True).claims["jti"]
                refused(await h.exchange(coder, named, requested_actor="x"), "invalid_request")
            if name != "chain":
                refused(await h.exchange(coder, text, JWT), "invalid_request")
            if name != "assertion":
                posted = await h.post(coder, grant_type="client_credentials", client_assertion=text.strip())
                refused(posted, "invalid_client")
        expect(await h.exchange(coder, kinds["chain"], JWT))
