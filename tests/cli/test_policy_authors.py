"""`mcp-authz policy`: what those who write policies are told."""

from __future__ import annotations

from pathlib import Path

from tests.cli.desk import ROOT, Desk
from tests.cli.test_tools import seen_tools

POLICY = """\
@id("agents-read")
permit (principal is Agent, action, resource is Tool)
when { context has session && context has on_behalf_of && resource.hazard == "read" };
"""
TABLE = """\
[input]
actor = { type = "agent", id = "coder", labels = {}, roles = [], proof = "dpop" }
chain = []
on_behalf_of = { user_id = "alice", groups = [] }
session = { id = "s_1", purpose = "p", mode = "delegated", started_at = "2026-10-19T09:00:00.000Z", expires_at = "2026-10-19T10:00:00.000Z", calls_made = 0 }
action = "file.read"
method = "tools/call"
resource = { server = "files", tool = "files__read", environment = "staging", hazard = "read" }
arguments = {}
scope = []
time = "2026-10-19T09:30:00.000Z"

[[case]]
name = "reading is permitted"
expect = "permit"
because = ["agents-read"]

[[case]]
name = "writing is"
change.resource.hazard = "write"
change.arguments.path = "a.txt"
expect = "permit"
because = ["agents-write"]
"""  # noqa: E501 - as people write it


def written(desk: Desk, policy: str = POLICY, table: str = TABLE) -> Path:
    """A policy and its table, as an author has them."""
    desk.path("mine.cedar").write_text(policy)
    desk.path("mine.cases.toml").write_text(table)
    return desk.path("mine.cases.toml")


def test_the_shipped_policies_are_tested_without_a_configuration(desk: Desk) -> None:
    done = desk.run("policy", "test", ROOT / "policies" / "deny_all.cedar", global_options=())
    assert done.code == 0 and "deny_all.cedar: ok, 3 cases" in done.out, done


def test_a_failing_case_is_shown_with_what_was_expected_what_came_and_its_input(desk: Desk) -> None:
    done = desk.run("policy", "test", written(desk), global_options=())
    assert done.code == 1 and not done.err
    said = [" ".join(line.split()) for line in done.out.splitlines()]
    assert said[0].endswith("mine.cases.toml with mine.cedar: 1 of 2 cases fails")
    assert said[2:] == [
        "line 18: writing is",
        "answer: expected permit",
        "got deny",
        "decided by: expected agents-write",
        "got none",
        'the input: resource.hazard = "write"',
        'arguments.path = "a.txt"',
        "",
        "2 cases: 1 not as expected",
    ]
    assert max(map(len, done.out.splitlines()[2:])) <= 80


def test_failures_are_told_to_programs(desk: Desk) -> None:
    done = desk.run("policy", "test", written(desk), "--json")
    assert done.code == 1
    (table,) = done.json["tables"]
    (failure,) = table["failures"]
    assert (done.json["cases"], done.json["failed"], failure["line"]) == (2, 1, 18)
    assert failure["differences"] == ["verdict", "because"]
    assert failure["got"]["verdict"] == "deny" and failure["change"]["resource"] == {"hazard": "write"}


def test_a_table_asks_the_policy_that_is_named_instead(desk: Desk) -> None:
    done = desk.run("policy", "test", written(desk), "--policy", "builtin:scopes_and_hazard", "--json")
    (table,) = done.json["tables"]
    assert table["policy"] == ["builtin:scopes_and_hazard"]
    assert table["failures"][1]["got"]["verdict"] == "permit"


def test_a_table_with_a_misspelt_member_is_refused_with_its_line(desk: Desk) -> None:
    table = written(desk, table=TABLE.replace("change.resource.hazard", "change.resurce.hazard"))
    assert f"{table}:20: `change` has no member `resurce`" in desk.refused("policy", "test", table)


def test_a_table_without_a_policy_and_a_folder_without_a_table_are_said_to_be_so(desk: Desk) -> None:
    table = written(desk)
    desk.path("mine.cedar").unlink()
    assert "name a policy with --policy" in desk.refused("policy", "test", table)
    desk.path("empty").mkdir()
    assert "there is no `*.cases.toml`" in desk.refused("policy", "test", desk.path("empty"))


def test_without_a_file_the_tables_of_the_configured_policies_are_run(desk: Desk) -> None:
    written(desk, table=TABLE.split('[[case]]\nname = "writing', maxsplit=1)[0])
    desk.configure('data_dir = "data"\npolicy = ["builtin:own_workflows", "mine.cedar"]\n')
    said = desk.ok("policy", "test")
    assert "own_workflows.cedar: ok, 9 cases" in said and "mine.cedar: ok, 1 case\n" in said


BROKEN = """\
@id("reads")
permit (principal is Agent, action, resource is Tool)
when { context.arguments.draft == true };

@id("lists")
permit (principal is Agent, action, resource is Tool)
when { context has sesion };
"""


def test_what_does_not_load_is_an_error_with_file_and_line(desk: Desk) -> None:
    desk.path("mine.cedar").write_text(BROKEN)
    done = desk.run("policy", "lint", "mine.cedar")
    said = " ".join(done.out.split())
    assert done.code == 1 and not done.err
    assert "mine.cedar:5: error: policy `lists`: `context` has no attribute `sesion`" in said

    desk.path("mine.cedar").write_text(BROKEN.split('@id("lists")', maxsplit=1)[0])
    found = desk.run("policy", "lint", "mine.cedar", "--json")
    ((first),) = found.json
    assert (first["severity"], first["place"]) == ("error", "mine.cedar:1") and "draft" in first["text"]


async def test_the_tools_agents_and_rules_that_there_are_are_looked_at(desk: Desk) -> None:
    written(desk, policy=POLICY + '@id("x") permit (principal == Agent::"codr", action, resource is Tool);\n')
    await seen_tools(desk)
    desk.configure(f'policy = "mine.cedar"\n{desk.config.read_text()}')
    said = " ".join(desk.ok("policy", "lint").split())
    assert "mine.cedar:4: warning: `x`: it never applies: there is no agent `codr`" in said
    assert "every destructive call waits for [approval.destructive], whatever policy permits: 1 tool" in said
    assert max(map(len, desk.ok("policy", "lint").splitlines()[:-1])) <= 80

    desk.path("mine.cedar").write_text(POLICY)
    (warning,) = [one for one in desk.json("policy", "lint") if one["severity"] == "warning"]
    assert warning["text"].startswith("tool `files__write` is always denied")


def test_a_policy_is_looked_at_without_a_configuration_and_nothing_is_made(desk: Desk) -> None:
    done = desk.run("policy", "lint", ROOT / "policies" / "spending.cedar", global_options=())
    assert done.code == 0, done
    assert not (desk.directory / "home").exists() and not desk.store.exists()
    desk.ok("policy", "lint")
    assert not desk.store.exists()
