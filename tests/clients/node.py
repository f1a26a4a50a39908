"""Clients that run on Node: where they are, and one bounded run of each."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.world import ROOT, Actor, World

PACKAGES = ROOT / "examples" / "node_modules"
HERE = Path(__file__).parent
INSTALL = "`npm install --no-package-lock --prefix examples`"
OLDEST = (22, 19)  # what the Inspector asks for
SOON = 45.0  # seconds; every run is bounded by it


@functools.cache
def node() -> str:
    """The path of a Node that runs every client; the test is skipped where there is none."""
    for found in (PACKAGES / ".bin" / "node", shutil.which("node")):
        if found is not None and Path(found).exists():
            told = subprocess.run([str(found), "--version"], capture_output=True, text=True, timeout=SOON, check=True)
            if tuple(int(part) for part in told.stdout.strip().lstrip("v").split(".")[:2]) >= OLDEST:
                return str(found)
    pytest.skip(f"needs Node {OLDEST[0]}.{OLDEST[1]} or newer: {INSTALL}")


def package(name: str) -> Path:
    """Where an npm package is; the test is skipped where it is not."""
    if not (PACKAGES / name / "package.json").exists():
        pytest.skip(f"needs the npm package {name}: {INSTALL}")
    return PACKAGES / name


@functools.cache
def program(name: str, of: str) -> str:
    """The path of a program that an npm package brings."""
    words = json.loads((package(of) / "package.json").read_text())["bin"][name]
    return str(package(of) / words)


async def run(
    *words: str, home: Path, said: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One run of a script to its end; it finds an empty home directory and nothing else of ours."""
    await anyio.Path(home).mkdir(exist_ok=True)
    surroundings = {"HOME": str(home), "PATH": "/usr/bin:/bin", **(env or {})}
    with anyio.fail_after(SOON):
        done = await anyio.run_process([node(), *words], input=said.encode(), check=False, env=surroundings, cwd=home)
    return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())


async def run_client(script: str, w: World, **job: Any) -> dict[str, Any]:
    """What a client of this folder reports after it did its steps."""
    packages = f"{PACKAGES}/"
    done = await run(
        str(HERE / script), home=w.directory / "home", said=json.dumps({"packages": packages, "url": w.url, **job})
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def key_of(w: World, actor: Actor) -> dict[str, str]:
    """What a client needs that signs in with the agent's own key."""
    return {"agent": actor.name, "pem": actor.key.to_pem(), "issuer": w.config.public_url}
