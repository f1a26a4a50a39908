"""The hash tree of checkpoints, against the examples of Certificate Transparency and against itself."""

from __future__ import annotations

import pytest

from mcp_authz.rules.merkle import EMPTY, path, root, root_of

# The leaves and roots that the reference implementation of RFC 6962 tests itself with.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots_are_those_of_the_standard() -> None:
    assert root([]) == EMPTY
    assert [root(LEAVES[:size]).hex() for size in range(1, 9)] == ROOTS


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 64, 100])
def test_every_leaf_is_shown_by_its_path_and_nothing_else_is(size: int) -> None:
    leaves = [bytes([number]) * 32 for number in range(size)]
    whole = root(leaves)
    for index in range(size):
        shown = path(index, leaves)
        assert root_of(leaves[index], index=index, size=size, audit_path=shown) == whole
        assert root_of(b"\xff" * 32, index=index, size=size, audit_path=shown) != whole
        if size > 1:
            assert root_of(leaves[index], index=(index + 1) % size, size=size, audit_path=shown) != whole
            assert root_of(leaves[index], index=index, size=size, audit_path=shown[1:]) is None
    assert root_of(leaves[0], index=size, size=size, audit_path=()) is None
