"""Row 2, at every way in from outside: codes, rotations, documents elsewhere, child links and the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mcp_authz.cli.keyfile import public_key
from mcp_authz.enrolment import Codes
from mcp_authz.errors import KeyRefused, SignatureRefused
from mcp_authz.hosted import HostedAgents
from mcp_authz.ids import new_uuid7
from mcp_authz.principals import AgentName
from mcp_authz.rules import strict_json
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.key_proof import TYP, enrolment_url, rotation_url
from mcp_authz.rules.keys import PrivateKey, b64url, unb64url
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import Given, Purpose, read_unverified, sign_root
from tests.attacks.test_02_small_order_keys import SMALL_ORDER
from tests.oauth.elsewhere import elsewhere
from tests.oauth.house import OPERATOR, House, house, office, refused

HOUR = timedelta(hours=1)
ISSUER = "https://gate.example.com"
OFF_CURVE = (2).to_bytes(32, "little").hex()
BAD = [SMALL_ORDER[0], SMALL_ORDER[2], SMALL_ORDER[12], OFF_CURVE, "00" * 31]


def jwk(point: str) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64url(bytes.fromhex(point))}


def forged(h: House, point: str, audience: str) -> str:
    """A proof with a signature that careless code takes as one of the point: R of small order, S = 0."""
    claims = {"sub": "coder", "aud": audience, "iat": int(h.clock().timestamp()), "jti": "k"}
    head = b64url(strict_json.dump({"alg": "EdDSA", "typ": TYP, "jwk": jwk(point)}))
    return f"{head}.{b64url(canonical(claims))}.{b64url(bytes.fromhex(SMALL_ORDER[2]) + bytes(32))}"


@pytest.mark.parametrize("point", BAD)
async def test_no_code_enrols_such_a_key(tmp_path: Path, point: str) -> None:
    async with house(tmp_path) as h:
        await h.person("alice")
        await h.agents.add("coder", owner="alice", by=OPERATOR)
        code = (await Codes(h.store, h.clock).make(AgentName("coder"), by=OPERATOR)).text
        where = enrolment_url(h.issuer, "coder")
        refused(await h.http.post(where, data={"code": code, "proof": forged(h, point, where)}), "invalid_key_proof")
        assert (await h.agents.show("coder")).keys == ()


@pytest.mark.parametrize("point", BAD)
async def test_no_agent_rotates_to_such_a_key(tmp_path: Path, point: str) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        proof = forged(h, point, rotation_url(h.issuer, "coder"))
        refused(await h.post(coder, "/agents/coder/key", proof=proof), "invalid_key_proof")
        assert len((await h.agents.show("coder")).keys) == 1


@pytest.mark.parametrize("point", BAD)
async def test_no_document_elsewhere_declares_such_a_key(tmp_path: Path, point: str) -> None:
    async with elsewhere(tmp_path) as host, office(tmp_path) as h:
        good, url = PrivateKey.generate().public, host.url()
        await h.person("alice")
        await h.agents.add("coder", owner="alice", key=good, metadata_url=url, by=OPERATOR)
        for keys in ([jwk(point)], [good.jwk, jwk(point)]):
            host.declare(jwks={"keys": keys})
            with pytest.raises(KeyRefused):
                await HostedAgents(h.store, h.clock, host.fetcher()).refresh("coder", by=OPERATOR)
        assert [key.thumbprint for key in (await h.agents.show("coder")).keys] == [good.thumbprint]


@pytest.mark.parametrize("point", BAD)
def test_no_link_is_given_to_such_a_key(point: str) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    issuer, holder = PrivateKey.generate(), PrivateKey.generate().public
    given = Given(
        id=new_uuid7(at),
        holder=holder,
        scope=parse_scopes("pr"),
        tools=None,
        max_depth=1,
        issued_at=at,
        expires_at=at + HOUR,
    )
    purpose = Purpose(subject="user:alice", subject_issuer=ISSUER, session="s", purpose="x", agents=("agent:coder",))
    good = sign_root(given, purpose, issuer=ISSUER, key=issuer)
    assert read_unverified((good,))[0].holder == holder
    head, claims, _ = good.split(".")
    changed = unb64url(claims).replace(holder.jwk["x"].encode(), jwk(point)["x"].encode())
    signed = f"{head}.{b64url(changed)}"
    with pytest.raises(SignatureRefused, match=r"key|point"):
        read_unverified((f"{signed}.{b64url(issuer.sign(signed.encode()))}",))


@pytest.mark.parametrize("point", BAD)
def test_no_key_of_the_command_line_is_one(tmp_path: Path, point: str) -> None:
    file = tmp_path / "key.jwk"
    file.write_bytes(strict_json.dump(jwk(point)))
    for text in (b64url(bytes.fromhex(point)), str(file)):
        with pytest.raises(KeyRefused):
            public_key(text)
