"""Row 19: bytes that the gateway and a tool server could read differently are refused, not repaired."""

from __future__ import annotations

import pytest

from mcp_authz.errors import InputError
from mcp_authz.rules import strict_json

REFUSED = {
    "a key twice": b'{"path":"/public","path":"/etc/shadow"}',
    "a key twice, once escaped": b'{"path":"a","p\\u0061th":"b"}',
    "a key twice, deep inside": b'{"a":[{"b":{"c":1,"c":1}}]}',
    "an empty key twice": b'{"":1,"":2}',
    "a NUL, escaped": b'{"path":"/public\\u0000/../etc"}',
    "a NUL in a key": b'{"path\\u0000":1}',
    "a NUL, raw": b'{"path":"/public\x00"}',
    "a NUL after the object": b'{"a":1}\x00',
    "an integer of two readings": b'{"id":9007199254740993}',
    "a negative integer of two readings": b'{"id":-9007199254740993}',
    "an integer of two readings, written as a float": b'{"id":9007199254740993.0}',
    "an integer of two readings, with an exponent": b'{"id":9007199254740993e0}',
    "an integer that overflows": b'{"id":1e400}',
    "a huge integer": b'{"id":' + b"9" * 5000 + b"}",
    "NaN": b'{"id":NaN}',
    "Infinity": b'{"id":Infinity}',
    "minus Infinity": b'{"id":-Infinity}',
    "nan in lower case": b'{"id":nan}',
    "a high surrogate alone": b'{"a":"\\ud800"}',
    "a low surrogate alone": b'{"a":"\\udc00"}',
    "surrogates in the wrong order": b'{"a":"\\udc00\\ud800"}',
    "two high surrogates": b'{"a":"\\ud83d\\ud83d\\ude00"}',
    "a surrogate after an escaped backslash": b'{"a":"\\\\\\ud800"}',
    "a low surrogate after the text of a high one": b'{"a":"\\\\ud83d\\ude00"}',
    "a surrogate in a key": b'{"\\ud800":1}',
    "a surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "a cut UTF-8 sequence": b'{"a":"\xe2\x82"}',
    "beyond Unicode": b'{"a":"\xf4\x90\x80\x80"}',
    "Latin-1": '{"a":"é"}'.encode("latin-1"),
    "UTF-16 with a mark": '{"a":1}'.encode("utf-16"),
    "UTF-16, little end first": '{"a":1}'.encode("utf-16-le"),
    "UTF-16, big end first": '{"a":1}'.encode("utf-16-be"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "a byte order mark inside": b'{\xef\xbb\xbf"a":1}',
    "deep arrays": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep and never closed": b"[" * 1_000_000,
    "deep behind a string": b'["' + b"x" * 1000 + b'",' + b"[" * 5000,
    "deep with strings between": b'["a",' * 5000,
    "two objects": b'{"a":1}{"a":2}',
    "two objects in two lines": b'{"a":1}\n{"a":2}',
    "a comma too many in an object": b'{"a":1,}',
    "a comma too many in an array": b'{"a":[1,]}',
    "a comment": b'{"a":1/* */}',
    "a line comment": b'{"a":1}//',
    "single quotes": b"{'a':1}",
    "a bare key": b"{a:1}",
    "a raw newline in text": b'{"a":"x\ny"}',
    "a raw tab in text": b'{"a":"x\ty"}',
    "a leading zero": b'{"a":01}',
    "a plus sign": b'{"a":+1}',
    "a bare dot": b'{"a":.5}',
    "a dot at the end": b'{"a":1.}',
    "a hexadecimal number": b'{"a":0x1F}',
    "digits that are not ASCII": '{"a":\u0661}'.encode(),
    "a white space that is not ASCII": '{"a":\u00a01}'.encode(),
    "a form feed": b'{"a":\x0c1}',
    "an escape that JSON has not": b'{"a":"\\x41"}',
    "a unicode escape of three digits": b'{"a":"\\u041"}',
    "a unicode escape with a sign": b'{"a":"\\u+041"}',
    "True": b'{"a":True}',
    "nothing": b"",
    "white space": b" \n",
    "a list of messages": b'[{"jsonrpc":"2.0","method":"ping","id":1}]',
    "an object that is not closed": b'{"a":1',
    "an object closed as an array": b'{"a":1]',
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_bytes_that_can_be_read_in_two_ways_are_refused(raw: bytes) -> None:
    with pytest.raises(InputError):
        strict_json.parse_object(raw)


ACCEPTED: dict[str, tuple[bytes, strict_json.JsonObject]] = {
    "white space around": (b' \r\n\t{ "a" : 1 } \n', {"a": 1}),
    "a pair of surrogates": (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    "a pair in mixed case": (b'{"a":"\\uD83d\\uDe00"}', {"a": "\U0001f600"}),
    "the text of an escape": (b'{"a":"\\\\u0000 \\\\ud800"}', {"a": "\\u0000 \\ud800"}),
    "an ordinary escape": (b'{"a":"\\u0041\\u00e9\\n\\/"}', {"a": "A\u00e9\n/"}),
    "the same key in two objects": (b'{"a":{"k":1},"b":{"k":2}}', {"a": {"k": 1}, "b": {"k": 2}}),
    "keys that differ in case": (b'{"k":1,"K":2}', {"k": 1, "K": 2}),
    "keys that differ in normal form": ('{"\u00e9":1,"e\u0301":2}'.encode(), {"\u00e9": 1, "e\u0301": 2}),
    "an empty object": (b"{}", {}),
    "a prototype": (b'{"__proto__":{"x":1}}', {"__proto__": {"x": 1}}),
}


@pytest.mark.parametrize(("raw", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_bytes_with_one_reading_are_read(raw: bytes, value: strict_json.JsonObject) -> None:
    assert strict_json.parse_object(raw) == value


@pytest.mark.parametrize(("raw", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_goes_on_is_the_object_written_anew(raw: bytes, value: strict_json.JsonObject) -> None:
    forwarded = strict_json.dump(strict_json.parse_object(raw))
    assert strict_json.parse_object(forwarded) == value
