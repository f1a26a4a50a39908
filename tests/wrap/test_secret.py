"""Which values are taken for secrets."""

from __future__ import annotations

import pytest

from mcp_authz.wrap.secret import is_secret, looks_secret, secret_arguments, url_has_secret


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_TOKEN", "x"),
        ("api_key", "x"),
        ("DB_PASSWORD", "x"),
        ("PGPASS", "x"),
        ("AUTHORIZATION", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("GITHUB_PAT", "x"),
        ("SENTRY_DSN", "x"),
        ("DATABASE", "postgres://me:pw@host/db"),
        ("REDIS", "redis://:pw@host"),
        ("WHATEVER", "ghp_0123456789abcdefghij"),
        ("WHATEVER", "sk-proj-0123456789abcdef"),
        ("WHATEVER", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        ("WHATEVER", "dGhpcyBpcyBhIHNlY3JldCBrZXkgMTIz"),
        ("WHATEVER", "3f2a9c7e-1b4d-4e6f-8a90-b1c2d3e4f506"),
    ],
)
def test_these_are_secrets(name: str, value: str) -> None:
    assert is_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_TOKEN", ""),
        ("MEMORY_FILE_PATH", "/home/alice/notes/memory2026/memory.json"),
        ("LOG_LEVEL", "debug"),
        ("NODE_OPTIONS", "--max-old-space-size=4096"),
        ("API_URL", "https://api.example.com/v2/things?page=1"),
        ("PORT", "8080"),
        ("TZ", "Europe/Berlin"),
        ("GREETING", "hello wide world, how are you today"),
        ("PACKAGE", "@modelcontextprotocol/server-filesystem@2026.8.31"),
        ("MODEL", "claude-something-large-with-a-name"),
        ("FLAG", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1"),
    ],
)
def test_these_are_not(name: str, value: str) -> None:
    assert not is_secret(name, value)


def test_secrets_among_arguments_are_found() -> None:
    arguments = ["--api-key", "x", "--token=y", "--verbose", "/tmp", "--password", "--next", "ghp_0123456789abcdefghij"]
    assert secret_arguments(arguments) == {1, 2, 7}
    assert not secret_arguments(["-y", "@scope/server-x@1.2.3", "--port", "80", "/home/me/files"])


def test_secrets_in_urls_are_found() -> None:
    assert url_has_secret("https://me:pw@host/mcp") and url_has_secret("https://host/mcp?api_key=x")
    assert not url_has_secret("https://host/mcp?page=2") and not looks_secret("https://host/mcp")
