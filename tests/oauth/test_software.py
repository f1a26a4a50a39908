"""How clients that people sign in to authenticate: by the one method that they are registered with, and no other."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from mcp_authz import limits
from mcp_authz.principals import ClientId
from mcp_authz.rules.keys import PrivateKey, b64url
from mcp_authz.rules.strict_json import dump
from tests.identity_provider import OTHER_RSA, RSA
from tests.oauth.house import ASSERTION_TYPE, App, House, expect, house, refused
from tests.proofs import EcKey

NO_TEXT = b64encode(b"\xff:\xff").decode()
SECRETS = {"client_secret_basic", "client_secret_post"}
METHODS: tuple[Any, ...] = ("none", "client_secret_basic", "client_secret_post", "private_key_jwt")


def basic(id_: str, secret: str) -> dict[str, str]:
    """The header of HTTP Basic, as RFC 6749 section 2.3.1 spells it."""
    return {"Authorization": f"Basic {b64encode(f'{quote_plus(id_)}:{quote_plus(secret)}'.encode()).decode()}"}


async def attempt(h: House, form: dict[str, Any], headers: dict[str, str] | None = None) -> httpx2.Response:
    """A request that is refused as soon as its client is known, and as nobody's before."""
    data = {"grant_type": "refresh_token", "refresh_token": "x", **form}
    return await h.http.post(f"{h.issuer}/token", data=data, headers=headers)


def is_in(answer: httpx2.Response) -> bool:
    """Whether the client was let in: then only its refresh token is refused."""
    error = answer.json()["error"]
    assert error in {"invalid_grant", "invalid_client"}, answer.text
    return bool(error == "invalid_grant")


@pytest.mark.parametrize("shown", METHODS)
@pytest.mark.parametrize("registered", METHODS)
async def test_a_client_gets_in_by_its_own_method_and_by_no_other(tmp_path: Path, registered: Any, shown: Any) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method=registered)
        wears = replace(app, registered=replace(app.registered, method=shown))  # the same client, in another way
        form, headers = h.authenticated(wears)
        assert is_in(await attempt(h, form, headers)) is (registered == shown or {registered, shown} == SECRETS)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_wrong_secret_and_an_unknown_client_are_answered_alike(tmp_path: Path, method: Any) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method=method)
        answers = []
        for id_, secret in ((app.id, "guess"), (app.id, app.secret[:-1]), (app.id, ""), ("unknown", app.secret)):
            if method == "client_secret_basic":
                answers.append(await attempt(h, {}, basic(id_, secret)))
            else:
                answers.append(await attempt(h, {"client_id": id_, "client_secret": secret}))
        status = 401 if method == "client_secret_basic" else 400
        assert {(one.status_code, one.text) for one in answers} == {(status, answers[0].text)}
        assert all(("www-authenticate" in one.headers) == (status == 401) for one in answers)


async def test_the_halves_of_basic_are_form_encoded(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_basic", id=ClientId("a:b c%"))
        assert is_in(await attempt(h, {}, basic("a:b c%", app.secret)))
        raw = {"Authorization": f"Basic {b64encode(f'a:b c%:{app.secret}'.encode()).decode()}"}
        assert not is_in(await attempt(h, {}, raw))


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic !!!", "Basic YQ==", f"Basic {NO_TEXT}", "Bearer x", "", "Digest a=b"],
)
async def test_a_header_that_is_no_basic_lets_nobody_in(tmp_path: Path, header: str) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        answer = await attempt(h, {"client_id": app.id}, {"Authorization": header})
        refused(answer, "invalid_client", 401)


async def test_two_methods_at_once_let_nobody_in(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="private_key_jwt")
        proof, _ = h.authenticated(app)
        for form, headers in (
            ({**proof, "client_secret": "x"}, {}),
            (proof, basic(app.id, "x")),
            ({"client_id": app.id, "client_secret": "x"}, basic(app.id, "x")),
            ({**proof, "client_id": "other"}, {}),
        ):
            assert not is_in(await attempt(h, form, headers))
        assert is_in(await attempt(h, {**proof, "client_id": app.id}))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example"},
        {"aud": None},
        {"aud": ["https://other.example"]},
        {"iss": "other"},
        {"iss": None},
        {"sub": "other"},
        {"jti": None},
        {"exp": None},
        {"exp": 1},
        {"exp": 2**40},
        {"iat": 2**40},
        {"nbf": 2**40},
    ],
    ids=str,
)
async def test_an_assertion_is_for_this_issuer_of_now_and_by_its_client(tmp_path: Path, claims: Any) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="private_key_jwt")
        form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": h.app_assertion(app, **claims)}
        assert not is_in(await attempt(h, form))


async def test_an_assertion_counts_once_and_each_clients_ids_are_its_own(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, other = await h.client(method="private_key_jwt"), await h.client("other", "private_key_jwt")
        coder = await h.agent("coder")
        form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": h.app_assertion(app, jti="1")}
        assert is_in(await attempt(h, form))
        assert not is_in(await attempt(h, form))
        assert is_in(await attempt(h, {**form, "client_assertion": h.app_assertion(other, jti="1")}))
        expect(await h.post(coder, grant_type="client_credentials", client_assertion=h.assertion(coder, jti="1")))


async def test_only_a_key_of_the_client_signs_for_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, other = await h.client(method="private_key_jwt"), await h.client("other", "private_key_jwt")
        coder = await h.agent("coder")
        for key in (other.key, coder.key, h.keys.signing, PrivateKey.generate()):
            form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": h.app_assertion(app, key=key)}
            assert not is_in(await attempt(h, form))


async def test_a_client_may_have_several_keys_of_both_kinds(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        ec, second = EcKey(), PrivateKey.generate()
        rsa = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
        keys = [rsa, {}, ec.jwk, second.public.jwk]
        app = await h.client(method="private_key_jwt", jwks={"keys": keys})
        form = {"client_assertion_type": ASSERTION_TYPE}
        assert is_in(await attempt(h, {**form, "client_assertion": h.app_assertion(app, key=second)}))
        assert is_in(await attempt(h, {**form, "client_assertion": ec_assertion(h, app, ec)}))
        assert not is_in(await attempt(h, {**form, "client_assertion": ec_assertion(h, app, EcKey())}))


@pytest.mark.parametrize("alg", ["RS256", "PS256"])
async def test_an_rsa_key_signs_by_the_one_algorithm_that_its_client_says(tmp_path: Path, alg: str) -> None:
    async with house(tmp_path) as h:
        public = {**RSA.as_dict(private=False), "alg": alg}
        app = await h.client(method="private_key_jwt", jwks={"keys": [public]})
        for used in ("RS256", "PS256"):
            form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": rsa_assertion(h, app, RSA, used)}
            assert is_in(await attempt(h, form)) == (used == alg)
        other = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": rsa_assertion(h, app, OTHER_RSA, alg)}
        assert not is_in(await attempt(h, other))


def rsa_assertion(h: House, app: App, key: RSAKey, alg: str) -> str:
    """A client assertion that is signed by an RSA key."""
    now = int(h.clock().timestamp())
    claims = {"iss": app.id, "sub": app.id, "aud": h.issuer, "iat": now, "exp": now + 60, "jti": f"{alg} {key.kid}"}
    return jwt.encode({"alg": alg, "typ": "JWT"}, claims, key, algorithms=[alg])


def ec_assertion(h: House, app: App, key: EcKey, alg: str = "ES256") -> str:
    """A client assertion that is signed by a P-256 key."""
    now = int(h.clock().timestamp())
    claims = {"iss": app.id, "sub": app.id, "aud": h.issuer, "iat": now, "exp": now + 60, "jti": b64url(bytes(9))}
    signing_input = f"{b64url(dump({'alg': alg, 'typ': 'JWT'}))}.{b64url(dump(claims))}"
    return f"{signing_input}.{b64url(key.sign(signing_input.encode()))}"


async def test_a_client_has_nothing_in_its_own_name_and_agents_exchanges_are_not_its_own(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for method in METHODS:
            app = await h.client(f"a-{method.replace('_', '-')}", method)
            refused(await h.ask(app, grant_type="client_credentials"), "invalid_client")
            said = await h.signed_in(app)
            exchange = {"subject_token": said["access_token"], "requested_actor": "coder"}
            grant = "urn:ietf:params:oauth:grant-type:token-exchange"
            refused(await h.ask(app, grant_type=grant, **exchange), "invalid_client")


async def test_a_client_that_was_revoked_is_unknown(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for method in METHODS:
            app = await h.client(f"a-{method.replace('_', '-')}", method)
            await h.revoke("client", app.id)
            form, headers = h.authenticated(app)
            assert not is_in(await attempt(h, form, headers))


async def test_an_address_full_of_strangers_is_slowed_down_and_nobody_behind_it_is_shut_out(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, coder = await h.client(), await h.agent("coder")
        said = await h.signed_in(app)
        answers = [await attempt(h, {"client_id": "unknown"})]
        while (
            answers[-1].status_code == 400 and len(answers) < 2 * limits.SIGN_INS_REFUSED
        ):  # some are forgiven meanwhile
            answers.append(await attempt(h, {"client_id": "unknown"}))
        assert len(answers) > limits.SIGN_INS_REFUSED
        refused(answers[-1], "slow_down", 429)
        refused(await h.http.post(f"{h.issuer}/introspect", data={"token": "x"}), "slow_down", 429)
        expect(await h.post(coder, grant_type="client_credentials"))
        expect(await h.refresh(app, said["refresh_token"]))
        expect(await h.redeem_code(app, await h.agreed(app)))


@pytest.mark.parametrize("method", METHODS)
async def test_a_client_is_not_told_that_it_is_unknown_while_the_store_is_away(tmp_path: Path, method: Any) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method=method)
        said = await h.signed_in(app)
        await h.store.aclose()
        for answer in (
            await h.refresh(app, said["refresh_token"]),
            await h.ask(app, "/introspect", token=said["access_token"]),
            await h.ask(app, "/revoke", token=said["access_token"]),
        ):
            assert (answer.status_code, answer.json()) == (503, {"error": "temporarily_unavailable"})
