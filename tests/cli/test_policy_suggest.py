"""`policy suggest`: what it suggests is enough for the calls it looked at, and for no others."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.cli.recorded import afternoon
from tests.cli.test_commands_doc import keys

NEEDED = "deploy:production deploy:staging pr:read:acme:api pr:read:acme:web pr:write:acme:api"


async def test_what_is_suggested_permits_the_same_calls_and_nothing_else(tmp_path: Path) -> None:
    async with afternoon(tmp_path) as (w, desk):
        text = desk.ok("policy", "suggest", "--agent", "coder")
        desk.path("coder.cedar").write_text(text)  # what is printed is a policy file as it stands
        linted = desk.json("policy", "lint", desk.path("coder.cedar"))
        assert not [one for one in linted if one["place"].startswith("coder.cedar")]
        unused = [one["text"] for one in linted if one["severity"] == "warning"]
        assert len(unused) == 3 and all("is always denied" in text for text in unused)  # tools it did not call
        again = desk.json("policy", "replay", "--policy", desk.path("coder.cedar"))
        assert (again["calls"], again["same"]) == (7, 7)  # the denied one is denied still, the held ones are held

        found = desk.json("policy", "suggest", "--agent", "coder")
        assert found["scopes"] == NEEDED.split() and found["widened"] == [] and found["not_limited"] == []
        assert (found["calls"], found["decided"], found["left_out"]) == (6, {"permit": 4, "hold": 2}, {"deny": 2})
        assert set(found) == keys("mcp-authz policy suggest")
        assert found["policy"] in text and all(f"// {command}" in text for command in found["commands"])
        assert '["acme/api", "acme/web"].contains(resource.repo)' in text and '@approval("production-deploy")' in text
        assert "secret" not in found["policy"] and "Mend it" not in text and "delegating" in text

        for command in found["commands"]:
            assert desk.run(*shlex.split(command)[1:], global_options=()).code == 0, command
        agent = next(one for one in desk.json("agent", "list") if one["name"] == "coder")
        assert sorted(agent["ceiling"]) == NEEDED.split()
        assert sorted(next(g for g in await w.store.grants() if len(g.scope) == 5).scope) == NEEDED.split()

        wide = desk.json("policy", "suggest", "--agent", "coder", "--values", "1")
        assert wide["widened"] == ["deploy:*", "pr:read:acme:*"]
        assert wide["not_limited"] == [{"tool": "acme__list_pull_requests", "attribute": "repo"}]
        assert "read_secret" not in wide["policy"]


async def test_an_agent_without_calls_is_told_what_is_missing(tmp_path: Path) -> None:
    async with afternoon(tmp_path, audit={"inputs_days": 0}) as (_, desk):
        assert "no call of `coder` that ran or was held" in desk.refused("policy", "suggest", "--agent", "coder")
        assert "there is no agent `planner`" in desk.refused("policy", "suggest", "--agent", "planner")
