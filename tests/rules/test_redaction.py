"""Redaction: what is taken out, what stands, and that no text keeps anybody busy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import ConfigError
from mcp_authz.rules.redaction import REDACTED, Redactor, Withheld, read_redaction

SECRET = "sk-abcdef123456"
KEYS = read_redaction([r"sk-[a-z0-9]{12}"], [])
FIELDS = read_redaction([], ["Password", "api-key"])


def redactor(*redactions: Any, may_go_on: Callable[[], bool] = lambda: True) -> Redactor:
    return Redactor(redactions or (KEYS, FIELDS), may_go_on)


def redacted(value: Any) -> Any:
    return redactor().value(value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"é key {SECRET}, and {SECRET}.", "é key [redacted], and [redacted]."),
        ("password: correct horse battery\nuser: bob", "password: [redacted]\nuser: bob"),
        ("PASSWORD = x", "PASSWORD = [redacted]"),
        ("api-key=\r\nx", "api-key=\r\n[redacted]"),
        ("the password policy is strict", "the password policy is strict"),
        ("mypassword: x", "mypassword: x"),
        ('{"password": "x", "user": "bob"}', '{"password": "[redacted]", "user": "bob"}'),
        ('[{"a": {"PASSWORD": ["x", 1]}}]', '[{"a": {"PASSWORD": "[redacted]"}}]'),
        ('{"pass\\u0077ord": "x"}', '{"password": "[redacted]"}'),
        ('{"password": "a", "password": "b"}', '{"password": [redacted]'),
        ('{"x": {"password": "a"}, "x": 1}', '{"x": {"password": [redacted]'),
        ('see {"password": "x"}', 'see {"password": [redacted]'),
        ('{"a": "{\\"password\\": \\"x\\"}"}', '{"a": "{\\"password\\": \\"[redacted]\\"}"}'),
        ('{"a": "no secret", "b":1.50}', '{"a": "no secret", "b":1.50}'),
        (f'{{"a": "{SECRET[:4]}\\u0063{SECRET[5:]}"}}'.replace("\\u0063", "\\u0062"), '{"a": "[redacted]"}'),
        ("", ""),
        ("text", "text"),
        (REDACTED, REDACTED),
        ("p\u200bass\u2060word: x\u200d y\nz", "p\u200bass\u2060word: [redacted]\nz"),
        ("pass\u00adword\ufe0f=x", "pass\u00adword\ufe0f=[redacted]"),
        ("é \U000e0061password=x", "é \U000e0061password=[redacted]"),
        ('{"pass\u200bword": "x"}', '{"pass\u200bword": "[redacted]"}'),
        ('{"pass\\u200bword": "x"}', '{"pass\u200bword": "[redacted]"}'),
        (f"\u200bé {SECRET[:5]}\u200b\ufeff{SECRET[5:]}\u200b.", "\u200bé [redacted]\u200b."),
        ("é pass\u200bword is what you need", "é pass\u200bword is what you need"),
    ],
)
def test_text_loses_what_is_found_in_it(said: str, told: str) -> None:
    assert redacted(said) == told


def test_members_and_their_names_and_numbers_are_looked_at() -> None:
    digits = read_redaction([r"^4[0-9]{15}$"], [])
    value = {"password": {"deep": 1}, SECRET: True, "card": 4000123412341234, "n": 4, "none": None, "api-key": None}
    assert redactor(KEYS, FIELDS, digits).value(value) == {
        "password": REDACTED,
        REDACTED: True,
        "card": REDACTED,
        "n": 4,
        "none": None,
        "api-key": None,
    }


def test_numbers_of_the_protocol_stand_and_those_of_a_tool_by_the_same_names_are_looked_at() -> None:
    digits = read_redaction([r"[0-9]{4}"], [])
    numbers = {"total": 4000, "size": 41.2345, "n": {"progress": 4000, "priority": 4000, "ttlMs": 4000}}
    gone = {"total": REDACTED, "size": REDACTED, "n": dict.fromkeys(("progress", "priority", "ttlMs"), REDACTED)}
    progress = {"method": "notifications/progress", "params": {"progress": 4000, "total": 8000}}
    link = {"type": "resource_link", "uri": "x:y", "name": "n", "size": 4000, "annotations": {"priority": 0.1234}}
    frame = {"content": [link], "ttlMs": 60000}
    assert redactor(digits).value(progress) == progress
    assert redactor(digits).value(frame) == frame
    for where in ("structuredContent", "data", "_meta"):
        assert redactor(digits).value({where: numbers}) == {where: gone}
    assert json.loads(redactor(digits).value(json.dumps(numbers))) == gone


def test_what_is_no_text_is_withheld() -> None:
    image = {"type": "image", "data": "c2stYWJjZGVm", "mimeType": "image/png"}
    unknown = {"type": "video", "data": "c2stYWJjZGVm", "mimeType": "video/mp4"}
    blob = {"uri": f"db://{SECRET}", "blob": "c2stYWJjZGVm", "mimeType": "application/octet-stream"}
    link = {"type": "resource_link", "uri": "db://one", "name": "one", "mimeType": "image/png"}
    block = {"type": "text", "text": REDACTED}
    held = {"uri": f"db://{REDACTED}", "mimeType": "text/plain", "text": REDACTED}
    said = {"content": [image, unknown, {"type": "resource", "resource": blob}, link], "contents": [blob]}
    assert redacted(said) == {
        "content": [block, block, {"type": "resource", "resource": held}, link],
        "contents": [held],
    }


def test_spans_of_several_patterns_that_overlap_are_one_and_nothing_of_them_is_left() -> None:
    both = redactor(read_redaction([r"key=\w{4}", r"\w{12}"], []))
    assert both.value("key=abcdefghijkl end") == "[redacted] end"
    assert both.count == 1


def test_the_words_of_the_protocol_stand_whatever_a_pattern_finds() -> None:
    words = redactor(read_redaction([r"[a-z_]+"], []))
    said = {"content": [{"type": "text", "text": "hello"}], "isError": False, "resultType": "input_required"}
    assert words.value(said) == {**said, "content": [{"type": "text", "text": REDACTED}]}


def test_how_much_was_taken_out_is_counted() -> None:
    one = redactor()
    one.value({"content": [{"type": "text", "text": f"{SECRET} {SECRET}"}, {"type": "audio"}], "password": 1})
    assert one.count == 4


@pytest.mark.parametrize(
    ("patterns", "fields", "why"),
    [
        (["(?=a)b"], [], "no pattern of RE2"),
        ([r"(a)\1"], [], "no pattern of RE2"),
        (["("], [], "no pattern of RE2"),
        (["a{5000}"], [], "no pattern of RE2"),
        (["x*"], [], "empty text"),
        ([""], [], "empty text"),
        ([], ["Content"], "member of every result"),
        ([], ["structuredContent"], "member of every result"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_read(patterns: list[str], fields: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read_redaction(patterns, fields)


def test_a_pattern_that_backtracking_would_never_finish_takes_no_time() -> None:
    began = time.monotonic()
    redactor(read_redaction([r"(x+x+)+y"], [])).value("x" * 1_000_000)
    assert time.monotonic() - began < 5


def test_a_text_with_endless_findings_is_withheld_when_the_time_is_up() -> None:
    asked = iter(range(10_000))
    slow = redactor(read_redaction([r"a.*b|a"], []), may_go_on=lambda: next(asked) < 100)
    with pytest.raises(Withheld):
        slow.value("a" * 1_000_000)


def test_very_many_short_texts_are_withheld_when_the_time_is_up() -> None:
    asked = iter(range(10_000))
    with pytest.raises(Withheld):
        redactor(KEYS, may_go_on=lambda: next(asked) < 100).value(["a"] * 1000)
    with pytest.raises(Withheld):
        redactor(KEYS, may_go_on=lambda: next(asked) < 100).value([1] * 1000)


def test_what_is_nested_without_end_is_withheld() -> None:
    deep: Any = SECRET
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Withheld):
        redacted(deep)
    while isinstance(deep, list):  # unwound by hand: freeing it whole would recurse
        deep = deep[0]


def test_a_lone_surrogate_hides_nothing() -> None:
    assert redacted(f"\ud800 {SECRET} \udfff") == "? [redacted] ?"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.just(SECRET), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_no_json_value_keeps_the_secret(value: Any, in_text: bool) -> None:
    assert SECRET not in json.dumps(redacted({"content": json.dumps(value) if in_text else value}))


@given(st.text())
def test_text_without_anything_to_find_stays_as_it_is(text: str) -> None:
    assert redactor(KEYS).value(text) == text or SECRET in text
