"""Row 24: policy changes after a standing approval was given: it is evidence for the approval, and for nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.test_24_policy_changes import DENY, DEPLOY, MORE, PERMIT, decides
from tests.standing import ANY, give
from tests.world import world

RULES = {name: {"by": ["subject"], "assurance": "signed-in"} for name in ("destructive", "second")}


async def test_what_policy_denies_or_asks_more_for_by_now_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text(PERMIT)
    async with world(tmp_path, policy=str(tmp_path / "p.cedar"), approval=RULES) as w:
        coder = await w.ready("coder", "deploy")

        async def deploy(version: str) -> str:
            called = await w.call(coder, "acme__deploy", **{**DEPLOY, "version": version})
            return str(called.envelope.get("reason", called.envelope.get("outcome", "done")))

        held = await w.call(coder, "acme__deploy", **DEPLOY)
        id_ = await give(w, held.hold, by="alice", version=ANY)
        assert [await deploy(version) for version in ("1", "2")] == ["done", "done"]
        await decides(w, DENY)
        assert await deploy("3") == "policy"
        await decides(w, MORE)  # alice could meet this rule, but it was none of those that she was shown
        assert await deploy("4") == "held"
        await decides(w, PERMIT)
        assert await deploy("5") == "done"
        assert (await w.store.standing_approval(id_)).used == 2
        assert [one["version"] for one in w.deployments()] == ["1", "2", "5"]
