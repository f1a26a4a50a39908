"""docs/link-format.md: its example is what the code writes, and whoever follows the page alone verifies it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import nacl.signing
import pytest

from mcp_authz import limits
from mcp_authz.rules.call_proof import Proved, prove_call, read_call_proof
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.constraint_kinds import Constraint
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import Given, Purpose, derive, sign_root, verify_links

PAGE = Path(__file__).parent.parent.parent / "docs" / "link-format.md"
GATEWAY, PLANNER, CODER = (PrivateKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
ISSUER, NOW = "https://authz.example.com", datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ARGUMENTS = {"repo": "api", "title": "Fix 41"}


def example() -> list[str]:
    """Root, link and proof of the page."""
    given = Given(
        id="019aa6c5-2c00-7000-8000-000000000001",
        holder=PLANNER.public,
        scope=parse_scopes("pr:read pr:write"),
        tools=None,
        max_depth=2,
        issued_at=NOW,
        expires_at=NOW + timedelta(hours=1),
    )
    purpose = Purpose(
        subject="user:alice",
        subject_issuer=ISSUER,
        session="s_1",
        purpose="fix issue 41",
        agents=("agent:planner",),
    )
    root = sign_root(given, purpose, issuer=ISSUER, key=GATEWAY)
    anything = {"constraint_type": "optional", "constraint": {"constraint_type": "wildcard"}}
    repo = {"constraint_type": "exact", "value": "api"}
    less = Given(
        id="019aa6c5-5f10-7000-8000-000000000002",
        holder=CODER.public,
        scope=parse_scopes("pr:write"),
        tools=parse_tools({"acme__open": {"repo": repo, "title": anything}}),
        max_depth=1,
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=10),
        max_calls=3,
        reason="open it",
    )
    link = derive([root], less, key=PLANNER)
    call = Proved(link=less.id, tool="acme__open", arguments=ARGUMENTS, audience=f"{ISSUER}/mcp")
    return [root, link, prove_call(call, id="p_1", at=NOW, key=CODER)]


@cache
def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def members(part: str) -> Any:
    return json.loads(unb64(part))


def test_the_example_is_what_the_code_writes() -> None:
    written = [re.sub(r"\s", "", block) for block in blocks("text")]
    assert written[:3] == example()


def test_the_decoded_example_is_the_example() -> None:
    shown = [json.loads(block) for block in blocks("json")]
    decoded = [members(part) for token in example() for part in token.split(".")[:2]]
    assert shown[: len(decoded)] == decoded


def test_the_seeds_and_keys_of_the_page_are_those_of_the_example() -> None:
    page = PAGE.read_text()
    for key in (GATEWAY, PLANNER, CODER):
        assert key.public.jwk["x"] in page and key.public.thumbprint in page


def test_the_code_verifies_the_example() -> None:
    root, link, proof = example()
    keys = {GATEWAY.public.thumbprint: GATEWAY.public}
    found = verify_links([root, link], issuer=ISSUER, keys=keys, presenter=CODER.public.thumbprint, now=NOW)
    call = Proved(link=found.leaf.id, tool="acme__open", arguments=ARGUMENTS, audience=f"{ISSUER}/mcp")
    assert read_call_proof(proof, call, holder=found.leaf.holder, now=NOW).id == "p_1"


def followed(tokens: list[str], gateway: bytes) -> dict[str, Any]:
    """What a verifier that somebody wrote from the page alone says of the chain: the claims of its leaf."""
    key, parent, claims = gateway, None, {}
    for token in tokens:
        head, payload, signature = token.split(".")
        header = members(head)
        assert header["alg"] == "EdDSA" and header["typ"] == "aat+jwt" and "crit" not in header
        nacl.signing.VerifyKey(key).verify(f"{head}.{payload}".encode(), unb64(signature))
        claims = members(payload)
        if parent is None:
            assert claims["del_depth"] == 0 and "par_hash" not in claims
        else:
            above, hashed = parent
            jwk = json.dumps(above["cnf"]["jwk"], sort_keys=True, separators=(",", ":"))
            thumbprint = base64.urlsafe_b64encode(hashlib.sha256(jwk.encode()).digest()).rstrip(b"=").decode()
            assert claims["iss"] == f"urn:ietf:params:oauth:jwk-thumbprint:sha-256:{thumbprint}"
            assert unb64(claims["par_hash"]) == hashed
            assert claims["del_depth"] == above["del_depth"] + 1 <= above["del_max_depth"]
            assert above["iat"] <= claims["iat"] < claims["exp"] <= above["exp"]
        parent = (claims, hashlib.sha256(f"{head}.{payload}".encode()).digest())
        key = unb64(claims["cnf"]["jwk"]["x"])
    return claims


def test_a_verifier_that_follows_the_page_alone_accepts_the_example_and_no_other_order() -> None:
    *tokens, _ = [re.sub(r"\s", "", block) for block in blocks("text")[:3]]
    assert followed(tokens, GATEWAY.public.raw)["scope"] == "pr:write"
    with pytest.raises(Exception, match=r"."):
        followed(tokens[::-1], GATEWAY.public.raw)


def test_the_page_names_every_kind_of_constraint_and_every_bound() -> None:
    page = PAGE.read_text()
    kinds = {"exact", "range", "one_of", "not_one_of", "contains", "subset", "wildcard", "all", "any"}
    assert {name for name in kinds | {"optional", "under"} if f"| `{name}` |" not in page} == set()
    assert len(kinds) + 2 == len(Constraint.__args__)
    for bound in (limits.CHAIN_LINKS, limits.CHAIN_BYTES // 1024, limits.CONSTRAINT_DEPTH, limits.CONSTRAINT_CLAUSES):
        assert str(bound) in page
    for bound in (limits.CONSTRAINT_VALUES, limits.TOOLS_BYTES):
        assert str(bound) in page
    for seconds in (limits.SESSION_LIFETIME, limits.CLOCK_SKEW):
        assert str(int(seconds.total_seconds())) in page or str(int(seconds.total_seconds() // 3600)) in page
