"""The picture of who delegated what to whom: well-formed whatever names are in it, and the same without colours."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.rules.display import visible
from mcp_authz.rules.forest import Node, laid_out, wrapped
from mcp_authz.web.picture import ALONE, INLINE, Paint, drawn

SVG = "{http://www.w3.org/2000/svg}"
LOOKS = ("person", "open", "revoked", "ended")


def parsed(name: str, paint: Paint) -> ElementTree.Element:
    """The picture of one name in each look, as a parser of XML reads it."""
    nodes = [
        Node(id=look, above=None if look == "person" else "person", name=wrapped(name), notes=(look,), look=look)
        for look in LOOKS
    ]
    text = drawn(laid_out(nodes, most=10), paint, title=f"of {name}", told=name)
    return ElementTree.fromstring(text)  # noqa: S314 - our own


@given(st.text(max_size=80), st.sampled_from([INLINE, ALONE]))
def test_it_is_well_formed_whatever_somebody_is_called(name: str, paint: Paint) -> None:
    picture = parsed(name, paint)
    assert picture.tag == f"{SVG}svg" and len(picture.findall(f"{SVG}rect")) == len(LOOKS)
    allowed = {f"{SVG}{tag}" for tag in ("svg", "title", "desc", "rect", "path", "text")}
    assert {one.tag for one in picture.iter()} == allowed, "no name makes an element"
    assert not [name for one in picture.iter() for name in one.attrib if name.startswith("on") or "href" in name]


def test_a_name_with_markup_is_text_and_what_hides_is_written_out() -> None:
    evil = visible("<script>&\"'\u202e\u200bx")
    picture = parsed(evil, INLINE)
    (first, *_) = picture.findall(f"{SVG}text")
    assert "".join(one.text or "" for one in picture.findall(f"{SVG}text")).count("<script>") == len(LOOKS)
    assert "\\u{202e}" in evil and "\\u{200b}" in evil and first.text is not None
    assert picture.findtext(f"{SVG}desc") == evil


def test_it_says_what_it_is_to_whoever_cannot_see_it() -> None:
    picture = parsed("coder", INLINE)
    assert picture.get("role") == "img"
    ids = [picture.find(f"{SVG}{tag}").get("id") for tag in ("title", "desc")]  # type: ignore[union-attr]
    assert picture.get("aria-labelledby") == " ".join(str(one) for one in ids)


@pytest.mark.parametrize("paint", [INLINE, ALONE], ids=["inline", "alone"])
def test_states_differ_by_line_and_by_word_not_by_colour_alone(paint: Paint) -> None:
    picture = parsed("coder", paint)
    assert {one.text for one in picture.findall(f"{SVG}text")} >= set(LOOKS)
    assert not [one for one in picture.iter() if "style" in one.attrib], "a strict policy forbids it"
    if paint is ALONE:
        dashes = [one.get("stroke-dasharray") for one in picture.findall(f"{SVG}rect")]
        assert len(set(dashes[1:])) == 3
