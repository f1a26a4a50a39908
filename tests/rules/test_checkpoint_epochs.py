"""Checkpoints of a log that went on from a backup: what was lost is no tampering where a record says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mcp_authz.cli.verification import kept_checkpoints
from mcp_authz.rules.checkpoint import (
    FIRST,
    Checkpoint,
    Head,
    Restore,
    checkpoint_digest,
    first_disagreement,
    first_gap,
    read_checkpoint,
    sign_checkpoint,
)
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.log import Break

KEY = PrivateKey.from_seed(bytes(32))
KEYS = {KEY.public.thumbprint: KEY.public}
CHAIN = b"\x01" * 32
OLD = {sequence: bytes([sequence]) * 32 for sequence in range(1, 21)}
NEW = {**{sequence: OLD[sequence] for sequence in range(1, 11)}, **{n: bytes([100 + n]) * 32 for n in range(11, 31)}}
RESTORE = Restore(epoch=1, at="2026-01-02", by="user:op", of=0, sequence=10, lost=(0, 20, OLD[20]))


def kept(*ends: tuple[int, int, int]) -> tuple[list[str], list[Checkpoint]]:
    """Checkpoints as a file has them, by number, epoch and last record; each follows the newest that is one less."""
    texts, made = list[str](), list[Checkpoint]()
    by_number = {0: FIRST}
    for number, epoch, sequence in ends:
        hash_ = (NEW if epoch else OLD)[sequence]
        head = Head(chain=CHAIN, sequence=sequence, hash=hash_, after=0, root=bytes(32))
        one = Checkpoint(
            number=number,
            previous=by_number[number - 1],
            issuer="https://authz.example.com",
            at=datetime(2026, 1, 2, tzinfo=UTC),
            heads=(head,),
            epoch=epoch,
        )
        texts.append(sign_checkpoint(one, KEY))
        made.append(read_checkpoint(texts[-1], KEYS))
        by_number[number] = checkpoint_digest(texts[-1])
    return texts, made


ENDS = ((1, 0, 4), (2, 0, 10), (3, 0, 15), (4, 0, 20))


def disagreement(checkpoints: list[Checkpoint], *restores: Restore) -> Break | None:
    return first_disagreement(checkpoints, chain=CHAIN, hash_at=NEW.get, restores=restores)


def test_what_was_lost_is_no_tampering_where_the_log_says_so() -> None:
    texts, made = kept(*ENDS, (3, 1, 25))
    assert first_gap(texts, made) is None
    assert disagreement(made, RESTORE) is None
    assert disagreement(made, replace(RESTORE, lost=None)) is None


def test_what_was_lost_by_a_restore_that_was_lost_itself_is_no_tampering() -> None:
    """The same backup was restored twice: nobody has the record of the first time any more."""
    texts, made = kept(*ENDS, (3, 1, 15), (3, 2, 25))
    again = Restore(epoch=2, at="2026-01-03", by="user:op", of=0, sequence=10, lost=(1, 16, bytes(32)))
    assert first_gap(texts, made) is None
    assert disagreement(made, again) is None
    another = replace(again, of=1, sequence=18, lost=(1, 30, bytes(32)))  # the log is another branch of epoch 1
    assert disagreement([*made[:2], replace(made[2], epoch=0)], replace(RESTORE, sequence=16), another) is not None
    _, (*_, left) = kept(*ENDS, (3, 2, 15))
    assert disagreement([left], replace(RESTORE, epoch=1), replace(another, epoch=3, lost=(2, 30, bytes(32)))) is None
    beyond = replace(made[4], heads=(replace(made[4].heads[0], sequence=17),))
    assert disagreement([*made[:4], beyond], again) is not None


def test_a_fork_without_such_a_record_is_tampering() -> None:
    _, made = kept(*ENDS)
    found = disagreement(made)
    assert found is not None and "written anew" in found.why
    assert disagreement([made[0], made[1], replace(made[2], epoch=1)], RESTORE) is not None


def test_a_restore_excuses_no_more_than_it_says_was_lost() -> None:
    _, made = kept(*ENDS)
    for less in ((0, 19, OLD[19]), (0, 20, bytes(32))):
        found = disagreement(made, replace(RESTORE, lost=less))
        assert found is not None and "behind what the restore" in found.why
    assert disagreement([replace(made[1], heads=(replace(made[1].heads[0], hash=bytes(32)),))], RESTORE) is not None


def test_the_first_checkpoint_of_an_epoch_follows_one_that_was_kept_and_epochs_only_grow() -> None:
    texts, made = kept(*ENDS, (3, 1, 25), (4, 1, 30))
    assert first_gap(texts, made) is None
    other = [*made[:4], replace(made[4], previous=bytes(32)), made[5]]
    assert "follows another one than was kept" in str(first_gap(texts, other))
    assert "comes after one of epoch 1" in str(first_gap([*texts, "late"], [*made, made[0]]))


def test_a_checkpoint_of_a_store_that_was_never_restored_is_as_it_always_was() -> None:
    (text,), (one,) = kept((1, 0, 4))
    assert one.epoch == 0
    assert sign_checkpoint(replace(one, epoch=0), KEY) == text != sign_checkpoint(replace(one, epoch=1), KEY)


def test_a_checkpoint_that_a_place_was_brought_again_counts_once(tmp_path: Path) -> None:
    """A gateway that was started on a backup cannot know that a place has checkpoints 2 and 3 already, and the rest."""
    texts, _ = kept(*ENDS, (4, 1, 25))
    file = tmp_path / "checkpoints.txt"
    file.write_text("".join(f"{text}\n" for text in (*texts[:4], texts[1], texts[2], texts[4])))
    assert kept_checkpoints(file) == tuple(texts)
    file.write_text("")
    assert kept_checkpoints(file) == ()
