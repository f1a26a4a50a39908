"""An identity is a name and a key that stays with whoever has it; its file is for its owner only."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.client import AgentIdentity, DelegationError, KeyRefused
from mcp_authz.client.agent_identity import leaf
from mcp_authz.errors import ConfigError, Conflict, InputError
from mcp_authz.rules.keys import PrivateKey
from tests.client_library.chains import root

SERVER = {"starlette", "authlib", "cedarpy", "sqlite_utils", "sqlite3", "mcp", "typer", "uvicorn", "jinja2", "webauthn"}
SERVER |= {"aiohttp", "pydantic", "jsonschema", "rich", "tomlkit", "desktop_notifier", "uvloop", "httptools"}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_importing_the_library_loads_nothing_of_the_server() -> None:
    program = "import sys, mcp_authz.client as c; [getattr(c, n) for n in c.__all__]; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = done.stdout.split()
    assert "mcp_authz.client.auth" in loaded
    assert not {name.split(".")[0] for name in loaded} & SERVER
    own = {name.split(".")[1] for name in loaded if name.startswith("mcp_authz.")}
    assert own == {"client", "errors", "ids", "limits", "model", "new_file", "principals", "rules"}


def test_naming_the_package_loads_none_of_its_parts() -> None:
    program = "import sys, mcp_authz.client; print([name for name in sys.modules if name.startswith('mcp_authz')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['mcp_authz', 'mcp_authz.client']"


def test_an_identity_says_who_it_is_and_nothing_secret() -> None:
    coder = AgentIdentity.generate("coder")
    assert coder.jwk == coder.public_key.jwk and coder.thumbprint == coder.public_key.thumbprint
    assert "coder" in repr(coder)
    assert coder.key.to_jwk()["d"] not in repr(coder) and "PrivateKey" not in repr(coder)
    with pytest.raises(dataclasses.FrozenInstanceError):
        coder.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["", "Coder", "coder/a/b", "-coder", "coder/", "co der"])
def test_a_name_that_no_agent_has_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no name of an agent"):
        AgentIdentity.generate(name)


def test_a_saved_identity_comes_back_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    coder, path = AgentIdentity.generate("coder"), tmp_path / "coder.pem"
    old = os.umask(0)
    try:
        coder.save(path)
    finally:
        os.umask(old)
    assert mode(path) == 0o600
    assert AgentIdentity.load(path, name="coder").thumbprint == coder.thumbprint
    assert PrivateKey.from_pem(path.read_text()).public == coder.public_key  # as the command line reads it
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "coder.pem"
    AgentIdentity.generate("coder").save(path)
    path.chmod(0o640)
    with pytest.raises(KeyRefused, match="chmod 600"):
        AgentIdentity.load(path, name="coder")


def test_a_key_is_overwritten_only_when_that_is_asked_for(tmp_path: Path) -> None:
    first, second, path = AgentIdentity.generate("coder"), AgentIdentity.generate("coder"), tmp_path / "coder.pem"
    first.save(path)
    with pytest.raises(Conflict, match="exists already"):
        second.save(path)
    assert AgentIdentity.load(path, name="coder").thumbprint == first.thumbprint
    second.save(path, replace=True)
    assert AgentIdentity.load(path, name="coder").thumbprint == second.thumbprint
    assert mode(path) == 0o600 and list(tmp_path.iterdir()) == [path]


def test_a_key_is_not_written_through_a_link_that_points_elsewhere(tmp_path: Path) -> None:
    path, other = tmp_path / "coder.pem", tmp_path / "other"
    path.symlink_to(other)
    with pytest.raises(Conflict):
        AgentIdentity.generate("coder").save(path)
    assert not other.exists()


def test_a_key_sealed_with_a_passphrase_does_not_open_without_it(tmp_path: Path) -> None:
    coder, path = AgentIdentity.generate("coder"), tmp_path / "coder.key"
    coder.save(path, passphrase="correct horse")
    assert AgentIdentity.load(path, name="coder", passphrase="correct horse").thumbprint == coder.thumbprint
    with pytest.raises(KeyRefused, match="give its passphrase"):
        AgentIdentity.load(path, name="coder")


def test_a_file_that_is_missing_or_no_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.pem"):
        AgentIdentity.load(tmp_path / "absent.pem", name="coder")
    (tmp_path / "note.pem").write_text("hello")
    (tmp_path / "note.pem").chmod(0o600)
    with pytest.raises(KeyRefused, match=r"note\.pem"):
        AgentIdentity.load(tmp_path / "note.pem", name="coder")
    with pytest.raises(ConfigError, match="cannot be written"):
        AgentIdentity.generate("coder").save(tmp_path / "no" / "coder.pem")


def test_a_chain_cannot_be_used_by_another_key_than_it_was_given_to() -> None:
    planner, coder = AgentIdentity.generate("planner"), AgentIdentity.generate("coder")
    chain = planner.delegate(root(planner), to=coder)
    assert coder.auth("https://authz.example.com", chain=chain).url == "https://authz.example.com/mcp"
    with pytest.raises(DelegationError, match="another key"):
        planner.auth("https://authz.example.com", chain=chain)
    with pytest.raises(InputError, match="a chain says itself"):
        coder.auth("https://authz.example.com", chain=chain, subject="user:alice")
    with pytest.raises(InputError, match="plain http is for localhost only"):
        coder.auth("http://authz.example.com/mcp", chain=chain)


def test_a_link_lives_as_long_as_it_was_given_for() -> None:
    planner, coder = AgentIdentity.generate("planner"), AgentIdentity.generate("coder")
    link = leaf(planner.delegate(root(planner), to=coder.jwk, minutes=10, calls=3, depth=1, reason="issue 41"))
    assert link.expires_at - link.issued_at == timedelta(minutes=10)
    assert (link.max_calls, link.max_depth, link.reason) == (3, 2, "issue 41")
