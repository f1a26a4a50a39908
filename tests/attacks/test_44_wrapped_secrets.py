"""Row 44, while servers are wrapped: their secrets go into files of their own, and nowhere else."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.config import read_secret_file
from tests.attacks.attacker import serving, spy, tool
from tests.wrap.desktop import Desktop

CANARY = f"CANARY-7c1e0d9b4f-{os.getpid()}"  # of this run alone: others may run beside it, and are seen in /proc
TELLS = "import os, sys; sys.exit('cannot use ' + os.environ['TOKEN'])"


@pytest.fixture
def desktop(tmp_path: Path) -> Desktop:
    home = tmp_path / "home"
    home.mkdir()
    return Desktop(home=home, env={"FROM_OUTSIDE": f"{CANARY}-outside"})


def found_in(raw: bytes) -> bool:
    plain = CANARY.encode()
    coded = [base64.b64encode(plain[start:])[:-4] for start in range(3)]
    return any(spelling in raw for spelling in (plain, plain.hex().encode(), CANARY.encode("utf-16-le"), *coded))


def holders(desktop: Desktop) -> set[str]:
    """The files below the home that have the canary in clear."""
    return {
        str(path.relative_to(desktop.home))
        for path in desktop.home.rglob("*")
        if path.is_file() and found_in(path.read_bytes())
    }


def client(desktop: Desktop, url: str) -> Path:
    local = desktop.spy("spy", {"name": "look"})
    servers: dict[str, Any] = {
        "local": {**local, "env": {"TOKEN": f"{CANARY}-1", "LEVEL": "debug", "OTHER": "${FROM_OUTSIDE}"}},
        "remote": {"url": url, "headers": {"Authorization": f"Bearer {CANARY}-2", "X-Anything": f"{CANARY}-3"}},
        "tells": {"command": sys.executable, "args": ["-c", TELLS], "env": {"TOKEN": f"{CANARY}-4"}},
    }
    return desktop.client({"mcpServers": servers}, "work/.mcp.json")


SECRETS = {
    f".config/mcp-authz/secrets/{name}"
    for name in ("local.TOKEN", "local.OTHER", "remote.Authorization", "remote.X-Anything")
}


def test_the_secrets_of_wrapped_servers_are_in_their_files_and_nowhere_else(desktop: Desktop, tmp_path: Path) -> None:
    with serving(spy(tmp_path / "remote", tool("look"))) as url:
        path = client(desktop, url)
        done = desktop.run("wrap", path, "--yes")
        assert done.code == 0 and not found_in((done.out + done.err).encode())
        assert "it said: cannot use <redacted>" in done.out
        # The client's file keeps the server that did not start, and the kept original everything.
        kept = {str(p.relative_to(desktop.home)) for p in (desktop.data / "wrapped").rglob("original")}
        assert holders(desktop) == SECRETS | kept | {"work/.mcp.json", "spy/heard"}
        assert list(json.loads(path.read_text())["mcpServers"]) == ["mcp-authz", "tells"]
        for name in SECRETS:
            file = desktop.home / name
            assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
        loaded = desktop.loaded()
        assert read_secret_file(loaded, loaded.servers["local"].env_files["TOKEN"]) == f"{CANARY}-1"
        assert loaded.servers["local"].env["LEVEL"] == "debug"
        for words in (("wrap", path, "--yes", "--json"), ("tools", "review", "--yes", "--json"), ("audit", "list")):
            said = desktop.run(*words)
            assert said.code == 0 and not found_in((said.out + said.err).encode())
        assert f"{CANARY}-1" in desktop.heard("spy") and f"{CANARY}-outside" in desktop.heard("spy")


def test_json_and_a_dry_run_name_secrets_and_show_none(desktop: Desktop, tmp_path: Path) -> None:
    with serving(spy(tmp_path / "remote", tool("look"))) as url:
        path = client(desktop, url)
        for words in (("--dry-run",), ("--dry-run", "--json"), ("--yes", "--json")):
            done = desktop.run("wrap", path, *words)
            assert done.code == 0 and "Authorization" in done.out and not found_in((done.out + done.err).encode())


def test_no_process_is_given_a_secret_as_an_argument(desktop: Desktop, tmp_path: Path) -> None:
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.002):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(entry.read_bytes())
                except OSError:
                    continue

    if not Path("/proc/self/cmdline").exists():
        pytest.skip("looks into /proc")
    watcher = threading.Thread(target=look)
    with serving(spy(tmp_path / "remote", tool("look"))) as url:
        path = client(desktop, url)
        watcher.start()
        try:
            desktop.ok("wrap", path, "--yes")
        finally:
            over.set()
            watcher.join()
    assert any(b"wrap" in line and os.fsencode(path) in line for line in seen)
    assert any(b"spy.py" in line and b"home/spy" in line for line in seen)
    assert not any(found_in(line) for line in seen)


def test_a_secret_among_arguments_stays_but_is_not_repeated(desktop: Desktop) -> None:
    local = desktop.spy("spy", {"name": "look"})
    path = desktop.client({"mcpServers": {"a": {**local, "args": [*local["args"], "--api-key", CANARY]}}})
    for words in (("--dry-run",), ("--yes", "--json")):
        done = desktop.run("wrap", path, *words)
        assert not found_in((done.out + done.err).encode())
        assert "argument 4 looks like a secret" in done.out and "<hidden>" in done.out


def test_a_secret_from_outside_the_file_is_not_written_into_arguments_or_urls(desktop: Desktop) -> None:
    local = desktop.spy("spy", {"name": "look"})
    servers = {
        "good": local,
        "argument": {**local, "args": [*local["args"], "--token", "${FROM_OUTSIDE}"]},
        "address": {"url": "https://host.invalid/mcp?api_key=${FROM_OUTSIDE}"},
    }
    path = desktop.client({"mcpServers": servers}, "work/.mcp.json")
    left = {one["name"]: one["because"] for one in desktop.wrap(path)["left"]}
    assert re.fullmatch(r".*into its arguments; let it take it from `env`", left["argument"])
    assert "into its URL" in left["address"] and holders(desktop) == set()
