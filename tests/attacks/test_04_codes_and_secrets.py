"""Row 4: a code, a token, a secret and an assertion count in the slot of their own kind only; all pairs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from mcp_authz.rules import jose
from tests.oauth.house import (
    ASSERTION_TYPE,
    CALLBACK,
    EXCHANGE,
    JWT,
    TOKEN,
    VERIFIER,
    Actor,
    App,
    House,
    house,
)

Slot = Callable[[str], Awaitable[bool]]


async def kinds(h: House, app: App, coder: Actor, session: str) -> dict[str, str]:
    """One good specimen of everything that can be shown to the authorization server."""
    said, now = await h.signed_in(app), int(h.clock().timestamp())
    own = await h.token(coder, claims={"session": session})
    claims = {"iss": h.issuer, "aud": app.id, "sub": "alice", "iat": now, "exp": now + 60, "nonce": "n"}
    grant = (await h.store.grants())[-1]
    return {
        "code": await h.agreed(app),
        "access token": said["access_token"],
        "refresh token": said["refresh_token"],
        "agent's token": own,
        "signed chain": (await h.root(coder, own)).strip(),
        "client secret": app.secret,
        "client assertion": h.app_assertion(app),
        "agent's assertion": h.assertion(coder),
        "proof": h.proof(coder.key)["DPoP"],
        "ID token": jose.sign(claims, typ="JWT", key=h.keys.signing, kid=h.keys.kid),
        "ID-JAG": jose.sign({**claims, "aud": h.issuer}, typ="oauth-id-jag+jwt", key=h.keys.signing, kid=h.keys.kid),
        "session": said["session"],
        "link": said["link"],
        "grant": grant.id,
        "verifier": VERIFIER,
        "client": app.id,
    }


async def slots(h: House, app: App, secretive: App, coder: Actor) -> dict[str, tuple[set[str], Slot]]:
    """Every slot, with the kinds that belong there; where a specimen is used up comes after where it is not."""
    unused, for_coder = await h.agreed(app), await h.agreed(app, actor=coder)

    async def bearer(text: str) -> bool:
        answer = await h.http.post(h.resource, json={}, headers={"Authorization": f"Bearer {text}"})
        assert answer.status_code in (200, 401)
        return answer.status_code == 200

    async def code(text: str) -> bool:
        return (await h.redeem_code(app, text)).status_code == 200

    async def verifier(text: str) -> bool:
        return (await h.redeem_code(app, unused, code_verifier=text)).status_code == 200

    async def refresh(text: str) -> bool:
        return (await h.refresh(app, text)).status_code == 200

    async def secret(text: str) -> bool:
        answer = await h.refresh(secretive, "x", client_secret=text)
        return bool(answer.json()["error"] == "invalid_grant")

    async def assertion(text: str) -> bool:
        form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": text}
        data = {"grant_type": "authorization_code", "code": "x", "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        answer = await h.http.post(f"{h.issuer}/token", data={**form, **data})
        return bool(answer.json()["error"] == "invalid_grant")

    async def subject(text: str) -> bool:
        exchange = {"subject_token": text, "subject_token_type": TOKEN, "requested_token_type": JWT}
        return (await h.post(coder, grant_type=EXCHANGE, **exchange)).status_code == 200

    async def chain(text: str) -> bool:
        return (await h.exchange(coder, text, JWT)).status_code == 200

    async def actor(text: str) -> bool:
        form = {"actor_token": text, "actor_token_type": TOKEN}
        return (await h.redeem_code(app, for_coder, **form)).status_code == 200

    async def introspected(text: str) -> bool:
        active: bool = (await h.ask(app, "/introspect", token=text)).json()["active"]
        return active

    return {
        "bearer": ({"access token", "agent's token"}, bearer),
        "introspection": ({"access token", "refresh token"}, introspected),
        "subject_token": ({"agent's token"}, subject),
        "chain": ({"signed chain"}, chain),
        "actor_token": ({"agent's token"}, actor),
        "client_secret": ({"client secret"}, secret),
        "client_assertion": ({"client assertion", "agent's assertion"}, assertion),
        "verifier": ({"verifier"}, verifier),
        "code": ({"code"}, code),
        "refresh_token": ({"refresh token"}, refresh),
    }


async def test_everything_counts_in_its_own_slot_and_in_no_other(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="private_key_jwt")
        secretive = await h.client("other", "client_secret_post")
        app = App(registered=app.registered, secret=secretive.secret, key=app.key)  # so that its secret is one, too
        coder = await h.agent("coder")
        session, _ = await h.start(coder)
        shown, places = await kinds(h, app, coder, session.id), await slots(h, app, secretive, coder)
        for slot, (right, accepts) in places.items():
            for kind in shown.keys() - right:
                assert not await accepts(shown[kind]), f"{kind} in {slot}"
        for slot, (right, accepts) in places.items():
            for kind in right:
                assert await accepts(shown[kind]), f"{kind} in {slot}"
