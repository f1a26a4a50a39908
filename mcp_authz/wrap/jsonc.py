"""JSON with comments, read with the place of each value in the text, so that one value can be replaced alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import InputError

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)
      | (?P<string>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*")
      | (?P<number>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])
      | (?P<word>true|false|null)(?!\w)
      | (?P<mark>[\[\]{},:])""",
    re.VERBOSE | re.DOTALL,
)
_BOM: Final = "\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One value: what it is, and `text[start:end]` where it stands."""

    start: int
    end: int
    value: Any  # as JSON has it
    members: tuple[Member, ...] = ()  # of an object, in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of an object; its text goes from its name to the end of its value."""

    start: int
    name: str
    node: Node


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def parse(text: str) -> Node:
    """Return the one value in `text`; comments and a comma after the last member are allowed, as editors allow them.

    Raises:
        InputError: it is no JSON, or an object names a member twice; the message names the line.
    """
    tokens = _Tokens(text)
    node = _value(tokens, tokens.take(), depth=0)
    if (rest := tokens.take()).kind != "end":
        raise tokens.wrong(rest)
    return node


class _Tokens:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _scan(text)

    def take(self) -> _Token:
        return next(self._tokens)

    def wrong(self, token: _Token) -> InputError:
        line = self._text.count("\n", 0, token.start) + 1
        what = "it ends too early" if token.kind == "end" else f"line {line} is no JSON"
        return InputError(what)

    def twice(self, token: _Token) -> InputError:
        line = self._text.count("\n", 0, token.start) + 1
        return InputError(f"line {line} names a member that its object has already")


def _scan(text: str) -> Iterator[_Token]:
    at = len(_BOM) if text.startswith(_BOM) else 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            break
        if (kind := found.lastgroup or "") != "space":
            yield _Token(kind, found.group(), at, found.end())
        at = found.end()
    while True:
        yield _Token("end" if at == len(text) else "wrong", "", at, at)


def _value(tokens: _Tokens, token: _Token, *, depth: int) -> Node:
    if depth > limits.JSON_DEPTH:
        raise InputError(f"it is nested more than {limits.JSON_DEPTH} levels deep")
    match token.kind, token.text:
        case (("string" | "number" | "word"), text):
            return Node(start=token.start, end=token.end, value=json.loads(text))
        case "mark", "{":
            return _object(tokens, token.start, depth=depth)
        case "mark", "[":
            return _array(tokens, token.start, depth=depth)
    raise tokens.wrong(token)


def _object(tokens: _Tokens, start: int, *, depth: int) -> Node:
    members: dict[str, Member] = {}
    while (name := tokens.take()).text != "}":
        if name.kind != "string":
            raise tokens.wrong(name)
        if (colon := tokens.take()).text != ":":
            raise tokens.wrong(colon)
        key = json.loads(name.text)
        if key in members:
            raise tokens.twice(name)
        members[key] = Member(start=name.start, name=key, node=_value(tokens, tokens.take(), depth=depth + 1))
        after = tokens.take()
        if after.text == "}":
            name = after
            break
        if after.text != ",":
            raise tokens.wrong(after)
    value = {key: member.node.value for key, member in members.items()}
    return Node(start=start, end=name.end, value=value, members=tuple(members.values()))


def _array(tokens: _Tokens, start: int, *, depth: int) -> Node:
    items: list[Any] = []
    while (token := tokens.take()).text != "]":
        items.append(_value(tokens, token, depth=depth + 1).value)
        after = tokens.take()
        if after.text == "]":
            token = after
            break
        if after.text != ",":
            raise tokens.wrong(after)
    return Node(start=start, end=token.end, value=items)


def member(node: Node, name: str) -> Node | None:
    """Return the member of this name; None when there is none, or when this is no object."""
    return next((found.node for found in node.members if found.name == name), None)
