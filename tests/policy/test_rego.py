"""Rego in a process of its own: what is loaded, what it answers, and what becomes of a policy out of hand."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import ConfigError, PolicyError
from mcp_authz.model import Obligation
from mcp_authz.policy import rego_canaries, rego_process
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.policy.rego import RegoEngine
from mcp_authz.policy.rego_input import rego_input
from mcp_authz.policy.rego_plan import BUILTINS, COMPARISONS
from tests.policy.documents import document
from tests.policy.engines import ask_rego, needs_rego

pytestmark = needs_rego

REVIEWER = Path(__file__).parents[2] / "policies" / "code_reviewer.rego"

# The text that must run as it is.
AS_GIVEN = """package agent.authz

default allow = false

allow {
  input.actor.type == "agent"
  input.actor.id == "agent-code-reviewer-01"
  input.on_behalf_of.user_id == "user_123"
  input.action == "pr.create"
  input.resource.repo == "acme/api"
  input.scope[_] == "pr:write:draft"
}
"""


def reviewers_call(**changes: Any) -> dict[str, Any]:
    return document(
        actor={**document()["actor"], "id": "agent-code-reviewer-01"},
        on_behalf_of={"user_id": "user_123", "issuer": None, "groups": [], "auth": None},
        **changes,
    )


def child_of(engine: RegoEngine) -> int:
    child = engine.process._child
    assert child is not None
    return child.pid


async def test_the_policy_of_the_code_reviewer_runs_as_it_was_written() -> None:
    assert REVIEWER.read_text("utf-8") == AS_GIVEN
    engine = RegoEngine.load({"code_reviewer.rego": AS_GIVEN})

    assert engine.query == "data.agent.authz.allow"
    assert await engine.evaluate(reviewers_call()) == PolicyAnswer(permit=True, because=())
    assert await engine.evaluate(reviewers_call(action="pr.merge")) == PolicyAnswer(permit=False, because=())


@pytest.mark.parametrize(
    "policy",
    [
        'package t\nallow { input.action == "pr.create"; input.scope[_] == "pr:write:draft" }',
        'package t\nallow if { input.action == "pr.create"; "pr:write:draft" in input.scope }',
        'package t\nimport rego.v1\nallow if { input.action == "pr.create"; some s in input.scope; s != "" }',
        'package t\nimport future.keywords\nallow if { every s in input.scope { startswith(s, "pr:") } }',
    ],
    ids=["version 0", "version 1", "version 1, said", "keywords of the future"],
)
async def test_rego_is_read_with_and_without_if(policy: str) -> None:
    engine = RegoEngine.load({"t.rego": policy})

    assert (await engine.evaluate(document())).permit
    assert not (await engine.evaluate(document(action="pr.merge", scope=["x"]))).permit


async def test_a_decision_is_an_object_with_rules_and_obligations() -> None:
    answer = await ask_rego(
        'decision := {"allow": true, "because": {"b", "a"}, "obligations": '
        '[{"kind": "approval", "argument": "destructive"}, {"kind": "notify", "argument": "ops"}]}\nallow := false',
        document(),
    )

    assert answer.permit and answer.because == ("a", "b")
    assert answer.obligations == (
        Obligation(kind="approval", argument="destructive"),
        Obligation(kind="notify", argument="ops"),
    )


async def test_a_denial_carries_no_obligations() -> None:
    answer = await ask_rego(
        'decision := {"allow": false, "because": ["no"], "obligations": [{"kind": "notify", "argument": "x"}]}',
        document(),
    )
    assert answer == PolicyAnswer(permit=False, because=("no",))  # type: ignore[arg-type]


async def test_nothing_is_a_denial_and_no_error() -> None:
    assert await ask_rego('allow if input.action == "other"', document()) == PolicyAnswer(permit=False, because=())


@pytest.mark.parametrize(
    "policy",
    [
        "allow := 1",
        'allow := "true"',
        "allow := [true]",
        "allow := null",
        'decision := {"allow": "true"}',
        'decision := {"allow": true, "obligation": []}',
        'decision := {"allow": true, "because": "x"}',
        'decision := {"allow": true, "because": [input.arguments.draft]}',
        'decision := {"allow": true, "obligations": ["approval"]}',
        "allow contains true",
    ],
)
async def test_an_answer_of_another_shape_is_an_error_and_denies(policy: str) -> None:
    answer = await ask_rego(policy, document())
    assert (answer.permit, answer.obligations, len(answer.errors)) == (False, (), 1)


@pytest.mark.parametrize(
    "policy",
    [
        "allow if input.arguments.draft\nallow := false if input.arguments.draft",
        "allow if 1 / (input.session.calls_made - 2) > 0",
        "allow if not count(input.session.calls_made) == 3",
        'allow if not startswith(input.session.calls_made, "x")',
        "allow if not to_number(input.action) == 3",
        "allow if not input.action > 3",
        "allow if not input.arguments.draft < 3",
    ],
)
async def test_an_error_denies_also_within_a_not(policy: str) -> None:
    answer = await ask_rego(policy, document())
    assert not answer.permit and answer.errors


@pytest.mark.parametrize("amount", ["99", "9", True, None, [1], {"a": 1}, 2**63, 10.0000001, "x"], ids=repr)
@pytest.mark.parametrize("sign", ["<", "<=", ">", ">="])
async def test_a_value_of_another_type_is_neither_more_nor_less_than_a_number(sign: str, amount: Any) -> None:
    answer = await AMOUNTS[sign].evaluate(document(arguments={"amount": amount}))
    assert not answer.permit and answer.errors, "the library itself puts text below numbers, and OPA above"


class _Amounts(dict[str, RegoEngine]):
    def __missing__(self, sign: str) -> RegoEngine:
        policy = f"package t\ndefault allow = false\nallow {{ not input.arguments.amount {sign} 10 }}"
        self[sign] = RegoEngine.load({"t.rego": policy})
        return self[sign]


AMOUNTS = _Amounts()


async def test_numbers_are_compared_with_numbers() -> None:
    asked = [(await AMOUNTS[">"].evaluate(document(arguments={"amount": n}))).permit for n in (9, 10, 10.0, 10.5, 11)]
    assert asked == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("given", "held"),
    [
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (2.0, 2),
        (2.5, 2.5),
        (0.0000001, "1e-07"),
        (1.23456789, "1.23456789"),
        (1e300, "1e+300"),
        (True, True),
        ([1, (2,)], [1, [2]]),
    ],
)
def test_what_the_library_would_change_is_text(given: Any, held: Any) -> None:
    assert rego_input({"x": given}) == {"x": held} and type(rego_input(given)) is type(held)


@pytest.mark.parametrize(
    "bad", ["a\0b", "\ud800", {"a\0": 1}, {1: 2}, float("nan"), float("inf"), b"x", {"a": {"\ud800": 1}}], ids=repr
)
async def test_what_the_library_cannot_hold_is_an_error_and_denies(bad: Any) -> None:
    answer = await EVERYTHING.evaluate(document(arguments={"a": bad}))
    assert not answer.permit and answer.errors[0].startswith("the input has")


async def test_a_document_that_is_none_is_an_error_and_denies() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    given: list[Any] = [None, [], "x", {"a": deep}]
    for bad in given:
        answer = await EVERYTHING.evaluate(bad)
        assert not answer.permit and answer.errors


class _Lazy:
    """An engine that permits everything, loaded by the first test that asks it."""

    engine: RegoEngine | None = None

    async def evaluate(self, given: dict[str, Any]) -> PolicyAnswer:
        self.engine = self.engine or RegoEngine.load({"t.rego": "package t\nallow = true"})
        return await self.engine.evaluate(given)


EVERYTHING = _Lazy()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("package t\nallow {", "test.rego:2: this is unclosed"),
        ("allow = true", "no policy has a rule `allow` or `decision`"),
        ("package t\nalow = true", "no policy has a rule `allow` or `decision`"),
        ("package t\n\nallow { not blockd }", "test.rego:3: a name here is neither a rule nor given a value"),
        ("package t\nallow { x == 1 }", "test.rego:2: a name here"),
        ("package t\nallow { f(1) }\nf(x) { y == x }", "test.rego:3: a name here"),
        ("package t\nallow { not data.t.blockd }", "test.rego:2: reads `data` that no policy defines"),
        ("package t\nallow { data.t[input.action] }", "test.rego:2: a rule is chosen by a value of the input"),
        ("package t\nallow { f with data.x as 1 }\nf = true", "test.rego:2: `with` replaces something else"),
        ("package t\nallow { v }\nv { w }\nw { v }", "rules need themselves: `t.allow`, `t.v`, `t.w`"),
        ("package t\nallow { not blockd(1) }", "test.rego:2: `blockd` cannot be called here"),
    ],
)
def test_what_opa_would_not_compile_is_refused_with_file_and_line(policy: str, said: str) -> None:
    with pytest.raises(PolicyError) as refused:
        RegoEngine.load({"test.rego": policy})
    assert said in str(refused.value)


async def test_several_files_make_one_policy() -> None:
    engine = RegoEngine.load(
        {
            "a.rego": "package a\nimport data.b\nallow { b.known[input.action] }",
            "b.rego": 'package b\nknown = {"pr.create"}',
            "more.rego": 'package a\nallow { input.action == "pr.list" }',
        }
    )

    assert [(await engine.evaluate(document(action=a))).permit for a in ("pr.create", "pr.list", "x")] == [
        True,
        True,
        False,
    ]


async def test_the_rule_to_ask_is_named_where_several_could_be_it() -> None:
    sources = {"a.rego": "package a\nallow = true", "b.rego": "package b.c\nallow = false"}
    with pytest.raises(PolicyError, match=r"data\.a\.allow, data\.b\.c\.allow; say which by `policy_query`"):
        RegoEngine.load(sources)

    assert (await RegoEngine.load(sources, query="data.a.allow").evaluate(document())).permit
    with pytest.raises(PolicyError, match=r"no policy has the rule `data\.a\.b`; there is data\.a\.allow"):
        RegoEngine.load(sources, query="data.a.b")
    for no_rule in ("data", "a.allow", "data.a.allow; true", "data.a[x]", "input"):
        with pytest.raises(PolicyError, match="names no rule"):
            RegoEngine.load(sources, query=no_rule)


def test_the_digest_changes_with_every_text_name_and_question() -> None:
    def digest(sources: dict[str, str], query: str | None = None) -> str:
        return RegoEngine.load(sources, query=query).digest

    base = {"a.rego": "package t\nallow = true\nother = true"}
    digests = [
        digest(base),
        digest({"b.rego": base["a.rego"]}),
        digest({"a.rego": base["a.rego"] + "\n"}),
        digest(base, "data.t.other"),
    ]
    assert len(set(digests)) == 4 and digest(base) == digests[0] == digest(base, "data.t.allow")


# What a policy may do to the process that evaluates it.

SLOW = """package t
import rego.v1
allow if not input.slow
allow if count([1 | some a in input.n; some b in input.n; some c in input.n; a + b + c == 0.5]) == 1
"""


async def test_a_policy_that_does_not_end_is_ended_and_the_loop_goes_on_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "REGO_SECONDS", 1.5)
    engine = RegoEngine.load({"t.rego": SLOW})
    before, started = child_of(engine), time.monotonic()

    asked = asyncio.ensure_future(engine.evaluate({"slow": True, "n": list(range(600))}))
    longest, last = 0.0, time.monotonic()
    while not asked.done():
        await asyncio.sleep(0.005)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()

    assert asked.result().errors == ("the policy was not evaluated within 1.5 s",)
    assert time.monotonic() - started < 10 and longest < 1.0
    assert (await engine.evaluate({"slow": False})).permit
    assert child_of(engine) != before


async def test_a_policy_that_takes_all_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = "\n".join(f't{n + 1} := concat("", [t{n}, t{n}])' for n in range(60))
    engine = RegoEngine.load({"t.rego": f"package t\nt0 := input.text\n{doubled}\nallow {{ t60 }}"})
    monkeypatch.setattr(limits, "REGO_BYTES", 200_000_000)
    monkeypatch.setattr(limits, "REGO_SECONDS", 30.0)

    answer = await engine.evaluate({"text": "x" * 1000})

    assert answer.errors == ("the policy takes more memory than it may",)


async def test_when_the_process_crashes_the_call_is_denied_and_the_next_one_decided() -> None:
    engine = RegoEngine.load({"t.rego": "package t\nallow = true"})
    os.kill(child_of(engine), signal.SIGSEGV)

    assert (await engine.evaluate(document())).errors == ("the process that evaluates the policy ended",)
    assert (await engine.evaluate(document())).permit


async def test_processes_that_crashed_are_forgotten_however_many() -> None:
    engine = RegoEngine.load({"t.rego": "package t\nallow = true"})
    children = set[weakref.ref[Any]]()
    for _ in range(3):
        child = engine.process._child
        assert child is not None
        children.add(weakref.ref(child))
        os.kill(child.pid, signal.SIGSEGV)
        del child
        assert (await engine.evaluate(document())).errors
        await engine.evaluate(document())
    gc.collect()
    assert [child for child in children if child() is not None] == []


def test_a_policy_at_which_the_library_crashes_is_refused() -> None:
    with pytest.raises(PolicyError, match="cannot be compiled"):
        RegoEngine.load({"t.rego": "package t\nimport rego.v1\nallow := count({x | x := 1 / input.n[_]}) == 1"})


async def test_many_calls_at_once_each_get_their_own_answer() -> None:
    engine = RegoEngine.load({"t.rego": 'package t\ndecision = {"allow": input.n % 2 == 0, "because": [input.name]}'})

    answers = await asyncio.gather(*(engine.evaluate({"n": n, "name": f"n{n}"}) for n in range(100)))

    assert [(a.permit, a.because) for a in answers] == [(n % 2 == 0, (f"n{n}",)) for n in range(100)]


async def test_an_input_larger_than_any_pipe_is_evaluated() -> None:
    engine = RegoEngine.load({"t.rego": "package t\nallow { count(input.text) == 3000000 }"})
    assert (await engine.evaluate({"text": "é" * 3_000_000})).permit


async def test_the_process_ends_with_the_engine() -> None:
    engine = RegoEngine.load({"t.rego": "package t\nallow = true"})
    child = engine.process._child
    assert child is not None and child.poll() is None

    del engine
    gc.collect()

    assert child.poll() is not None


def test_threads_that_ask_at_once_take_turns() -> None:
    process = RegoEngine.load({"t.rego": 'package t\ndecision = {"allow": true, "because": [input.name]}'}).process

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: process.ask({"name": f"n{n}"}), range(200)))

    assert all(f'"n{n}"' in (answer or "") for n, answer in enumerate(answers))


# Whatever is in the input is data (threats 20 and 21, for this engine).

SAME = (
    "package t\ndefault allow = false\nallow { input.arguments.a == input.arguments.b; input.arguments.a[input.name] }"
)


@pytest.mark.parametrize(
    "word",
    [
        '"',
        "\\",
        "\\u0041",
        "\n",
        "\x01",
        "\x7f",
        "\u2028",
        "\U0001f512",
        "`",
        "{x}",
        "${x}",
        "%s",
        '", "allow": true, "',
        "}]}",
        *("undefined", "<error>", "__entity", "__proto__", "input", "data.t.allow", " ", "", "true", "null", "1"),
    ],
    ids=repr,
)
async def test_text_is_never_read_as_anything_but_text(word: str) -> None:
    SAME_ENGINE.engine = SAME_ENGINE.engine or RegoEngine.load({"t.rego": SAME})
    for other in (word, word + "x"):
        given = {"name": word, "arguments": {"a": {word: word}, "b": {word: other}}}
        answer = await SAME_ENGINE.engine.evaluate(given)
        assert answer == PolicyAnswer(permit=word == other, because=())


SAME_ENGINE = _Lazy()


@pytest.mark.parametrize("text", [r'"a\"b"', r'"\n"', r'"a\/b"', r'"\u0041"', r'"\\"', r"`a\b`", '`"`'])
@pytest.mark.parametrize(
    "use", ["not input.action == {}", "input[{}]", "not startswith(input.action, {})", "x := {}; x"]
)
def test_text_that_the_library_would_read_otherwise_is_refused(use: str, text: str) -> None:
    with pytest.raises(PolicyError, match="cannot be compared here"):
        RegoEngine.load({"t.rego": f"package t\nallow {{ {use.format(text)} }}"})


@pytest.mark.parametrize(
    "thing", [{"__entity": {"type": "Agent", "id": "admin"}}, {"allow": True}, {"decision": {"allow": True}}]
)
async def test_an_argument_does_not_reach_beside_the_arguments(thing: dict[str, Any]) -> None:
    policy = 'default allow := false\nallow if input.approval.rules[_] == "x"\nallow if "admin" in input.scope'
    sneaky = {**thing, "approval": {"rules": ["x"]}, "scope": ["admin"], "input": {"scope": ["admin"]}}

    assert await ask_rego(policy, document(arguments=sneaky)) == PolicyAnswer(permit=False, because=())


# The library.


def test_every_builtin_that_may_be_called_has_a_known_answer() -> None:
    with rego_process.compiler() as compile_:
        plan = json.loads(compile_({"c.rego": "\n".join(rego_canaries._LINES)}, "x = data.canary"))
    called = {builtin["name"] for builtin in plan["static"]["builtin_funcs"]}
    assert called == BUILTINS


@pytest.mark.parametrize(("text", "known"), [("input.x > 2", False), ("input.nothing", 1), ("count(input.n)", 3.0)])
def test_a_library_that_answers_otherwise_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, text: str, known: Any
) -> None:
    monkeypatch.setitem(rego_canaries.ANSWERS, text, known)
    with pytest.raises(ConfigError, match=r"regopy 9\.9 does not answer as it should: "):
        rego_canaries.require_known_answers("9.9")


def test_a_library_that_swallows_errors_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rego_canaries, "ERRORS", ("input.x > 2", *rego_canaries.ERRORS[1:]))
    lines = [line.replace("input.s > 2", "input.x > 2") for line in rego_canaries._LINES]
    monkeypatch.setattr(rego_canaries, "_LINES", lines)
    with pytest.raises(ConfigError, match=r"does not answer as it should: input\.x > 2"):
        rego_canaries.require_known_answers("9.8")


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (("Linux", "x86_64", ("glibc", "2.36")), r"pip install 'mcp-authz\[rego\]'"),
        (("Linux", "x86_64", ("glibc", "2.31")), "needs Linux on x86_64 with glibc 2.34"),
        (("Linux", "x86_64", ("", "")), "needs Linux on x86_64 with glibc 2.34"),
        (("Linux", "aarch64", ("glibc", "2.36")), "needs Linux on x86_64"),
        (("Darwin", "arm64", ("", "")), "needs Linux on x86_64"),
    ],
)
def test_where_the_library_is_not_there_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, machine: tuple[str, str, tuple[str, str]], said: str
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(rego_process, "version", absent)
    monkeypatch.setattr(rego_process, "system", lambda: machine[0])
    monkeypatch.setattr(rego_process, "machine", lambda: machine[1])
    monkeypatch.setattr(rego_process, "libc_ver", lambda: machine[2])
    with pytest.raises(ConfigError, match=said):
        RegoEngine.load({"t.rego": "package t\nallow = true"})


# The page.

PAGE = Path(__file__).parents[2] / "docs" / "policy.md"


async def test_the_policy_of_the_page_holds_what_the_page_says() -> None:
    (text,) = re.findall(r"```rego\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    resource = {**document()["resource"], "deploy_environment": "production"}
    answer = await RegoEngine.load({"page.rego": text}).evaluate(document(action="deploy.create", resource=resource))

    assert answer.because == ("agents-deploy-for-people",)
    assert answer.obligations == (Obligation(kind="approval", argument="production-deploy"),)


def test_the_page_names_the_builtins_that_may_be_called() -> None:
    said = PAGE.read_text("utf-8").partition("- **Builtins**:")[2].partition("Another one")[0]
    compared, computed = {"equal", "neq", *COMPARISONS}, {"plus", "minus", "mul", "div", "rem"}
    operators = compared | computed | {"and", "or", "union", "intersection"}
    kinds = {name for name in BUILTINS if name.startswith("is_")}
    named = set(re.findall(r"`([a-z_.]+)`", said))
    assert named == {name for name in BUILTINS if not name.startswith("internal.")} - operators - kinds
    assert "`is_*`" in said
