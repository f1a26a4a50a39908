"""Row 43: a newer version upgrades the store of a gateway that runs: that one forwards nothing more, and says why."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from mcp_authz.rules.log import first_break
from mcp_authz.store.offline import stored_head, stored_records
from tests.journals import keeping, ran
from tests.site import PROGRAM, site, until

SAYS = "the database was upgraded by a newer mcp-authz; restart this process"
NEWER = """
from mcp_authz.store import schema
schema.MIGRATIONS = (*schema.MIGRATIONS, ("CREATE TABLE later (name TEXT) STRICT",))
from mcp_authz.cli.main import main
main()
"""


async def test_a_gateway_whose_store_a_newer_version_upgraded_forwards_nothing_and_says_that_it_needs_a_restart(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, keeping(tmp_path), "use") as here, here.at() as http:
        with here.serving():
            await here.up(http)
            token = await here.token(http)
            assert "result" in await here.answer(http, "it__look", {"n": 1}, token=token)
            newer = [sys.executable, "-c", NEWER, "--config", str(here.file), "agent", "list"]
            assert b"coder" in (await anyio.run_process(newer)).stdout

            for n in (2, 3):
                said = await here.answer(http, "it__look", {"n": n}, token=token)
                assert said["error"]["message"] == SAYS, said
            assert len(ran(tmp_path)) == 1

            async def is_known_to_all() -> bool:
                return (await http.get("/readyz")).json().get("why") == SAYS

            await until(is_known_to_all)
            page = await http.get("/holds", headers={"accept": "text/html"})
            assert page.status_code == 503 and SAYS[1:] in page.text
            older = [str(PROGRAM), "--config", str(here.file), "agent", "list"]
            done = await anyio.run_process(older, check=False)
            assert done.returncode != 0 and b"written by a newer version" in done.stderr
        path = here.config.data / "store.db"
        assert first_break(stored_records(path, limit=1000), head=stored_head(path)) is None
