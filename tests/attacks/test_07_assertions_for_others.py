"""Row 7, for identity assertion grants: one for another server, client, resource or person opens nothing here."""

from __future__ import annotations

from pathlib import Path

from tests.identity_provider import OTHER_RSA
from tests.oauth.enterprise import company
from tests.oauth.house import claims_of


async def test_an_assertion_that_was_not_meant_for_this_use_opens_nothing(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        elsewhere = "https://other.example.com"
        for stolen in (
            c.assertion(aud=elsewhere),
            c.assertion(aud=[c.issuer, elsewhere]),
            c.assertion(aud=c.gateway.url),
            c.assertion(aud=None),
            c.assertion(iss=elsewhere),
            c.assertion(iss=c.issuer),
            c.assertion(iss=f"{c.provider.issuer}/"),
            c.assertion(resource=f"{elsewhere}/mcp"),
            c.assertion(resource=[]),
            c.assertion(client_id="claude"),
            c.assertion(client_id="cursor"),  # the provider calls it something else
            c.assertion(client_id="cursor-at-idp"),
            c.assertion(tenant="another"),
            c.assertion(key=OTHER_RSA),
            c.assertion(act={"sub": "somebody"}),
        ):
            await c.refused(await c.post(stolen), "invalid_grant")


async def test_an_assertion_opens_once_and_only_what_it_says_for_whom_it_says(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        text = c.assertion(scope="pr:read")
        token = await c.token(text, scope="pr:read pr:write deploy secret:read")
        assert claims_of(token)["scope"] == "mcp:connect pr:read:*:*"
        assert (await c.post(text)).json()["error"] == "invalid_grant"
        merged = await c.gateway.raw_call(
            token, "acme__merge_pull_request", {"owner": "acme", "repo": "api", "number": 1}
        )
        assert merged.status_code == 403
        bobs = claims_of(await c.token(c.assertion("U2")))
        assert (bobs["sub"], bobs["act"]["sub"]) == ("user:bob", "agent:cursor@bob")


async def test_an_assertion_passes_for_nothing_else(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        answer = await c.list_pull_requests(c.assertion())
        assert answer.status_code == 401
        base = {"client_id": "", "client_secret": ""}
        assertion_type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        as_client = await c.post(
            c.assertion(), client_assertion=c.assertion(), client_assertion_type=assertion_type, **base
        )
        await c.refused(as_client, "invalid_client")
        exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
        kind = "urn:ietf:params:oauth:token-type:id-jag"
        asked = await c.post("", grant_type=exchange, subject_token=c.assertion(), subject_token_type=kind)
        assert asked.json()["error"] in {"invalid_client", "unauthorized_client"}
        refreshed = await c.post("", grant_type="refresh_token", refresh_token=c.assertion())
        await c.refused(refreshed, "invalid_grant")
        code = await c.post("", grant_type="authorization_code", code=c.assertion(), code_verifier="v" * 43)
        await c.refused(code, "invalid_grant")


async def test_an_agent_with_a_key_brings_no_assertion(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        coder = await c.gateway.ready("coder", "pr:read", subject="carol")
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": c.assertion()}
        answer = await c.gateway.token_answer(coder, **form)
        assert answer.json()["error"] == "unauthorized_client"
        assert await c.gateway.store.person("alice") is None
