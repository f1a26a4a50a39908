"""Threat 22: a builtin of Rego that is silently undefined, tells secrets, or is another each time.

What a policy calls is read from its compiled plan; whatever is not among the tested builtins is refused at load, with
file and line, wherever it stands. And the process that evaluates has nothing to tell.
"""

from __future__ import annotations

import pytest

from mcp_authz.errors import PolicyError
from mcp_authz.policy.rego import RegoEngine
from mcp_authz.policy.rego_process import RegoProcess, compiler
from tests.policy.documents import document
from tests.policy.engines import needs_rego

pytestmark = needs_rego

CALLS = [
    'http.send({"method": "get", "url": "http://127.0.0.1/"})',
    'net.cidr_contains("10.0.0.0/8", input.arguments.address)',
    'net.lookup_ip_addr("localhost")',
    'json.match_schema(input, {"type": "object"})',
    "rego.metadata.rule()",
    "rego.metadata.chain()",
    'rego.parse_module("x", "package x")',
    "opa.runtime()",
    "time.now_ns() > 0",
    'time.parse_rfc3339_ns("2026-10-19T09:30:00Z") > 0',
    'rand.intn("x", 2) == 1',
    'uuid.rfc4122("x")',
    'io.jwt.decode("a.b.c")',
    'crypto.sha256("x")',
    'regex.match("(a+)+b", input.action)',
    'graphql.is_valid("{}", "x")',
    'sprintf("%v", [input.action])',
    "numbers.range(1, 1000000000)",
    "walk(input, [_, 1])",
    "max([input.action, 1])",
    "sort([input.action, 1])",
    'lower(input.action) == "x"',
    "print(input)",
    'trace("x")',
    "nosuch(1)",
    "data.other.nosuch(1)",
]
PLACES = {
    "in a rule": "package t\n\nallow {{ {call} }}",
    "in a not": "package t\n\nallow {{ not {call} }}",
    "in a function": "package t\nallow {{ f(1) }}\nf(x) {{ {call}; x == 1 }}",
    "in what nothing needs": "package t\nallow = true\nunused {{ {call} }}",
    "in a comprehension": "package t\n\nallow {{ count([1 | {call}]) == 0 }}",
    "in an else": "package t\nallow {{ input.x }}\nelse {{ {call} }}",
    "in every": "package t\nimport future.keywords\nallow if {{ every x in input.scope {{ x; {call} }} }}",
    "in with": "package t\nimport future.keywords\nallow if {{ f with input.y as 1; {call} }}\nf if true",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_builtin_that_was_not_tested_is_refused_at_load_with_file_and_line(call: str) -> None:
    with pytest.raises(PolicyError, match=r"guard\.rego:3: `[a-z_.0-9]+` cannot be called here; what can be is abs, "):
        RegoEngine.load({"guard.rego": PLACES["in a not"].format(call=call)})


@pytest.mark.parametrize("place", PLACES)
def test_it_is_refused_wherever_it_stands(place: str) -> None:
    with pytest.raises(PolicyError, match=r"t\.rego:\d: `opa\.runtime` cannot be called here"):
        RegoEngine.load({"t.rego": PLACES[place].format(call="opa.runtime()")})


def test_it_is_refused_in_every_file() -> None:
    with pytest.raises(PolicyError, match=r"b\.rego:2: `opa\.runtime`"):
        RegoEngine.load({"a.rego": "package a\nallow = true", "b.rego": "package b\nx = opa.runtime()"})


@pytest.mark.parametrize("package", ["mcp_authz_compare", 'x["mcp_authz_compare"]'])
def test_no_package_is_exempt(package: str) -> None:
    text = f"package {package}\nallow {{ opa.runtime() }}"
    with pytest.raises(PolicyError):
        RegoEngine.load({"t.rego": text}, query=None)


def library(policy: str, asked: object) -> str | None:
    """What the library says when nobody has looked at the policy."""
    with compiler() as compile_:
        return RegoProcess(compile_({"t.rego": policy}, "x = data.t.allow")).ask(asked)


def test_the_library_itself_compiles_a_call_of_what_there_is_not() -> None:
    assert library('package t\nallow { not net.cidr_contains("10.0.0.0/8", "8.8.8.8") }', document()) is None
    assert library("package t\nallow { not blockd }", document()) == '{"expressions":[true], "bindings":{"x":true}}'


def test_the_process_that_evaluates_has_no_environment_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_AUTHZ_CANARY", "canary-7f3a")

    told = library("package t\nallow = opa.runtime()", {})

    assert told is not None and '"env"' in told
    assert "canary" not in told.lower() and "PATH" not in told
