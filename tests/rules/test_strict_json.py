"""What the strict reader accepts, what it refuses, and what it says about it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.rules import strict_json

LIMIT = limits.JSON_INTEGER

text = st.text(
    st.sampled_from('abz09 {}[]:,"\\/\b\n\t\x1f\x7f\u00e9\u20ac\u2028\ud7ff\ue000\ufffd\uffff\U0001f600\U0010ffff')
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-LIMIT, LIMIT)
    | st.floats(-LIMIT, LIMIT, allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=30)


@given(st.dictionaries(text, values))
def test_an_object_that_was_written_is_read_back_the_same(value: dict[str, object]) -> None:
    assert strict_json.parse_object(strict_json.dump(value)) == value


@given(values)
def test_escaped_and_plain_text_are_read_the_same(value: object) -> None:
    assert strict_json.parse_value(json.dumps(value).encode()) == value


@given(st.lists(st.integers(0xD7F0, 0xE010).map(chr) | st.sampled_from('\\u"\0da0')).map("".join))
def test_text_passes_exactly_when_it_has_no_half_surrogate_and_no_nul(value: str) -> None:
    raw = json.dumps([value]).encode()  # writes every such character as an escape
    whole = json.loads(raw)[0]  # two halves that stand side by side are one character
    fine = "\0" not in whole and not any("\ud800" <= character <= "\udfff" for character in whole)
    if fine:
        assert strict_json.parse_value(raw) == [whole]
    else:
        with pytest.raises(InputError):
            strict_json.parse_value(raw)


@settings(max_examples=300)
@given(st.binary(max_size=40) | st.text(st.sampled_from('{}[]":,\\u0d8e+-1.nf \t'), max_size=40).map(str.encode))
def test_no_bytes_raise_anything_but_an_input_error(raw: bytes) -> None:
    try:
        strict_json.parse_value(raw)
    except InputError:
        pass
    else:
        json.loads(raw)  # and what is accepted is JSON


@pytest.mark.parametrize("number", [LIMIT, -LIMIT, 0])
def test_the_last_safe_integer_is_read(number: int) -> None:
    assert strict_json.parse_object(b'{"n":%d}' % number) == {"n": number}


@pytest.mark.parametrize("digits", [f"{LIMIT + 1}", f"-{LIMIT + 1}", "1" * 4000, "1" * 100_000])
def test_an_integer_that_readers_see_differently_is_to_be_sent_as_a_string(digits: str) -> None:
    with pytest.raises(InputError, match="send it as a string"):
        strict_json.parse_object(b'{"n":%s}' % digits.encode())


@pytest.mark.parametrize("digits", [f"{LIMIT + 1}.0", "1e300", "-1e16", "1e400", "-1E400", "9007199254740991.6"])
def test_a_float_beyond_the_safe_integers_is_refused_too(digits: str) -> None:
    with pytest.raises(InputError, match="send it as a string"):
        strict_json.parse_object(b'{"n":%s}' % digits.encode())


@pytest.mark.parametrize("digits", ["1.5", "-0.25", "1e3", "1E-7", "9007199254740991.0"])
def test_an_ordinary_float_is_read(digits: str) -> None:
    assert strict_json.parse_object(b'{"n":%s}' % digits.encode()) == {"n": float(digits)}


@pytest.mark.parametrize("nest", [b"[", b'{"a":'])
def test_nesting_is_read_up_to_the_bound_and_refused_beyond(nest: bytes) -> None:
    close = b"]" if nest == b"[" else b"}"

    def nested(depth: int) -> bytes:
        return nest * depth + b"1" + close * depth

    strict_json.parse_value(nested(limits.JSON_DEPTH))
    with pytest.raises(InputError, match="deeper"):
        strict_json.parse_value(nested(limits.JSON_DEPTH + 1))


def test_many_shallow_objects_are_not_deep() -> None:
    rows = [{"a": [1, {"b": "[[[["}]}] * 500
    assert strict_json.parse_value(strict_json.dump(rows)) == rows


def test_brackets_inside_text_do_not_count() -> None:
    value = {"t": "[" * 1000 + '"\\' + "{" * 1000, "u": '\\"[' * 100}
    assert strict_json.parse_object(strict_json.dump(value)) == value


def test_brackets_after_an_escaped_quote_do_count() -> None:
    raw = b'["\\\\",' + b"[" * 100 + b"]" * 100 + b"]"
    with pytest.raises(InputError, match="deeper"):
        strict_json.parse_value(raw)


def test_a_text_longer_than_allowed_is_refused_before_it_is_read() -> None:
    assert strict_json.parse_object(b'{"a":1}', max_bytes=7) == {"a": 1}
    with pytest.raises(InputError, match="longer than 6 bytes"):
        strict_json.parse_object(b'{"a":1}', max_bytes=6)


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"{}"', b"1", b"true"])
def test_another_value_is_not_an_object(raw: bytes) -> None:
    strict_json.parse_value(raw)
    with pytest.raises(InputError, match="expected a JSON object"):
        strict_json.parse_object(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"token":"s3cr3t" "x":1}',
        b'{"s3cr3t":1,"s3cr3t":2}',
        b'{"a":"s3cr3t"} s3cr3t',
        b'{"a":"s3cr3t\\ud800"}',
        b'{"a":"s3cr3t\\u0000"}',
        b'{"a":"s3cr3t',
        b"s3cr3t",
        b'{"a":99999999999999999}',
        b'{"a":"s3cr3t\x01"}',
        b'{"a":"s3cr3t\xff"}',
    ],
)
def test_a_refusal_helps_in_one_lower_case_sentence_and_repeats_nothing(raw: bytes) -> None:
    with pytest.raises(InputError) as refusal:
        strict_json.parse_object(raw)
    message = str(refusal.value)
    assert message[0].islower() and not message.endswith(".") and "\n" not in message
    assert "s3cr3t" not in message and "9999" not in message
    assert refusal.value.__context__ is None or refusal.value.__suppress_context__


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x", "\ud800", {"a": object()}])
def test_what_json_cannot_carry_is_not_written(value: object) -> None:
    with pytest.raises(InputError):
        strict_json.dump(value)


def test_json_is_written_compact_and_unescaped() -> None:
    assert (
        strict_json.dump({"b": [1, 2.5, None, True], "a": "é\u2028\n"})
        == '{"b":[1,2.5,null,true],"a":"é\u2028\\n"}'.encode()
    )


def test_a_byte_order_mark_is_named_as_what_it_is() -> None:
    with pytest.raises(InputError, match="byte order mark"):
        strict_json.parse_object(b"\xef\xbb\xbf{}")
