"""`make run`: a small repository, a person, an agent with a key, and the gateway in front of two published servers."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUN = ROOT / ".run"
CONFIG = ROOT / "examples" / "gateway.toml"
KEY = RUN / "coder.pem"
SCOPES = "git:read git:write git:reset time:read"


def mcp_authz(*arguments: str) -> None:
    """Run the gateway's own command line, as anybody would."""
    command = [sys.executable, "-m", "mcp_authz.cli.main", "--config", str(CONFIG), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr.strip() or f"`{' '.join(arguments[:2])}` failed")


def make_repository(directory: Path) -> None:
    """A repository with one commit and one change that waits."""
    if (directory / ".git").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(directory), "-c", "user.name=Example", "-c", "user.email=example@example.com"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch", "main"], check=True)
    (directory / "README.md").write_text("# An example\n")
    subprocess.run([*git, "add", "README.md"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "Begin"], check=True)
    (directory / "README.md").write_text("# An example, changed\n")


def enrol(person: str) -> None:
    """One person, one agent with a key of its own, one grant; nothing happens when they are there already."""
    if KEY.exists():
        return
    mcp_authz("user", "add", person)
    mcp_authz("agent", "add", "coder", "--owner", person, "--new-key", str(KEY), "--ceiling", SCOPES, "--interactive")
    mcp_authz("grant", "add", "--subject", person, "--agent", "coder", "--scope", SCOPES)


def main() -> None:
    """Prepare what is missing, say how to connect, and become the gateway."""
    make_repository(RUN / "repository")
    person = re.sub(r"[^a-z0-9-]", "-", getpass.getuser().lower()).strip("-") or "alice"
    enrol(person)
    python = Path(sys.executable).relative_to(ROOT) if Path(sys.executable).is_relative_to(ROOT) else sys.executable
    print(f"agent `coder` acts for `{person}`, its key is in {KEY.relative_to(ROOT)}")
    print(f"connect from a second terminal: {python} -m examples.client")
    sys.stdout.flush()
    arguments = [sys.executable, "-m", "mcp_authz.cli.main", "--config", str(CONFIG), "serve"]
    os.execv(sys.executable, arguments)


if __name__ == "__main__":
    main()
