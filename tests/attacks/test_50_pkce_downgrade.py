"""Row 50: no request talks the server out of PKCE, out of its method, or out of a client's authentication."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.oauth.house import VERIFIER, expect, house, refused


@pytest.mark.parametrize("method", ["none", "client_secret_post", "private_key_jwt"])
async def test_every_client_shows_its_verifier_also_one_that_proves_itself(tmp_path: Path, method: Any) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method=method)
        refused(await h.redeem_code(app, await h.agreed(app), code_verifier=None), "invalid_request")


@pytest.mark.parametrize("more", [{"code_challenge_method": "plain"}, {"code_challenge": VERIFIER}], ids=str)
async def test_the_challenge_itself_is_no_verifier_whatever_the_request_says(
    tmp_path: Path, more: dict[str, str]
) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        code = await h.agreed(app, challenge=VERIFIER)  # as `plain` would have it
        refused(await h.redeem_code(app, code, **more), "invalid_grant")


async def test_a_client_with_a_key_is_never_let_in_as_one_without(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="private_key_jwt")
        code = await h.agreed(app)
        bare = {"client_assertion": None, "client_assertion_type": None, "client_id": app.id}
        refused(await h.redeem_code(app, code, **bare), "invalid_client")
        refused(await h.redeem_code(app, code, **bare, client_secret="x"), "invalid_client")
        said = expect(await h.redeem_code(app, code))
        refused(await h.refresh(app, said["refresh_token"], **bare), "invalid_client")
        refused(await h.ask(app, "/revoke", token=said["refresh_token"], **bare), "invalid_client")
        expect(await h.refresh(app, said["refresh_token"]))
