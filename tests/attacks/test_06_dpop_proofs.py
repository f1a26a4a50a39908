"""Row 6: a proof of possession counts once, for its own request, signed just now by the key that it shows."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from cryptography.hazmat.primitives.asymmetric import ec

from mcp_authz import limits
from mcp_authz.principals import Once
from mcp_authz.rules.keys import PrivateKey, b64url
from mcp_authz.rules.strict_json import dump
from tests.attacks.test_02_small_order_keys import SMALL_ORDER
from tests.proofs import CALL, LIST, EcKey, Prover, is_error, public_of
from tests.world import MODERN, World, modern_call, world

OLD, FUTURE = (timedelta(seconds=sign * (limits.CLOCK_SKEW.total_seconds() + 2)) for sign in (-1, 1))
REQUEST_SESSION = modern_call("authz__request_session", {"purpose": "try again", "tools": [], "minutes": 5})


def _unsigned(p: Prover, **said: Any) -> str:
    return p.proof(header={"alg": "none"}, **said).rpartition(".")[0] + "."


def _mac(p: Prover, **said: Any) -> str:
    signing_input = p.proof(header={"alg": "HS256"}, **said).rpartition(".")[0]
    secret = public_of(p.key)["x"].encode()
    return f"{signing_input}.{b64url(hmac.digest(secret, signing_input.encode(), hashlib.sha256))}"


def _small_order(p: Prover, **said: Any) -> str:
    """Signed with nothing: R and key of small order, S zero, so that the equation of RFC 8032 holds for any message."""
    key = {"kty": "OKP", "crv": "Ed25519", "x": b64url(bytes.fromhex(SMALL_ORDER[2]))}
    signing_input = p.proof(header={"alg": "EdDSA", "jwk": key}, **said).rpartition(".")[0]
    return f"{signing_input}.{b64url(bytes.fromhex(SMALL_ORDER[2]) + bytes(32))}"


def _private(p: Prover, **said: Any) -> str:
    private = p.key.private_jwk if isinstance(p.key, EcKey) else p.key.to_jwk()
    return p.proof(header={"jwk": private}, **said)


def _other_curve(p: Prover, **said: Any) -> str:
    return p.proof(key=EcKey(ec.SECP384R1()), **{"header": {"alg": "ES384"}, **said})


FORGED: dict[str, Callable[..., str]] = {
    "wrong method": lambda p, **said: p.proof(**{**said, "method": "GET"}),
    "wrong URL": lambda p, **said: p.proof(**{**said, "url": "https://evil.example/mcp"}),
    "old": lambda p, **said: p.proof(at=p.w.clock() + OLD, **said),
    "from the future": lambda p, **said: p.proof(at=p.w.clock() + FUTURE, **said),
    "private key inside": _private,
    "alg none": lambda p, **said: p.proof(header={"alg": "none"}, **said),
    "not signed": _unsigned,
    "alg HS256": _mac,
    "alg RS256": lambda p, **said: p.proof(header={"alg": "RS256"}, **said),
    "alg of another curve": lambda p, **said: p.proof(header={"alg": "ES384"}, **said),
    "small-order key": _small_order,
    "another curve": _other_curve,
    "another curve by the right name": lambda p, **said: _other_curve(p, header={"alg": "ES256"}, **said),
    "somebody else's key": lambda p, **said: p.proof(header={"jwk": PrivateKey.generate().public.jwk}, **said),
    "no key": lambda p, **said: p.proof(header={"jwk": {}}, **said),
    "a key by reference": lambda p, **said: p.proof(header={"jku": "https://evil.example/keys"}, **said),
    "typ of a token": lambda p, **said: p.proof(header={"typ": "at+jwt"}, **said),
    "two in one line": lambda p, **said: f"{p.proof(**said)}, {p.proof(**said)}",
    "nothing": lambda p, **said: "",
}


async def test_no_forged_proof_gets_a_token(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        await p.token(coder)
        for name, forge in FORGED.items():
            answer = await p.sign_in(coder, forge(p, path="/token"))
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof"), name
        two = await p.sign_in(coder, p.proof(path="/token"), p.proof(path="/token"))
        assert (two.status_code, two.json()["error"]) == (400, "invalid_dpop_proof")
        assert len(await w.records("sign-in")) == 1


async def test_no_forged_proof_gets_a_list_or_a_call(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, PrivateKey.generate())
        token = await p.token(coder, "pr:read")
        wrong_hash = p.proof(await w.token(coder))
        for body in (LIST, CALL):
            for name, forge in FORGED.items():
                assert is_error(await p.send_raw(body, token, forge(p, token=token)), "invalid_dpop_proof"), name
            assert is_error(await p.send_raw(body, token, wrong_hash), "invalid_dpop_proof")
            assert is_error(await p.send_raw(body, token, p.proof()), "invalid_dpop_proof")  # no hash at all
            two = await p.send_raw(body, token, p.proof(token), p.proof(token))
            assert two.status_code == 400 and "more than once" in two.text
        assert await w.decisions() == []


async def test_a_proof_for_the_host_that_a_request_names_is_for_another_url(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        token = await p.token(coder)
        by_address = w.url.replace("localhost", "127.0.0.1")
        answer = await p.send_raw(LIST, token, p.proof(token, url=by_address), host=by_address.split("/")[2])
        assert is_error(answer, "invalid_dpop_proof")


async def test_a_proof_is_not_replayed_at_the_token_endpoint(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        await p.token(coder)
        one = p.proof(path="/token")
        assert (await p.sign_in(coder, one)).status_code == 200
        answer = await p.sign_in(coder, one)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


async def test_a_proof_is_not_replayed_for_what_reaches_no_tool(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        token = await p.token(coder)
        for method in ("tools/list", "server/discover", "notifications/cancelled", "no/such/method"):
            body: dict[str, Any] = {**LIST, "method": method}
            if method.startswith("notifications/"):
                del body["id"]
            one = p.proof(token)
            assert (await p.send(body, token, one)).status_code != 401, method
            for again in (body, LIST):
                assert is_error(await p.send_raw(again, token, one), "invalid_dpop_proof"), method


CALLS: dict[str, Any] = {
    "permitted": CALL,
    "unknown": modern_call("acme__no_such_tool", {}),
    "denied": modern_call("acme__deploy", {}),
    "asking": REQUEST_SESSION,
    "resource": {**CALL, "method": "resources/read", "params": {**LIST["params"], "uri": "file:///x"}},
}


async def test_a_proof_is_not_replayed_after_a_call_whatever_became_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        token = await p.token(coder, "pr:read")
        for name, body in CALLS.items():
            one = p.proof(token)
            headers = {"mcp_name": "file:///x"} if name == "resource" else {}
            assert (await p.send(body, token, one, **headers)).status_code != 401, name
            assert is_error(await p.send_raw(LIST, token, one), "invalid_dpop_proof"), name
            await p.send_raw(CALL, token, one)
        assert [fields["decision"] for fields in await w.decisions()].count("permit") == 1
        narrow = await p.token(coder, "mcp:connect")
        one = p.proof(narrow)
        assert (await p.send(CALL, narrow, one)).status_code == 403  # sent back for more scope
        assert is_error(await p.send_raw(LIST, narrow, one), "invalid_dpop_proof")


async def test_a_proof_of_a_refused_handshake_is_spent_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        token = await p.token(coder, "pr:read")
        one, other = p.proof(token), p.proof(token)
        gone = await p.send(CALL, token, one, mcp_protocol_version="2025-11-25", mcp_session_id="nobody")
        assert gone.status_code in {400, 404}
        assert (await p.send(CALL, token, other, accept="text/html")).status_code == 406
        for spent in (one, other):
            assert is_error(await p.send_raw(LIST, token, spent), "invalid_dpop_proof")


async def test_of_many_requests_with_one_proof_at_once_one_is_served(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        token = await p.token(coder, "pr:read")
        for body in (LIST, CALL):
            served = await _at_once(p, body, token, p.proof(token))
            assert served == 1
        assert [fields["decision"] for fields in await w.decisions()].count("permit") == 1


async def _at_once(p: Prover, body: Any, token: str, one: str) -> int:
    served = []

    async def send() -> None:
        answer = await p.send_raw(body, token, one)
        said = answer.text
        if answer.status_code == 200 and '"isError":true' not in said and '"error"' not in said:
            served.append(said)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(send)
    return len(served)


async def test_what_another_replica_remembers_is_spent_here(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        token = await p.token(coder)
        spent = Once(kind="dpop", id=f"{p.key.thumbprint}:one", expires_at=w.clock() + limits.CLOCK_SKEW)  # type: ignore[union-attr]
        assert await w.store.remember(spent)
        assert is_error(await p.send_raw(LIST, token, p.proof(token, jti="one")), "invalid_dpop_proof")


async def test_a_nonce_is_demanded_checked_and_renewed_with_every_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        token = await p.token(coder, "pr:read")
        first, p.nonce = p.nonce, None
        for nonce in ({}, {"nonce": "made-up"}, {"nonce": 1}):
            answer = await p.send_raw(CALL, token, p.proof(token, **nonce))
            assert is_error(answer, "use_dpop_nonce") and answer.headers["dpop-nonce"] == first
        p.nonce = first
        w.clock.advance(limits.DPOP_NONCE)
        answer = await p.send(CALL, token)
        assert answer.status_code == 200 and answer.headers["dpop-nonce"] == p.nonce != first
        w.clock.advance(limits.DPOP_NONCE)
        assert is_error(await p.send_raw(CALL, token, p.proof(token, nonce=first)), "use_dpop_nonce")


async def test_without_nonces_none_is_given_but_one_that_is_sent_is_checked(tmp_path: Path) -> None:
    async with world(tmp_path, dpop_nonce=False) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        token = await p.token(coder, "pr:read")
        assert p.nonce is None
        answer = await p.send(CALL, token)
        assert answer.status_code == 200 and p.nonce is None
        assert is_error(await p.send(CALL, token, p.proof(token, nonce="made-up")), "use_dpop_nonce")
        assert p.nonce is not None and (await p.send(CALL, token)).status_code == 200


async def test_over_the_unix_socket_the_url_is_still_the_published_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        p = Prover(w, EcKey())
        token = await p.token(coder)
        for url, status in ((w.url, 200), ("http://localhost/mcp", 401), ("http://gateway.sock/mcp", 401)):
            assert await _over_socket(w, token, p.proof(token, url=url)) == status


async def _over_socket(w: World, token: str, one: str) -> int:
    """The status of a list whose sender has no address, as on the socket."""
    sent: list[Any] = []
    headers = {
        "host": w.url.split("/")[2],
        "authorization": f"DPoP {token}",
        "dpop": one,
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/list",
    }
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/mcp",
        "raw_path": b"/mcp",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "client": None,
        "server": (str(w.config.socket), None),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    body = iter([{"type": "http.request", "body": dump(LIST), "more_body": False}])

    async def receive() -> Any:
        if (message := next(body, None)) is not None:
            return message
        return await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    await w.app.asgi(scope, receive, send)
    status: int = sent[0]["status"]
    return status
