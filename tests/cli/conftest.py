"""One desk for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(directory=tmp_path)
    made.configure('data_dir = "data"\n')
    return made
