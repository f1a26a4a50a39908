"""What a place for checkpoints lacks is known to the record, also half way, and the newest line of a file counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz import checkpoint_delivery
from mcp_authz.checkpoint_delivery import Delivery
from mcp_authz.checkpoint_tail import newest_marks
from mcp_authz.config import parse_config
from mcp_authz.errors import StoreError
from mcp_authz.store.witness import Mark
from tests.rules.test_checkpoint_epochs import kept
from tests.store.world import event
from tests.use.test_checkpoints import a_store, checkpoints


class Place:
    """A place that takes so many checkpoints, and is full then."""

    name = "place"

    def __init__(self, room: int) -> None:
        self.room, self.has = room, list[str]()

    async def keep(self, text: str) -> None:
        if len(self.has) >= self.room:
            raise StoreError("the place is full")
        self.has.append(text)


async def test_a_place_that_fails_half_way_lacks_what_it_did_not_get_and_gets_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_delivery, "_AT_ONCE", 4)
    async with a_store(tmp_path) as store:
        for number in range(7):
            await store.append(event("checkpoint", text=f"n_{number}"))
        place = Place(2)
        delivery = Delivery(store, [place])
        await delivery.begin(None)
        delivery.add(1)
        assert await delivery.deliver() == {"place": "the place is full"} and delivery.behind == {"place": 3}
        place.room = 100
        assert await delivery.deliver() == {} and delivery.behind == {"place": 7}  # four, and there are more
        assert await delivery.deliver() == {} and delivery.behind == {}
        assert place.has == [f"n_{number}" for number in range(7)]


async def test_what_is_told_of_places_names_the_record_of_the_checkpoint_itself_however_often_it_is_told(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "one" / "file", tmp_path / "two" / "file"
    async with a_store(tmp_path) as store:
        await store.append(event())
        made = checkpoints(store, tmp_path, first, second)
        assert await made.write() is not None
        for directory in (first.parent, second.parent):
            directory.mkdir()
            await made.write()
        told = [it for it in await store.records(kind="checkpoint") if "record" in it.event.fields]
        (signed,) = [it.sequence for it in await store.records(kind="checkpoint") if "text" in it.event.fields]
        assert len(told) == 3 and {it.event.fields["record"] for it in told} == {signed}


def test_the_newest_line_of_a_file_says_where_the_log_ended_and_in_which_epoch(tmp_path: Path) -> None:
    texts, made = kept((1, 0, 5), (2, 1, 9))
    config: Any = parse_config({"data_dir": str(tmp_path), "audit": {"checkpoints": ["file"]}})
    (config.data / "checkpoints.txt").write_text("\n".join(texts) + "\n")
    head = made[-1].heads[0]
    assert newest_marks(config) == (
        Mark(epoch=made[-1].epoch, sequence=head.sequence, hash=head.hash, by="the checkpoint in `checkpoints.txt`"),
    )
    assert made[-1].epoch and made[0].heads[0] != head
    (config.data / "checkpoints.txt").write_text("neither\n")
    assert newest_marks(config) == ()
