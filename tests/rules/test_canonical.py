"""Vectors of RFC 8785, and what has no canonical form."""

from __future__ import annotations

import hashlib
import struct

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_authz.errors import InputError
from mcp_authz.model import HoldState
from mcp_authz.rules import strict_json
from mcp_authz.rules.canonical import canonical, digest, digest_b64url
from tests.rules.test_strict_json import values


def test_the_sample_object_of_rfc_8785_has_the_canonical_form_printed_there() -> None:
    sample = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical(sample).hex() == (
        "7b226c69746572616c73223a5b6e756c6c2c747275652c66616c73655d2c226e756d62657273223a"
        "5b3333333333333333332e333333333333332c31652b33302c342e352c302e3030322c31652d3237"
        "5d2c22737472696e67223a22e282ac245c75303030665c6e4127425c225c5c5c5c5c222f227d"
    )


def test_keys_sort_by_utf_16_as_in_rfc_8785_section_3_2_3() -> None:
    sample = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    assert list(strict_json.parse_object(canonical(sample)).values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]


@pytest.mark.parametrize(
    ("bits", "form"),  # RFC 8785 appendix B
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_are_written_as_appendix_b_of_rfc_8785_says(bits: str, form: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(number) == form.encode()


@given(values)
def test_the_canonical_form_is_json_of_the_same_value(value: object) -> None:
    assert strict_json.parse_value(canonical(value)) == value
    assert canonical(strict_json.parse_value(canonical(value))) == canonical(value)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(st.characters(codec=None))
keys = st.text(max_size=4) | st.sampled_from(["\x00", "\x7f", "\ue000", "\U0001f600", "\ud800", "__", "A", "a", ""])
anything = st.recursive(
    scalars | st.sampled_from([2**53 - 1, 2**53, -(2**53), "\u2028\x1f\b\f", HoldState.PENDING]),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(keys | st.integers() | st.none(), inner),
)


@settings(max_examples=1000)
@given(anything)
@example({"\ue000": 1, "\U0001f600": [{"\ue000": (), "\U0001f600": 1}]})
def test_every_value_has_the_bytes_that_the_rfc8785_library_writes_or_is_refused_by_both(value: object) -> None:
    try:
        written: bytes | None = rfc8785.dumps(value)  # type: ignore[arg-type]
    except ValueError:
        written = None
    try:
        assert canonical(value) == written
    except InputError:
        assert written is None


def test_the_order_of_members_and_the_spelling_of_numbers_do_not_matter() -> None:
    assert canonical({"a": 1, "b": [True]}) == canonical({"b": [True], "a": 1.0})
    assert canonical([1]) != canonical([True]) != canonical(["1"])


def test_a_digest_is_the_sha_256_of_the_canonical_form() -> None:
    assert digest({"b": 1, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).digest()
    assert digest_b64url({}) == "RBNvo1WzZ4oRRq0W9-hknpT7T8If536DEMBg9hyq_4o"


def deep(levels: int) -> object:
    value: object = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [2**53, -(2**53), float("nan"), float("inf"), "\ud800", {"\ud800": 1}, {1: 2}, {None: 1}, {1}, b"x", deep(100_000)],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        canonical(value)
