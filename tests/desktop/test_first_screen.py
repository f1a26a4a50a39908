"""The first session of the README, as a new user would run it: real servers, a real client, a fresh home."""

from __future__ import annotations

import json
from pathlib import Path

from tests.desktop.console import fresh_home
from tests.world import ROOT

SESSION = (ROOT / "README.md").read_text().split("## On a desktop", 1)[1].split("```console\n", 1)[1].split("```", 1)[0]
WRAP = "$ mcp-authz wrap"


def test_the_first_session_of_the_readme_runs_as_it_is_shown(tmp_path: Path) -> None:
    configuration, session = SESSION.split(WRAP, 1)
    before = configuration.split("\n", 1)[1]
    with fresh_home(tmp_path) as home:
        file = home.path / "claude_desktop_config.json"
        file.write_text(before)
        json.loads(before)
        home.follow(WRAP + session)
        assert (home.path / "notes" / "todo.txt").read_text() == "nothing"
        assert file.read_text() == before
