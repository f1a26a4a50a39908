"""Tables of cases: what they may say, where they are refused, and how an answer is compared."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.case_file import MEMBERS, CaseFileError, read_table
from mcp_authz.policy.cases import judge
from mcp_authz.policy.engine import PolicyAnswer, PolicyInput
from tests.policy import documents

INPUT = """\
[input]
actor = { type = "agent", id = "coder", labels = { environment = "staging" }, roles = [] }
session = { id = "s_1", mode = "delegated" }
action = "file.read"
resource = { hazard = "read" }
arguments = {}
"""
CASE = """
[[case]]
name = "it is permitted"
expect = "permit"
"""


class Answering:
    """An engine that gives one answer, and remembers what it was asked."""

    def __init__(self, *because: str, permit: bool = True, obligations: tuple[Obligation, ...] = ()) -> None:
        self.digest = "d"
        self.answer = PolicyAnswer(permit=permit, because=tuple(map(RuleId, because)), obligations=obligations)
        self.asked: list[PolicyInput] = []

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        self.asked.append(document)
        return self.answer


@pytest.mark.parametrize(
    ("more", "line", "said"),
    [
        ('change.resourc.hazard = "write"', 11, "`change` has no member `resourc`"),
        ('change.session.modus = "own"', 11, "`change.session` has no member `modus`"),
        ('change.actor.label.environment = "production"', 11, "`change.actor` has no member `label`"),
        ('change.on_behalf_of.auth.methods = ["hwk"]', 11, "`change.on_behalf_of.auth` has no member `methods`"),
        ('change.chain = [{ id = "a" }, { name = "b" }]', 11, "`change.chain` has no member `name`"),
        ('change.session = "own"', 11, "`change.session` is an object"),
        ('change.action = { id = "a" }', 11, "`change.action` is no object"),
        ('without = ["sesion"]', 11, "`without` names `sesion`"),
        ('without = ["session.modus"]', 11, "`without` names `session.modus`"),
        ('without = ["action.id"]', 11, "`without` names `action.id`"),
        ('without = "session"', 11, "`without` is a list of words"),
        ('becaus = ["rule"]', 11, "a case has no member `becaus`"),
        ('error = "yes"', 11, "`error` is true or false"),
        ('[[case]]\nname = "it is permitted"\nexpect = "deny"', 11, "another case is called"),
        ('[[case]]\nexpect = "deny"', 11, "a case has no `name`"),
        ('[[case]]\nname = "a"\nexpect = "allow"', 13, "`expect` is one of permit, hold, deny"),
    ],
)
def test_a_table_that_names_something_unknown_is_refused_with_the_line(more: str, line: int, said: str) -> None:
    with pytest.raises(CaseFileError) as refused:
        read_table("my.cases.toml", INPUT + CASE + more)
    assert str(refused.value).startswith(f"my.cases.toml:{line}: ") and said in str(refused.value)


def test_the_line_is_that_of_the_case_and_not_of_an_earlier_one_with_the_same_word() -> None:
    first = CASE + 'change.resource.hazard = "write"\n'
    second = CASE.replace("it is", "it stays") + 'change.hazard = "write"\n'
    with pytest.raises(CaseFileError, match=r"^t:16: `change` has no member `hazard`"):
        read_table("t", INPUT + first + second)


@pytest.mark.parametrize("value", ["[" * 5000, "[" * 5000 + "]" * 5000])
def test_a_file_that_is_nested_without_end_is_refused(value: str) -> None:
    with pytest.raises(CaseFileError, match=r"^t: is nested too deeply"):
        read_table("t", f"[input]\nresource.a = {value}\n")


def test_a_document_that_is_nested_without_end_is_refused() -> None:
    path = ".".join("a" * 3000)
    with pytest.raises(CaseFileError, match=r"^t: is nested too deeply"):
        read_table("t", f"[input]\nresource.{path} = 1\n[[case]]\nname = 'x'\nexpect = 'deny'\n")


def test_a_file_that_is_no_toml_is_refused_with_the_line() -> None:
    with pytest.raises(CaseFileError, match=r"not valid TOML: .*line 8"):
        read_table("t", INPUT + "\nname == 1")


@pytest.mark.parametrize(("text", "said"), [(CASE, r"no `\[input\]`"), (INPUT, r"no `\[\[case\]\]`")])
def test_a_table_has_an_input_and_a_case(text: str, said: str) -> None:
    with pytest.raises(CaseFileError, match=said):
        read_table("t", text)


def test_the_members_of_a_table_are_those_of_the_input_document() -> None:
    whole = documents.document(
        approval=documents.approved("destructive"),
        on_behalf_of={"user_id": "a", "issuer": None, "groups": [], "auth": {"amr": [], "at": documents.AT}},
    )
    assert _shape(whole) == _shape(MEMBERS)


def _shape(record: Any) -> Any:
    """The names of the members, those that the operator chooses left out."""
    if isinstance(record, list) and record and isinstance(record[0], dict):
        record = record[0]
    if not isinstance(record, dict):
        return None
    return {
        name: {} if name in ("labels", "resource", "arguments") else _shape(value) for name, value in record.items()
    }


async def test_a_case_asks_about_the_input_with_its_change_and_null_where_something_was_taken_out() -> None:
    engine = Answering()
    more = 'change.resource.tool = "x"\nchange.arguments.nested.value = 1\nwithout = ["session", "actor.labels.team"]\n'
    await judge(read_table("t", INPUT + CASE + more), engine)
    (asked,) = engine.asked
    assert asked["resource"] == {"hazard": "read", "tool": "x"}
    assert asked["arguments"] == {"nested": {"value": 1}}
    assert asked["session"] is None
    assert asked["actor"]["labels"] == {"environment": "staging", "team": None}


async def test_one_case_does_not_change_the_input_of_the_next() -> None:
    engine = Answering()
    second = CASE.replace("it is", "it stays")
    await judge(read_table("t", INPUT + CASE + 'change.resource.hazard = "write"\n' + second), engine)
    assert [asked["resource"]["hazard"] for asked in engine.asked] == ["write", "read"]


@pytest.mark.parametrize(
    ("engine", "differences"),
    [
        (Answering(), ()),
        (Answering(permit=False), ("verdict",)),
        (Answering("a"), ("because",)),
        (Answering(obligations=(Obligation(kind="approval", argument="release"),)), ("verdict", "rules")),
        (Answering(obligations=(Obligation(kind="step_up", argument="300"),)), ("obligations",)),
    ],
)
async def test_whatever_differs_from_a_case_is_named(engine: Answering, differences: tuple[str, ...]) -> None:
    (judged,) = await judge(read_table("t", INPUT + CASE), engine)
    assert judged.differences == differences and judged.as_expected is (not differences)


async def test_obligations_are_expected_as_they_are_written_in_a_policy() -> None:
    engine = Answering(obligations=(Obligation(kind="step_up", argument="300"),))
    table = read_table("t", INPUT + CASE + """obligations = ['step_up("300")']""")
    (judged,) = await judge(table, engine)
    assert judged.as_expected


async def test_a_policy_that_names_no_rules_is_not_asked_which_one_decided() -> None:
    table = read_table("t", INPUT + CASE + 'because = ["a"]\n')
    (strict,) = await judge(table, Answering())
    (lenient,) = await judge(table, Answering(), names_rules=False)
    (named,) = await judge(table, Answering("b"), names_rules=False)
    assert (strict.as_expected, lenient.as_expected, named.as_expected) == (False, True, False)


async def test_a_denial_of_another_engine_need_not_be_an_error_where_it_is_one_for_cedar() -> None:
    table = read_table("t", INPUT + CASE.replace('"permit"', '"deny"') + "error = true\n")
    (strict,) = await judge(table, Answering(permit=False))
    (lenient,) = await judge(table, Answering(permit=False), names_rules=False)
    (permitting,) = await judge(table, Answering(), names_rules=False)
    assert (strict.as_expected, lenient.as_expected, permitting.as_expected) == (False, True, False)
