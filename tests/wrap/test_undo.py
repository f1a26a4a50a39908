"""What was wrapped is put back letter by letter, whatever the file looked like; what was changed since is not lost."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_authz.wrap import client_file, jsonc, kept
from tests.wrap.desktop import PLAIN, Desktop

space = st.text(" \t\n\r", max_size=3) | st.sampled_from([" // no\n", "/* , } */", "\r\n\t"])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@st.composite
def written(draw: Any, value: Any) -> str:
    """A value as JSON with comments, in whatever layout."""
    match value:
        case dict():
            members = [
                f"{draw(space)}{_text(draw, key)}{draw(space)}:{draw(written(inner))}" for key, inner in value.items()
            ]
            comma = "," if members and draw(st.booleans()) else ""
            return f"{draw(space)}{{{','.join(members)}{comma}{draw(space)}}}{draw(space)}"
        case list():
            return f"{draw(space)}[{','.join(draw(written(inner)) for inner in value)}{draw(space)}]{draw(space)}"
    return f"{draw(space)}{_text(draw, value)}{draw(space)}"


def _text(draw: Any, value: Any) -> str:
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


documents = st.fixed_dictionaries(
    {"mcpServers": st.dictionaries(st.text(), values, max_size=4)}, optional={"before": values, "after": values}
).flatmap(lambda value: st.tuples(st.just(value), written(value)))


@settings(max_examples=150, deadline=None)
@given(documents, st.data(), st.sampled_from([0o600, 0o644, 0o444]))
def test_any_layout_is_wrapped_without_touching_the_rest_and_put_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, document: tuple[Mapping[str, Any], str], data: st.DataObject, mode: int
) -> None:
    value, text = document
    try:
        raw = text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which no file can have
        return
    folder = tmp_path_factory.mktemp("undo")
    path = folder / "client.json"
    path.write_bytes(raw)
    path.chmod(mode)
    file = client_file.read(path)
    servers = value["mcpServers"]
    moved = set(data.draw(st.lists(st.sampled_from(sorted(servers) or ["x"]), unique=True)))
    after = client_file.replaced(file, {("mcpServers",): {"mcp-authz": {"command": "c"}}}, {("mcpServers",): moved})
    left = {name: of for name, of in servers.items() if name not in moved and name != "mcp-authz"}
    expected = {**value, "mcpServers": {"mcp-authz": {"command": "c"}, **left}}
    assert jsonc.parse(after).value == expected
    old = kept.keep(folder / "data", file, after, (), datetime.now(UTC))
    path.chmod(0o600)
    path.write_bytes(after.encode())
    assert kept.put_back(old, force=False) == "whole"
    assert path.read_bytes() == raw and stat.S_IMODE(path.stat().st_mode) == mode


def test_undo_restores_bytes_mode_and_the_file_behind_a_link(desktop: Desktop) -> None:
    real = desktop.client(f'\ufeff{{"mcpServers": {{"a": {json.dumps(PLAIN)}}}}}\r\n', "dotfiles/claude.json")
    real.chmod(0o640)
    link = desktop.home / ".config" / "Claude" / "claude_desktop_config.json"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    before = real.read_bytes()
    desktop.wrap(link)
    assert link.is_symlink() and real.read_bytes() != before and stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.read_bytes().startswith(b"\xef\xbb\xbf{") and real.read_bytes().endswith(b"}\r\n")
    (folder,) = (desktop.data / "wrapped").iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, *sorted(folder.iterdir()))] == [0o700, 0o600, 0o600]
    assert "letter by letter" in desktop.ok("wrap", link, "--undo")
    assert link.is_symlink() and real.read_bytes() == before and stat.S_IMODE(real.stat().st_mode) == 0o640
    assert not folder.exists() and desktop.loaded().servers.keys() == {"a"}


def test_undo_says_when_there_is_nothing_to_undo(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}})
    assert "no file is wrapped" in desktop.refused("wrap", "--undo")
    assert "was not wrapped, or that is undone already" in desktop.refused("wrap", path, "--undo")
    before = path.read_bytes()
    desktop.wrap(path)
    said = desktop.ok("wrap", "--undo")
    assert "mcp-authz revoke agent claude-desktop --reason unwrapped" in said
    assert path.read_bytes() == before
    assert "undone already" in desktop.refused("wrap", path, "--undo")


def test_what_else_was_changed_since_survives_undo(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}, "opened": 1}, ".claude.json")
    before = json.loads(path.read_text())
    desktop.wrap(path)
    path.write_text(path.read_text().replace('"opened": 1', '"opened": 2, "new": []'))
    assert "what else was changed in it since stays" in desktop.ok("wrap", path, "--undo")
    assert json.loads(path.read_text()) == {**before, "opened": 2, "new": []}


def test_servers_that_were_changed_since_are_not_overwritten_unless_forced(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}})
    before = path.read_bytes()
    desktop.wrap(path)
    changed = json.loads(path.read_text())
    changed["mcpServers"]["new"] = {"command": "x"}
    path.write_text(json.dumps(changed))
    assert "--undo --force" in desktop.refused("wrap", path, "--undo")
    assert json.loads(path.read_text()) == changed
    said = desktop.ok("wrap", path, "--undo", "--force")
    assert path.read_bytes() == before
    (replaced,) = (Path(line.split()[-1]) for line in said.splitlines() if "what was there instead" in line)
    assert json.loads(replaced.read_text()) == changed


def test_a_file_that_was_wrapped_twice_is_put_back_step_by_step(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}})
    first = path.read_bytes()
    desktop.wrap(path)
    more = json.loads(path.read_text())
    more["mcpServers"]["b"] = {**PLAIN, "args": [*PLAIN["args"], "modern"]}
    path.write_text(json.dumps(more))
    second = path.read_bytes()
    said = desktop.wrap(path)
    assert list(json.loads(path.read_text())["mcpServers"]) == ["mcp-authz"]
    assert [agent["name"] for agent in said["agents"]] == ["claude-desktop"]
    desktop.ok("wrap", path, "--undo")
    assert path.read_bytes() == second
    desktop.ok("wrap", path, "--undo", "--force")
    assert path.read_bytes() == first


async def test_a_second_wrapping_widens_the_agent_and_leaves_it_one_grant(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}})
    desktop.wrap(path)
    more = json.loads(path.read_text())
    more["mcpServers"]["b"] = {**PLAIN, "args": [*PLAIN["args"], "modern"]}
    path.write_text(json.dumps(more))
    desktop.wrap(path)
    async with desktop.open() as here:
        (agent,), grants = await here.store.agents(), await here.store.grants()
        (key,) = await here.store.keys_of("agent:claude-desktop")
    assert agent.ceiling == {"a", "b"} and key.retires_at is None
    assert [set(grant.scope) for grant in grants if grant.status == "active"] == [{"a", "b"}]
