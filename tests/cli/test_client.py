"""`mcp-authz client`: registering by hand, and looking."""

from __future__ import annotations

import json

from mcp_authz.rules.keys import PrivateKey
from tests.cli.desk import Desk

BACK = "http://127.0.0.1/callback"


def test_a_client_is_registered_with_a_secret_that_is_shown_once(desk: Desk) -> None:
    printed = desk.ok("client", "add", "Team chat", "--redirect", "https://chat.example.com/cb", "--secret")
    said = dict(line.split(": ", 1) for line in printed.splitlines() if ": " in line)
    assert said["next"].endswith("client show team-chat")
    shown = desk.json("client", "show", "team-chat")
    assert shown["id"] == said["client id"] and shown["method"] == "client_secret_basic" and shown["agents"] == []
    assert said["client secret, shown this once"] not in json.dumps(shown) + desk.ok("audit", "list", "--json")
    assert shown["id"] in desk.ok("client", "list")
    assert f"client {shown['id']} is revoked" in desk.ok("revoke", "client", "team-chat", "--reason", "it is gone")


def test_a_client_may_prove_itself_by_a_key(desk: Desk) -> None:
    public = PrivateKey.generate().public
    desk.path("jwks.json").write_text(json.dumps({"keys": [{**public.jwk, "kid": "1"}]}))
    for name, key in (("One", json.dumps(public.jwk)), ("Two", str(desk.path("jwks.json")))):
        added = desk.json("client", "add", name, "--redirect", BACK, "--key", key)
        assert added["method"] == "private_key_jwt" and added["client_secret"] is None


def test_what_cannot_be_registered_is_one_sentence(desk: Desk) -> None:
    assert "https" in desk.refused("client", "add", "Evil", "--redirect", "http://evil.example/cb")
    assert "client list" in desk.refused("client", "show", "nobody")
