"""A key that `connect` keeps is replaced when it is old, and its client notices nothing."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import anyio

from mcp_authz.client.key_files import load_key, save_key
from tests.connect.desktop import COMMAND, Wire, modern
from tests.world import ROOT, world

LIST = "acme__list_pull_requests"


async def test_an_old_key_is_replaced_before_the_first_call(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        path = w.directory / "home" / ".local" / "share" / "mcp-authz" / "agents" / "coder.pem"
        await anyio.Path(path.parent).mkdir(parents=True)
        save_key(path, coder.key, replace=False)
        long_ago = time.time() - 91 * 86400
        os.utime(path, (long_ago, long_ago))
        env = {"HOME": str(w.directory / "home"), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        command = [*COMMAND, "connect", w.url, "--agent", "coder"]
        async with await anyio.open_process(command, env=env, cwd=w.directory, stderr=sys.stderr) as process:
            wire = Wire(process)
            answer = await wire.call(1, LIST, {"owner": "acme", "repo": "api"}, _meta=modern())
            assert not answer.get("isError")
            process.kill()
        old, new = await w.store.keys_of("agent:coder")
        assert old.retires_at is not None and new.thumbprint == load_key(path).public.thumbprint
        assert [record.event.fields["key"] for record in await w.records("sign-in")] == [new.thumbprint]
