"""Several processes of one gateway: exactly one of those that live makes the checkpoints."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import anyio

from mcp_authz.agents import People
from mcp_authz.cli.checkpointing import LOCK
from mcp_authz.cli.verification import kept_checkpoints, verify
from mcp_authz.installation import open_installation, utc_now
from mcp_authz.locking import note_of
from mcp_authz.store.offline import log_file
from tests.ports import free_port
from tests.site import SOON, Site, site, until


def makers(here: Site) -> str:
    return note_of(here.config.data / LOCK)


async def test_when_the_process_that_makes_checkpoints_is_killed_another_one_goes_on_and_leaves_one_at_its_end(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, {}, "files:read") as here:
        kept = here.config.data / "checkpoints.txt"
        port = free_port()
        with here.serving() as first:

            async def first_has_made_one() -> bool:
                return kept.exists() and makers(here) == f"process {first.pid}"

            await until(first_has_made_one)
            with here.serving(port) as second:
                async with here.at(port) as http:
                    await here.up(http)
                assert makers(here) == f"process {first.pid}" and len(kept_checkpoints(kept)) == 1
                first.kill()

                async def second_goes_on() -> bool:
                    return makers(here) == f"process {second.pid}" and len(kept_checkpoints(kept)) == 2

                await until(second_goes_on)
                await something_happens(here)
                second.send_signal(signal.SIGTERM)
                await anyio.to_thread.run_sync(lambda: wait(second))
        assert len(kept_checkpoints(kept)) == 3
        verified = verify(here.config.data / "store.db", lambda done, of: None)
        assert verified.broken is None
        with log_file(here.config.data / "store.db") as log:
            assert log.head()[0] == verified.last


def wait(process: subprocess.Popen[bytes]) -> None:
    process.wait(SOON)


async def something_happens(here: Site) -> None:
    async with open_installation(here.config) as installation:
        await People(installation.store, utc_now).add("bob", by="user:operator")
