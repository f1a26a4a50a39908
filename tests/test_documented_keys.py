"""docs/keys.md has every key that an installation makes."""

from __future__ import annotations

import re
from pathlib import Path

from mcp_authz.signing_key import USES

ROOT = Path(__file__).parent.parent


def rows() -> set[str]:
    table = (ROOT / "docs" / "keys.md").read_text().split("\n\n")[2]
    return {line.split("|")[1].strip().strip("`") for line in table.splitlines()[2:]}


def test_every_secret_and_every_use_of_a_signing_key_has_a_row_and_no_row_is_of_another() -> None:
    sources = "".join(path.read_text() for path in ROOT.glob("mcp_authz/**/*.py"))
    secrets = set(re.findall(r'\.secret\(\s*"([a-z-]+)"', sources))
    assert len(secrets) >= 6
    others = {"master key", "an agent's", "an approver's", "a passkey"}
    assert rows() == secrets | set(USES) | others
