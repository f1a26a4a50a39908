"""What makes a store durable and its log provable, all of it at random: no step breaks what another one promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.use.durable import Life


@pytest.mark.parametrize(
    ("seed", "steps"), [(1, 120), (2, 120), *(pytest.param(n, 400, marks=pytest.mark.thorough) for n in range(3, 13))]
)
async def test_whatever_happens_the_log_verifies_and_nothing_that_ended_comes_back(
    tmp_path: Path, seed: int, steps: int
) -> None:
    life = Life(tmp_path, seed)
    try:
        await life.live(steps)
    except BaseException as error:
        error.add_note(f"seed {seed}, step {len(life.trail)}: {' '.join(life.trail[-40:])}")
        raise
    finally:
        await life.close()
    assert set(life.trail) >= {"checkpoint", "prune", "shred", "crash", "back_up", "restore"}
