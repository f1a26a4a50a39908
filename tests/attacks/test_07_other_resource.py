"""Row 7: a token for another resource, or from another issuer, counts nowhere here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.store.ports import Event
from tests.oauth.house import claims_of, expect, house, refused


async def test_a_token_of_another_gateway_opens_nothing_here(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with house(tmp_path / "a") as here, house(tmp_path / "b") as there:
        planner, _, _, _ = await here.family()
        coder = await there.agent("coder")
        await there.start(coder)
        foreign = await there.token(coder)
        answer = await here.http.post(here.resource, json={}, headers={"Authorization": f"Bearer {foreign}"})
        assert answer.status_code == 401 and here.calls == []
        refused(await here.exchange(planner, foreign, requested_actor="coder"), "invalid_request")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://other.example/mcp"},
        {"aud": ["https://other.example/mcp"]},
        {"iss": "https://other.example"},
        {"aud": None},
        {"iss": None},
    ],
    ids=str,
)
async def test_our_own_key_does_not_make_up_for_another_audience_or_issuer(tmp_path: Path, changes: Any) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        said = {name: v for name, v in {**claims_of(await h.token(planner)), **changes}.items() if v is not None}
        forged = jose.sign(said, typ="at+jwt", key=h.keys.signing, kid=h.keys.kid)
        answer = await h.http.post(h.resource, json={}, headers={"Authorization": f"Bearer {forged}"})
        assert answer.status_code == 401
        refused(await h.exchange(planner, forged, requested_actor="coder"), "invalid_request")


async def test_a_foreign_key_under_our_key_id_signs_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        said = claims_of(await h.token(planner))
        for kid in (h.keys.kid, planner.key.public.thumbprint):
            for key in (planner.key, PrivateKey.generate()):
                forged = jose.sign(said, typ="at+jwt", key=key, kid=kid)
                answer = await h.http.post(h.resource, json={}, headers={"Authorization": f"Bearer {forged}"})
                assert answer.status_code == 401


async def test_a_token_is_issued_for_our_resource_and_for_no_other(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        grant = {"grant_type": "client_credentials"}
        for other in ("https://other.example/mcp", f"{h.resource}/", f"{h.resource}#a", h.issuer):
            refused(await h.post(coder, **grant, resource=other), "invalid_target")
            refused(await h.post(coder, **grant, audience=other), "invalid_target")
        expect(await h.post(coder, **grant, resource=h.resource))


async def test_nothing_of_another_gateways_client_counts_here(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with house(tmp_path / "a") as here, house(tmp_path / "b") as there:
        app = await here.client(method="private_key_jwt")
        await there.store.add_client(app.registered, Event(kind="administration", at=there.clock(), fields={}))
        said = await there.signed_in(app)
        await here.signed_in(app)
        answer = await here.http.post(
            here.resource, json={}, headers={"Authorization": f"Bearer {said['access_token']}"}
        )
        assert answer.status_code == 401 and here.calls == []
        refused(await here.redeem_code(app, await there.agreed(app)), "invalid_grant")
        refused(await here.refresh(app, said["refresh_token"]), "invalid_grant")
        assert expect(await here.ask(app, "/introspect", token=said["access_token"])) == {"active": False}
        meant_for_there = {"client_assertion": there.app_assertion(app)}
        refused(await here.refresh(app, said["refresh_token"], **meant_for_there), "invalid_client")


async def test_a_client_gets_tokens_for_our_resource_and_for_no_other(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        code = await h.agreed(app)
        for other in ("https://other.example/mcp", f"{h.resource}/", h.issuer):
            refused(await h.redeem_code(app, code, resource=other), "invalid_target")
        said = expect(await h.redeem_code(app, code, resource=h.resource))
        refused(await h.refresh(app, said["refresh_token"], audience="https://other.example/mcp"), "invalid_target")
        assert claims_of(said["access_token"])["aud"] == h.resource
