"""What was verified of signed links is remembered up to a number of bytes, and never instead of what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.rules.signed_link import parse_chain
from tests.oauth.house import house


async def test_only_so_many_bytes_of_verified_links_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as h:
        planner, coder, *_ = await h.family()
        chain = await h.root(planner)
        texts = [parse_chain(h.derive(chain, planner, coder)) for _ in range(4)]
        size = sum(map(len, texts[0]))
        monkeypatch.setattr(limits, "LINKS_REMEMBERED", 2 * size)
        signatures = h.chains.signatures
        for _ in range(2):  # what is verified again counts once
            for each in texts:
                signatures.verify(each)
        remembered = signatures._verified
        assert sum(length for _, length in remembered.values()) == signatures._bytes <= 2 * size
        assert signatures.verify(texts[-1]).leaf.digest in remembered and len(remembered) < 1 + len(texts)
