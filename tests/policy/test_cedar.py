"""What the Cedar engine answers, and what it refuses to load."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_authz.errors import PolicyError
from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.cedar_request import CedarRequest
from mcp_authz.policy.engine import PolicyAnswer
from tests.policy.documents import approved, ask, document, holds

PERMIT = '@id("all") permit (principal, action, resource);'
READS_APPROVAL = "context has approval && context.approval.rules.contains"
PERMIT_X = f'@id("px") @approval("x") permit (principal, action, resource) when {{ {READS_APPROVAL}("x") }};'
PERMIT_Y = f'@id("py") @approval("y") permit (principal, action, resource) when {{ {READS_APPROVAL}("y") }};'
FORBID_X = f'@id("fx") @approval("x") forbid (principal, action, resource) unless {{ {READS_APPROVAL}("x") }};'
FORBID_Y = f'@id("fy") @approval("y") forbid (principal, action, resource) unless {{ {READS_APPROVAL}("y") }};'


def asks(answer: PolicyAnswer) -> list[str]:
    assert all(obligation.kind == "approval" for obligation in answer.obligations)
    return [obligation.argument for obligation in answer.obligations]


def refusal(*texts: str, actions: set[str] | None = None) -> str:
    with pytest.raises(PolicyError) as error:
        CedarEngine.load({f"{n}.cedar": text for n, text in enumerate(texts)}, actions=actions)
    return str(error.value)


def permit_when(condition: str) -> str:
    return f'@id("it") permit (principal, action, resource) when {{ {condition} }};'


# Decisions.


async def test_no_policy_denies() -> None:
    assert await CedarEngine.load({}).evaluate(document()) == PolicyAnswer(permit=False, because=())


@pytest.mark.parametrize("text", ["", "// nothing"])
def test_a_file_without_a_policy_is_refused_for_what_it_forbade_would_be_permitted(text: str) -> None:
    assert refusal(PERMIT, text) == ("1.cedar: has no policy; write one, or take the file out of the configuration")


async def test_the_answer_names_the_policies_by_their_ids() -> None:
    policies = PERMIT + '@id("second") permit (principal, action, resource);'

    assert (await ask(policies, document())).because == ("all", "second")


async def test_a_forbid_beats_a_permit_and_is_what_the_denial_names() -> None:
    answer = await ask(PERMIT + '@id("no-drafts") forbid (principal, action, resource);', document())

    assert answer == PolicyAnswer(permit=False, because=("no-drafts",))


async def test_ids_stay_right_with_more_than_ten_policies_in_several_files() -> None:
    sources = {
        f"{n:02}.cedar": "".join(
            f'@id("{n}-{m}") permit (principal, action == Action::"{n}-{m}", resource);' for m in range(12)
        )
        for n in range(3)
    }
    engine = CedarEngine.load(sources)

    for name in ("0-0", "1-9", "2-10", "2-11"):
        assert (await engine.evaluate(document(action=name))).because == (name,)


async def test_an_action_that_no_policy_names_is_decided_by_the_rules_for_every_action() -> None:
    assert (await ask(PERMIT, document(action="never heard of"))).permit


# Approval.


async def test_a_denial_that_an_approval_would_turn_is_a_permit_with_that_obligation() -> None:
    answer = await ask(PERMIT_X, document())

    assert answer == PolicyAnswer(
        permit=True, because=("px",), obligations=(Obligation(kind="approval", argument="x"),)
    )


async def test_a_permit_that_rests_on_an_approval_still_names_its_rule_so_that_it_is_used_up() -> None:
    assert asks(await ask(PERMIT_X, document(approval=approved("x")))) == ["x"]
    assert asks(await ask(PERMIT + FORBID_X, document(approval=approved("x")))) == ["x"]


async def test_an_approval_that_policy_did_not_need_is_no_obligation_of_policy() -> None:
    assert asks(await ask(PERMIT, document(approval=approved("x")))) == []


async def test_a_permit_that_reads_the_approval_without_naming_a_rule_uses_the_whole_approval_up() -> None:
    policy = permit_when('context has approval && context.approval.assurance == "passkey"')

    assert asks(await ask(policy, document(approval=approved("x", "y")))) == ["x", "y"]
    assert not (await ask(policy, document())).permit  # nobody knows which rule to ask for


async def test_a_forbid_that_yields_to_an_approval_is_a_hold_that_names_it() -> None:
    answer = await ask(PERMIT + FORBID_X, document())

    assert asks(answer) == ["x"]
    assert answer.because == ("all", "fx")


async def test_a_forbid_for_good_is_not_held() -> None:
    answer = await ask(PERMIT_X + '@id("never") forbid (principal, action, resource);', document())

    assert answer == PolicyAnswer(permit=False, because=("never",))


async def test_all_rules_that_apply_are_asked_for() -> None:
    assert asks(await ask(PERMIT + FORBID_X + FORBID_Y, document())) == ["x", "y"]
    assert asks(await ask(PERMIT_X + FORBID_Y, document())) == ["x", "y"]
    assert asks(await ask(PERMIT_X + PERMIT_Y, document())) == ["x", "y"]


async def test_half_of_what_is_asked_for_asks_for_all_of_it_again() -> None:
    for half in ("x", "y"):
        assert asks(await ask(PERMIT + FORBID_X + FORBID_Y, document(approval=approved(half)))) == ["x", "y"]


async def test_an_approval_that_meets_every_rule_but_is_too_weak_is_a_denial_and_not_a_hold() -> None:
    policy = permit_when(f'{READS_APPROVAL}("x") && context.approval.assurance == "passkey"').replace(
        "permit", '@approval("x") permit'
    )

    assert asks(await ask(policy, document())) == ["x"]
    assert await ask(policy, document(approval=approved("x", assurance="client"))) == PolicyAnswer(
        permit=False, because=()
    )


async def test_an_approval_that_is_too_old_is_a_denial_and_not_a_hold() -> None:
    fresh = 'context.time.durationSince(context.approval.approved_at) < duration("5m")'
    policy = permit_when(f'{READS_APPROVAL}("x") && {fresh}').replace("permit", '@approval("x") permit')

    assert (await ask(policy, document(approval=approved("x", at="2026-10-19T09:26:00.000Z")))).permit
    assert not (await ask(policy, document(approval=approved("x", at="2026-10-19T09:20:00.000Z")))).permit


async def test_a_call_is_not_held_for_rules_that_would_not_suffice() -> None:
    needs_z = f'@id("fz") forbid (principal, action, resource) unless {{ {READS_APPROVAL}("z") }};'
    names_z = (
        '@id("pz") @approval("z") permit (principal, action == Action::"other", resource) '
        f'when {{ {READS_APPROVAL}("z") }};'
    )

    assert await ask(PERMIT_X + needs_z + names_z, document()) == PolicyAnswer(permit=False, because=("fz",))
    given = document(approval=approved("x"))
    assert await ask(PERMIT_X + needs_z + names_z, given) == PolicyAnswer(permit=False, because=("fz",))


async def test_a_permit_that_names_a_rule_asks_for_it_even_if_it_forgets_to_test_for_it() -> None:
    assert asks(await ask('@id("p") @approval("x") permit (principal, action, resource);', document())) == ["x"]


async def test_an_error_in_what_an_approval_would_decide_is_an_error() -> None:
    broken = permit_when(f'{READS_APPROVAL}("x") && context.arguments has n && context.arguments.n > 1').replace(
        "permit", '@approval("x") permit'
    )

    answer = await ask(broken, document(arguments={"n": "many"}))

    assert (answer.permit, bool(answer.errors)) == (False, True)


# Values.


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        (1.5, '{0} == decimal("1.5")'),
        (-0.0001, '{0}.lessThan(decimal("0.0"))'),
        (0.00001, '{0} == "1e-05"'),
        (1e300, '{0} == "1e+300"'),
        (2.0, "{0} == 2"),
        (-0.0, "{0} == 0"),
        (922337203685477.6, '{0} == "922337203685477.6"'),
        (2**63 - 1, f"{{0}} == {2**63 - 1}"),
        (2**63, f'{{0}} == "{2**63}"'),
        (-(2**63) - 1, f'{{0}} == "{-(2**63) - 1}"'),
        (True, "{0} == true"),
        ("<b>", '{0} == "<b>"'),
        ("\u0000\u202e\n", '{0} like "*\\n"'),
        ({"a": {"b": 1}}, "{0} has a.b && {0}.a.b == 1"),
        (["a", "b", "a"], '{0}.contains("a") && ["b", "a"].containsAll({0})'),
        ([], "{0}.isEmpty()"),
        (["a", 1, 1.5, ["b"], {"c": None}], '{0}.contains("a")'),
        ({"type": "Agent", "id": "coder"}, '{0} has id && {0}.id == "coder"'),
    ],
)
async def test_a_value_reaches_cedar_as_the_page_says(value: Any, condition: str) -> None:
    path = "context.arguments.it"

    assert await holds(f"context.arguments has it && {condition.format(path)}", document(arguments={"it": value}))


async def test_null_is_absent_but_does_not_shorten_a_list() -> None:
    assert await holds("!(context.arguments has it)", document(arguments={"it": None}))
    given = document(arguments={"to": ["a@x", None]})
    assert not await holds('context.arguments has to && ["a@x"].containsAll(context.arguments.to)', given)
    assert not await holds(
        "context.arguments has to && context.arguments.to.isEmpty()", document(arguments={"to": [None]})
    )


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, b"raw", {1: "a"}, object(), 1 << 20_000, "\ud800", ("a",)], ids=type
)
async def test_what_is_not_json_is_denied_with_an_error(value: Any) -> None:
    answer = await ask(permit_when("!(context.arguments has it)") + PERMIT, document(arguments={"it": value}))

    assert (answer.permit, answer.because, len(answer.errors)) == (False, (), 1)


async def test_a_document_nested_too_deeply_is_denied_with_an_error() -> None:
    value: Any = "x"
    for _ in range(100_000):
        value = [value]

    assert (await ask(PERMIT, document(arguments={"it": value}))).errors == ("the input is nested too deeply",)


@pytest.mark.parametrize("name", ["actor", "resource", "action", "arguments", "scope", "time", "chain", "method"])
@pytest.mark.parametrize("value", [None, 1, [1], [None], {}])
async def test_a_document_with_a_part_missing_or_of_another_kind_is_denied_with_an_error(name: str, value: Any) -> None:
    if (name, value) == ("arguments", {}):
        value = "text"
    answer = await ask(PERMIT, document(**{name: value}))

    assert (answer.permit, len(answer.errors)) == (False, 1)


OTHER_SPELLINGS = ["yesterday", "2026-10-19", "2026-10-19T09:30:00+0200", "2026-10-19T09:30:00.000z"]


@pytest.mark.parametrize("at", OTHER_SPELLINGS)
async def test_a_time_in_another_spelling_is_denied_with_an_error(at: str) -> None:
    reads_time = permit_when('context.time > datetime("2020-01-01")')

    assert (await ask(reads_time, document(time=at))).errors
    assert (await ask(reads_time, document(approval=approved("x", at=at)))).errors


async def test_a_time_that_never_comes_is_denied_with_an_error() -> None:
    reads_time = permit_when('context.time > datetime("2020-01-01")')

    assert (await ask(reads_time, document(time="2026-02-30T09:30:00Z"))).errors == ("cedar could not read the input",)


async def test_a_name_that_is_not_unicode_is_denied_with_an_error() -> None:
    plain = document()
    for part in ({"action": "\ud800"}, {"actor": {**plain["actor"], "id": "\ud800"}}):
        assert (await ask(PERMIT, document(**part))).errors
    assert (await ask(PERMIT, document(resource={**plain["resource"], "tool": "\ud800"}))).errors


async def test_an_approval_that_meets_no_rule_is_denied_with_an_error() -> None:
    policy = permit_when("context has approval")

    assert (await ask(policy, document(approval={**approved("x"), "rules": []}))).errors


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["__extn", "agent"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["fn", "arg", "id", "type", "__extn"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)
ANSWERED = CedarEngine.load(
    {
        "a.cedar": PERMIT + PERMIT_X.replace('"px"', '"px-1"') + FORBID_Y,
        "b.cedar": permit_when(
            'context.arguments has n && context.arguments.n > 1 && principal.labels has a && principal.labels.a == "b"'
        ),
    }
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_any_json_at_all_gets_an_answer(value: Any) -> None:
    answer = asyncio.run(ANSWERED.evaluate(value))

    assert not answer.permit
    assert answer.errors


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(document())), JSON, JSON)
def test_any_json_in_any_part_gets_an_answer(part: str, value: Any, argument: Any) -> None:
    given = document(arguments={"n": argument})
    member = {**given[part], "a": value} if isinstance(given[part], dict) else value

    for changed in ({**given, part: value}, {**given, part: member}):
        answer = asyncio.run(ANSWERED.evaluate(changed))
        assert not (answer.permit and answer.errors)


# A fresh sign-in.

FRESH = '@id("fresh") @step_up("300") permit (principal, action == Action::"pr.create", resource);'
FRESHER = '@id("fresher") @step_up("60") permit (principal, action == Action::"pr.create", resource);'


async def test_a_permit_says_how_lately_the_person_must_have_signed_in() -> None:
    answer = await ask(FRESH, document())
    assert answer == PolicyAnswer(
        permit=True, because=(RuleId("fresh"),), obligations=(Obligation(kind="step_up", argument="300"),)
    )


async def test_every_permit_that_applies_says_so_also_beside_one_that_does_not() -> None:
    answer = await ask(f"{PERMIT} {FRESH} {FRESHER}", document())
    assert [one.argument for one in answer.obligations] == ["60", "300"]
    assert (await ask(f"{PERMIT} {FRESH}", document(action="pr.list"))).obligations == ()


async def test_a_call_may_need_a_fresh_sign_in_and_an_approval() -> None:
    both = FRESH.replace("permit", '@approval("x") permit')
    answer = await ask(both, document())
    assert [(one.kind, one.argument) for one in answer.obligations] == [("approval", "x"), ("step_up", "300")]
    waiting = permit_when(f'{READS_APPROVAL}("x")').replace("permit", '@approval("x") @step_up("300") permit')
    assert [one.kind for one in (await ask(waiting, document())).obligations] == ["approval", "step_up"]


async def test_a_denial_asks_for_no_sign_in() -> None:
    answer = await ask(f'{FRESH} @id("no") forbid (principal, action, resource);', document())
    assert (answer.permit, answer.obligations) == (False, ())


# Loading.


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("permit (principal, action, resource)", "0.cedar: cannot be parsed: unexpected end"),
        ("permit (principal, action, resource);", "0.cedar: policy 1 has no `@id"),
        ('@id("") permit (principal, action, resource);', "0.cedar: policy 1 has no `@id"),
        ('@id("a b") permit (principal, action, resource);', "0.cedar: policy 1 has no `@id"),
        ('@id("a") permit (principal == ?principal, action, resource);', "0.cedar: a template"),
        (f"{PERMIT}\n\n{PERMIT}", "0.cedar:3: policy `all`: so is another policy called"),
        ('@id("a") @approval permit (principal, action, resource);', "0.cedar:1: policy `a`: `@approval("),
        *(
            (f'@id("a") @step_up{said} permit (principal, action, resource);', "0.cedar:1: policy `a`: `@step_up(")
            for said in ("", '("")', '("0")', '("-1")', '("86401")', '("5m")', '("0300")', '(" 300")')
        ),
        ('@id("a") @step_up("300") forbid (principal, action, resource);', "`a`: `@step_up` stands on a permit"),
        (f"\n\n{permit_when('context.arguments.draft')}", "0.cedar:3: policy `it`: unable to guarantee safety"),
        (permit_when("resource.repo == 1"), "unable to guarantee safety of access"),
        (permit_when('context.session.id == "x"'), "unable to guarantee safety of access"),
        (permit_when('resource.hazard == 1'), "policy `it`: the types Long and String are not compatible"),
        (permit_when('context has aproval'), "0.cedar:1: policy `it`: `context` has no attribute `aproval`"),
        (permit_when('principal has environment'), "`principal` has no attribute `environment`; there is `id`"),
        (permit_when('context has approval && context.approval.rule == "x"'), "write `context.approval.rules.contains"),
        (permit_when('context.arguments == context.arguments'), "`context.arguments` is a record"),
        (permit_when('[context.session].contains(context.session)'), "`context.session` is a record"),
        (permit_when('(if true then context else context) has session'), "`context` is a record"),
        (permit_when('{a: context.arguments}.a has x'), "`context.arguments` is a record"),
        (permit_when('principal.hasTag("x")'), "uses `hasTag`"),
        (permit_when('principal is User'), "unrecognized entity type `User`"),
        (permit_when('context.arguments has a && context.arguments.a.isLoopback()'), "which a JSON value never is"),
        (permit_when('resource has a && (resource.a == 1 || resource.a == "x")'), "policy `it`: the types"),
        (permit_when("!" * 500 + "true"), "0.cedar: cannot be parsed"),
        (permit_when("\ud800"), "cannot be parsed"),
    ],
)  # fmt: skip
def test_a_policy_that_is_not_sound_is_not_loaded(policy: str, words: str) -> None:
    assert words in refusal(policy)


def test_an_id_is_unique_over_all_files() -> None:
    assert refusal(PERMIT, PERMIT) == "1.cedar:1: policy `all`: so is another policy called; ids are unique"


def test_an_argument_has_one_type_in_all_files() -> None:
    one = permit_when("context.arguments has n && context.arguments.n > 1")
    other = permit_when('context.arguments has n && context.arguments.n like "*"').replace("it", "other", 1)

    assert "1.cedar:1: policy `other`" in refusal(one, other)


def test_what_one_policy_says_of_a_type_counts_for_all_whatever_their_order() -> None:
    both = "context.arguments has a && context.arguments has b && "
    equal = permit_when(both + "context.arguments.a == context.arguments.b")
    number = permit_when(both + "context.arguments.a > 1").replace("it", "other", 1)

    CedarEngine.load({"a.cedar": equal, "b.cedar": number})
    CedarEngine.load({"a.cedar": number, "b.cedar": equal})


def test_a_misspelt_action_is_refused_when_the_actions_are_known() -> None:
    policy = '@id("a") forbid (principal, action == Action::"secret.raed", resource);'

    assert 'unrecognized action `Action::"secret.raed"`' in refusal(policy, actions={"secret.read"})
    CedarEngine.load({"a.cedar": policy.replace("raed", "read")}, actions={"secret.read"})


def test_an_action_named_only_in_a_condition_is_known_too() -> None:
    CedarEngine.load({"a.cedar": permit_when('action == Action::"pr.create"')})


def test_the_digest_changes_with_every_text_and_only_with_it() -> None:
    one = CedarEngine.load({"a.cedar": PERMIT, "b.cedar": PERMIT_X})

    assert one.digest == CedarEngine.load({"b.cedar": PERMIT_X, "a.cedar": PERMIT}).digest
    assert (
        len({one.digest, *(CedarEngine.load({"a.cedar": text}).digest for text in (PERMIT_X, PERMIT, PERMIT + " "))})
        == 4
    )
    assert len(bytes.fromhex(one.digest)) == 32


# What Cedar is not given.


async def test_an_argument_that_no_policy_mentions_is_not_given_to_cedar() -> None:
    engine = CedarEngine.load({"a.cedar": permit_when('context.arguments has path && context.arguments.path like "*"')})
    large = document(arguments={"path": "notes.txt", "content": "x" * 3_000_000})

    given = str(CedarRequest.of(large, engine.names).with_approval(None))

    assert "notes.txt" in given
    assert len(given) < 1000
    assert (await engine.evaluate(large)).permit


@pytest.mark.parametrize("page", ["policy-input.md", "step-up.md"])
def test_the_policies_on_the_pages_can_be_loaded(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text("utf-8")
    blocks = re.findall(r"```cedar\n(.*?)```", text, re.S)
    assert blocks
    for block in blocks:
        assert CedarEngine.load({page: block}).digest
