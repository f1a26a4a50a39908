"""What a tool is proposed to be: a preset speaks first, a server is read carefully, silence is destructive."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.model import Hazard
from mcp_authz.rules.proposal import names_package, propose

R, W, D = Hazard.READ, Hazard.WRITE, Hazard.DESTRUCTIVE


def definition(name: str = "look", **hints: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, "annotations": hints}


@pytest.mark.parametrize(
    ("name", "hints", "hazard"),
    [
        ("look", {"readOnlyHint": True}, R),
        ("look", {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True}, R),
        ("look", {"readOnlyHint": True, "openWorldHint": False}, R),
        ("look", {"readOnlyHint": True, "openWorldHint": True}, W),
        ("look", {"readOnlyHint": True, "destructiveHint": True}, D),
        ("put", {"readOnlyHint": False, "destructiveHint": False}, W),
        ("put", {"destructiveHint": False}, W),
        ("put", {"destructiveHint": True}, D),
        ("put", {"readOnlyHint": False}, D),
        ("put", {"idempotentHint": True}, D),
        ("look", {}, D),
        ("look", {"readOnlyHint": "true"}, D),
        ("look", {"readOnlyHint": 1}, D),
        ("put", {"destructiveHint": None}, D),
        ("delete_page", {"readOnlyHint": True}, D),
        ("deletePage", {"readOnlyHint": True}, D),
        ("get-settings", {"readOnlyHint": True}, R),
    ],
    ids=str,
)
def test_annotations_are_read_carefully(name: str, hints: dict[str, Any], hazard: Hazard) -> None:
    assert propose(definition(name, **hints)).hazard is hazard


@given(
    st.text(),
    st.dictionaries(
        st.sampled_from(["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint", "title"]),
        st.sampled_from([True, False, None, 0, 1, "true", [], {}]),
    )
    | st.none()
    | st.just([]),
)
def test_what_nobody_looks_at_is_destructive_whatever_its_server_says(name: str, hints: Any) -> None:
    said = {"name": name, "annotations": hints}
    unseen = propose(said, believe=False)
    assert (unseen.hazard, unseen.by) == (D, "nobody")
    assert propose(said, warnings=["hides text"]).hazard is D


@given(st.sampled_from(list(Hazard)), st.booleans())
def test_a_preset_that_knows_the_definition_speaks_before_the_server(hazard: Hazard, believe: bool) -> None:
    said = propose(definition(destructiveHint=True), preset=("files", hazard), warnings=["x"], believe=believe)
    assert (said.hazard, said.by, said.why, said.warnings) == (hazard, "preset", "preset files", ("x",))


FILES, GIT = "@modelcontextprotocol/server-filesystem", "mcp-server-git"


@pytest.mark.parametrize(
    ("command", "package"),
    [
        ("/opt/bin/mcp-server-filesystem /tmp", FILES),
        ("/usr/bin/npx -y @modelcontextprotocol/server-filesystem /tmp", FILES),
        ("/usr/bin/npx @modelcontextprotocol/server-filesystem@2026.8.31", FILES),
        ("/usr/bin/npx --yes -p @modelcontextprotocol/server-filesystem mcp-server-filesystem", FILES),
        ("/usr/bin/node /a/node_modules/@modelcontextprotocol/server-filesystem/dist/index.js", FILES),
        ("/usr/bin/uvx mcp-server-git --repository /tmp", GIT),
        ("/usr/bin/uvx mcp-server-git@latest", GIT),
        ("/usr/bin/uvx --from mcp-server-git==2026.1 mcp-server-git", GIT),
        ("/usr/bin/pipx run mcp-server-git", GIT),
        ("/usr/bin/python3.12 -m mcp_server_git", GIT),
        ("/opt/bin/mcp-server-git", GIT),
    ],
)
def test_ways_to_run_a_package_are_known(command: str, package: str) -> None:
    assert names_package(command.split(), package)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "/opt/evil @modelcontextprotocol/server-filesystem",
        "/opt/evil /tmp/mcp-server-filesystem",
        "/usr/bin/npx evil @modelcontextprotocol/server-filesystem",
        "/usr/bin/npx @evil/server-filesystem",
        "/usr/bin/npx @modelcontextprotocol/server-filesystem-evil",
        "/usr/bin/npx -p evil @modelcontextprotocol/server-filesystem",
        "/usr/bin/node /tmp/evil.js /node_modules/@modelcontextprotocol/server-filesystem/x",
        "/usr/bin/python3 /tmp/evil.py -m mcp_server_filesystem",
    ],
)
def test_an_argument_that_names_a_package_does_not_make_the_command_that_package(command: str) -> None:
    assert not names_package(command.split(), FILES)
