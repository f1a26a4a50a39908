"""The keys of the configured provider, over HTTP: from where its own metadata says, and of a sensible size."""

from __future__ import annotations

import pytest

from mcp_authz.errors import FetchRefused
from mcp_authz.provider_fetching import keys_of
from mcp_authz.rules.assertion_keys import read_keys
from tests.identity_provider import identity_provider


async def test_keys_come_from_where_the_metadata_or_the_operator_says() -> None:
    async with identity_provider() as provider:
        for configured in (None, f"{provider.issuer}/keys"):
            assert set(read_keys(await keys_of(provider.issuer, configured)())) == {("rsa-1", "RS256")}


async def test_what_is_no_document_of_this_provider_is_not_taken() -> None:
    async with identity_provider() as provider:
        here = provider.issuer
        for issuer, configured in (
            (f"{here}/tenant", None),  # nothing there
            (here, f"{here}/token"),  # not for reading
            ("http://localhost:1", None),  # nobody there
            (here, "http://localhost:1/keys"),
        ):
            with pytest.raises(FetchRefused):
                await keys_of(issuer, configured)()
        provider.published = [{"kid": "x" * 70_000}]
        with pytest.raises(FetchRefused, match="longer"):
            await keys_of(here, None)()
        provider.issuer = "https://login.example.com"
        with pytest.raises(FetchRefused, match="another issuer"):
            await keys_of(here, None)()


async def test_metadata_that_leads_to_keys_by_http_elsewhere_is_not_followed() -> None:
    async with identity_provider() as provider:
        for uri in ("http://keys.example.com/keys", "ftp://localhost/keys", "file:///etc/passwd", "http://[", None, 1):
            provider.jwks_uri = uri
            with pytest.raises(FetchRefused, match="jwks_uri"):
                await keys_of(provider.issuer, None)()
