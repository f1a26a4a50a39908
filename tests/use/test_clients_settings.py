"""What an operator may say of clients, and of scopes in plain words."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_authz.config import parse_config
from mcp_authz.errors import ConfigError


def test_what_is_said_of_clients_and_scopes_is_read() -> None:
    config = parse_config(
        {
            "clients": {"dynamic_registration": True, "schemes": ["myapp"], "ceiling": ["files:*"], "grant_days": 90},
            "scopes": {"files:read": "read your files"},
        }
    )
    assert config.clients.dynamic_registration and config.clients.schemes == ("myapp",)
    assert config.clients.ceiling == ("files:*",) and config.scopes == {"files:read": "read your files"}


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"clients": {"schemes": ["javascript"]}}, "clients.schemes"),
        ({"clients": {"schemes": ["https"]}}, "clients.schemes"),
        ({"clients": {"ceiling": ["files:re*"]}}, "clients.ceiling"),
        ({"clients": {"grant_days": 0}}, "clients.grant_days"),
        ({"clients": {"grant_days": 91}}, "clients.grant_days"),
        ({"clients": {"unknown": 1}}, "clients.unknown"),
        ({"scopes": {"two words": "x"}}, "scopes"),
        ({"scopes": {"files:read": ""}}, "scopes"),
        ({"scopes": {"files:read": "x" * 81}}, "scopes"),
        ({"scopes": {"files:read": "read\nanything"}}, "scopes"),
        ({"scopes": {"files:read": "read\u202eanything"}}, "scopes"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_names_its_key(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"`{key}`"):
        parse_config(values)
