"""A person's own login at a gateway, kept for them: where it lies, and as which client it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mcp_authz.client.discovery import endpoint
from mcp_authz.client.known import file_name
from mcp_authz.client.loopback import Loopback, Opener, browser
from mcp_authz.client.registering import Client
from mcp_authz.client.sign_in import PersonAuth
from mcp_authz.client.token_files import FileTokens
from mcp_authz.config import user_data_dir

CLIENT: Final = Client(id="mcp-authz-cli")  # every gateway knows it


def login_file(url: str) -> Path:
    """Where the login at this gateway lies.

    Raises:
        InputError: the URL is none, or one by which a token would travel in the open.
    """
    return user_data_dir() / "logins" / file_name(endpoint(url))


def person_auth(
    url: str, *, scope: str | None = None, show: Opener = browser, port: int = 0, beside: str | None = None
) -> PersonAuth:
    """Return what signs the person in at this gateway, and what is kept of that.

    Raises:
        InputError: as `login_file`.
    """
    return PersonAuth(
        endpoint(url),
        redirect=Loopback(port=port, show=show),
        client=CLIENT,
        storage=FileTokens(login_file(url)),
        scope=scope,
        beside=beside,
    )
