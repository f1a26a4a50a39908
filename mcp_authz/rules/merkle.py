"""A tree of hashes, by which one leaf is shown to be among many without showing the others (RFC 6962 section 2.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

EMPTY: Final = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf, 32 bytes; no inner node has one like it."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Iterable[bytes]) -> bytes:
    """The hash of the tree over these leaves, in one pass, with as many hashes at hand as the tree is high."""
    stack: list[tuple[int, bytes]] = []  # hashes of perfect subtrees with their heights, from left to right
    for leaf in leaves:
        height, hash_ = 0, leaf_hash(leaf)
        while stack and stack[-1][0] == height:
            hash_ = _node(stack.pop()[1], hash_)
            height += 1
        stack.append((height, hash_))
    if not stack:
        return EMPTY
    _, whole = stack.pop()
    while stack:
        whole = _node(stack.pop()[1], whole)
    return whole


def path(index: int, leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """The hashes that, with the leaf at `index`, make the root: from below up (RFC 6962 section 2.1.1)."""
    if len(leaves) <= 1:
        return ()
    half = _half(len(leaves))
    if index < half:
        return (*path(index, leaves[:half]), root(leaves[half:]))
    return (*path(index - half, leaves[half:]), root(leaves[:half]))


def root_of(leaf: bytes, *, index: int, size: int, audit_path: Sequence[bytes]) -> bytes | None:
    """The root of the tree of `size` leaves that has `leaf` at `index`, by its path; None when the path is none."""
    if not 0 <= index < size:
        return None
    sides = _sides(index, size)
    if len(sides) != len(audit_path):
        return None
    hash_ = leaf_hash(leaf)
    for is_left, sibling in zip(reversed(sides), audit_path, strict=True):
        hash_ = _node(hash_, sibling) if is_left else _node(sibling, hash_)
    return hash_


def _sides(index: int, size: int) -> list[bool]:
    """From the root down: whether the leaf is in the left subtree."""
    sides = []
    while size > 1:
        half = _half(size)
        sides.append(index < half)
        index, size = (index, half) if index < half else (index - half, size - half)
    return sides


def _half(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
