"""The README says what is true: its demo, its promises, its length."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def console(after: str) -> str:
    """The first console block after a line."""
    return README.split(after, 1)[1].split("```console\n", 1)[1].split("```", 1)[0]


@pytest.fixture(scope="module")
def told() -> str:
    """What `make demo` prints when nobody sits at a terminal."""
    command = [sys.executable, "-m", "examples.incident"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_prints_what_the_readme_shows(told: str) -> None:
    shown = console("## In a fleet").splitlines()
    assert shown[0] == "$ make demo"
    pattern = "".join("(?:.*\n)*?" if line.strip() == "..." else re.escape(line) + "\n" for line in shown[1:])
    # One more is written where a call is told that it was called off before the gateway hears that nobody waits.
    pattern = re.sub(r"\d+\\ records", r"\\d+ records", pattern)
    assert re.fullmatch(pattern, told), told


def test_every_sentence_of_the_incident_is_told(told: str) -> None:
    for word in ("PERMITTED", "DENIED", "HELD", "APPROVED", "REVOKED", "VERIFIED", "refused"):
        assert word in told


def test_the_demo_shows_no_secret(told: str) -> None:
    assert "CANARY" not in told


def test_each_of_the_six_promises_links_to_its_test() -> None:
    promises = README.split("## Six promises", 1)[1].split("\n## ", 1)[0]
    numbered = re.split(r"^\d\. ", promises, flags=re.MULTILINE)[1:]
    assert len(numbered) == 6
    assert all("(tests/" in promise for promise in numbered)


def test_the_readme_is_short() -> None:
    assert README.count("\n") <= 180
