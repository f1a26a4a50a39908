"""Every command has a row in the table of roles or is no administration, and is done elsewhere or refuses `--at`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mcp_authz.cli.main import COMMANDS, app, load
from mcp_authz.cli.reach import ELSEWHERE
from mcp_authz.cli.revoke import Kind
from mcp_authz.errors import AuthzError
from mcp_authz.protocol.administration import AdministrationApi
from mcp_authz.rules import administration, audit_query

# What somebody does with files of their own, with a gateway as everybody may use it, or to have one at all.
NO_ADMINISTRATION = {
    "init",
    "wrap",
    "serve",
    "connect",
    "login",
    "logout",
    "agent token",  # an agent's own key
    "agent enrol",  # by a one-time code
    "delegate",  # an agent, or a chain from wherever
    "delegate show",
    "holds verify",  # a bundle, with public keys
    "policy test",  # policy files
    "policy lint",
    "audit verify",  # a copy of the log, with public keys
}


def leaves(command: Any, path: str) -> Iterator[str]:
    """The words that call each command that does something."""
    inner = getattr(command, "commands", {})
    if not inner or command.invoke_without_command:
        yield path
    for name, each in inner.items():
        yield from leaves(each, f"{path} {name}")


EVERY = ["serve", *(leaf for name in COMMANDS if name != "serve" for leaf in leaves(load(name), name))]


def test_every_command_is_in_the_table_of_roles_or_is_no_administration() -> None:
    kinds = {f"revoke {kind}" for kind in Kind.__args__}  # type: ignore[attr-defined]
    known = {*EVERY, *kinds, "audit explain --bundle"} - {"revoke", "holds"}  # `holds` alone is `holds list`
    assert known - NO_ADMINISTRATION == set(administration.COMMANDS)
    assert set(EVERY) >= NO_ADMINISTRATION


def test_a_command_that_is_not_done_elsewhere_refuses_to_be() -> None:
    root = typer.Context(typer.main.get_command(app))
    root.params = {"at": "https://gateway.example"}
    for leaf in set(EVERY) - ELSEWHERE - {"serve"}:
        first, *words = leaf.split()
        command = load(first)
        for word in words:
            if "invoke" not in vars(command):  # the whole group is of no use there
                command = command.commands[word]
        with pytest.raises(AuthzError, match="leave out --at"):
            command.invoke(typer.Context(command, parent=root))
    for command in (["serve"], ["status"], ["user", "key", "x", "y"], ["audit", "verify"], ["holds"], ["doctor"]):
        given = CliRunner().invoke(app, ["--at", "https://gateway.example", *command])
        assert isinstance(given.exception, AuthzError) and "leave out --at" in str(given.exception), command
    assert set(EVERY) >= ELSEWHERE


def test_the_documentation_has_every_command_path_and_parameter_of_it() -> None:
    doc = (Path(__file__).parents[2] / "docs" / "administration.md").read_text()
    commands = re.findall(r"^\| (`[^|]+`) \| `(?:GET|POST) /administration", doc, re.MULTILINE)
    assert {name for row in commands for name in re.findall(r"`([^`]+)`", row)} == ELSEWHERE
    rows = re.findall(r"^\| `(GET|POST) (/[a-z-]+(?:/[A-Z]+(?:/[a-z]+)?)?)` \|([^|]*)\|", doc, re.MULTILINE)
    nowhere: Any = None
    api = AdministrationApi(
        administration=nowhere,
        overview=nowhere,
        proofs=nowhere,
        roles=nowhere,
        identifier=nowhere,
        remember=nowhere,
        public_url="https://gateway.example",
        refusals=nowhere,
        clock=nowhere,
    )
    routes = {route.path: route.methods or set() for route in api.routes}
    documented = {f"/administration{re.sub('[A-Z]+', 'ID', path)}": method for method, path, _ in rows}
    served = {re.sub(r"{[a-z]+}", "ID", str(path)): (methods - {"HEAD"}).pop() for path, methods in routes.items()}
    assert documented == served
    (parameters,) = (told for _, path, told in rows if path == "/records")
    assert {word.partition("=")[0] for word in re.findall(r"`([^`]+)`", parameters)} == audit_query._KNOWN | {
        "before",
        "after",
        "limit",
    }
