"""Row 5: a code or a refresh token that was stolen gives the thief nothing for long, and is found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_authz.errors import TokenRefused
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.house import CALLBACK, VERIFIER, expect, house, refused


async def test_a_stolen_code_is_worth_nothing_without_its_verifier_and_the_client_still_gets_its_token(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as h:
        app = await h.client()  # public: the thief says the same id
        code = await h.agreed(app)
        for guess in (None, "", "a" * 43, VERIFIER[1:], h.issuer):
            answer = await h.redeem_code(app, code, code_verifier=guess)
            assert answer.json()["error"] in {"invalid_request", "invalid_grant"}
        expect(await h.redeem_code(app, code))


async def test_a_stolen_code_is_worth_nothing_in_another_client_of_the_thief(tmp_path: Path) -> None:
    """Code injection: the thief's own client has the code of the victim's, and may even know the verifier."""
    async with house(tmp_path) as h:
        app, thiefs = await h.client(), await h.client("thief", "client_secret_post")
        code = await h.agreed(app)
        refused(await h.redeem_code(thiefs, code), "invalid_grant")
        expect(await h.redeem_code(app, code))


async def test_a_victims_client_takes_no_code_that_a_thief_injects(tmp_path: Path) -> None:
    """The other way round: the thief's code in the victim's own request, with the victim's verifier."""
    async with house(tmp_path) as h:
        app = await h.client()
        code = await h.agreed(app, "mallory", challenge="B" * 43)
        refused(await h.redeem_code(app, code), "invalid_grant")


async def test_a_replayed_code_ends_what_it_gave_and_both_sides_sign_in_again(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        code = await h.agreed(app)
        said = expect(await h.redeem_code(app, code))
        h.clock.advance(minutes=5)  # also when the code has expired meanwhile
        refused(await h.redeem_code(app, code), "invalid_grant")
        with pytest.raises(TokenRefused):
            await h.caller(said["access_token"])
        refused(await h.refresh(app, said["refresh_token"]), "invalid_grant")
        (revoked,) = await h.events("revocation")
        assert (revoked["client"], revoked["subject"], revoked["of"]) == (app.id, "user:alice", "grant")


async def test_whoever_only_has_a_used_code_ends_nobodys_session_with_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, other = await h.client(), await h.client("other")
        code = await h.agreed(app)
        said = expect(await h.redeem_code(app, code))
        refused(await h.redeem_code(app, code, code_verifier="a" * 43), "invalid_grant")
        refused(await h.redeem_code(other, code), "invalid_grant")
        assert (await h.redeem_code(app, code, redirect_uri=f"{CALLBACK}x")).status_code == 400
        assert (await h.caller(said["access_token"])).session is not None
        assert await h.events("revocation") == []


@pytest.mark.parametrize("first", ["thief", "client"])
async def test_a_stolen_refresh_token_is_found_out_whoever_comes_first(tmp_path: Path, first: str) -> None:
    async with house(tmp_path) as h:
        app = await h.client()
        said = await h.signed_in(app)
        won = expect(await h.refresh(app, said["refresh_token"]))  # whichever of the two this is
        refused(await h.refresh(app, said["refresh_token"]), "invalid_grant")
        with pytest.raises(TokenRefused):
            await h.caller(won["access_token"])
        refused(await h.refresh(app, won["refresh_token"]), "invalid_grant")


async def test_a_refresh_token_of_a_client_with_a_key_is_worth_nothing_without_the_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, key = await h.client(), PrivateKey.generate()
        said = expect(await h.redeem_code(app, await h.agreed(app), headers=h.proof(key)))
        for headers in ({}, h.proof(PrivateKey.generate())):
            refused(await h.refresh(app, said["refresh_token"], headers=headers), "invalid_grant")
        expect(await h.refresh(app, said["refresh_token"], headers=h.proof(key)))


def everything_in(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.iterdir() if file.is_file())


async def test_neither_code_nor_refresh_token_is_written_down_anywhere(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_post")
        code = await h.agreed(app)
        said = expect(await h.redeem_code(app, code))
        later = expect(await h.refresh(app, said["refresh_token"]))
        refused(await h.refresh(app, said["refresh_token"]), "invalid_grant")
        secrets = [code, said["refresh_token"], later["refresh_token"], app.secret, said["access_token"], VERIFIER]
        written = everything_in(tmp_path)
        assert app.id.encode() in written
        for secret in secrets:
            assert secret.encode() not in written
