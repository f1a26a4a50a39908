"""One home for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wrap.desktop import Desktop


@pytest.fixture
def desktop(tmp_path: Path) -> Desktop:
    home = tmp_path / "home"
    home.mkdir()
    return Desktop(home=home)
