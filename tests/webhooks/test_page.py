"""docs/webhooks.md shows code: it verifies what the gateway sends, and its answers count."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_authz.config import parse_config
from mcp_authz.model import Assurance
from mcp_authz.rules.webhook_signature import make_secret
from tests.webhooks.receiver import answering, receiver
from tests.world import ROOT, world

PAGE = (ROOT / "docs" / "webhooks.md").read_text()
DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}


async def test_the_code_of_the_page_verifies_a_message_and_answers_it(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    theirs: dict[str, Any] = {}
    exec(code, theirs)  # noqa: S102 - what a reader would paste
    rule = {"destructive": {"assurance": "client-other"}}
    async with receiver() as team:
        hook = answering(tmp_path, team.url(), people={"U024BE7LH": "alice"})
        sent, answers = (make_secret(bytes([seed]) * 32) for seed in (1, 2))
        async with world(tmp_path, webhooks={"team": hook}, approval=rule) as w:
            coder = await w.ready("coder", "deploy")
            held = await w.call(coder, "acme__deploy", **DEPLOY)
            (post,) = await team.got(1)
            message = theirs["verified"](sent, post.headers, post.body)
            assert '  version: "1.4.0"' in message["data"]["shown"].splitlines()
            for wrong in ({**post.headers, "webhook-id": "msg_other"}, {**post.headers, "webhook-timestamp": "1"}):
                with pytest.raises(ValueError, match="not"):
                    theirs["verified"](sent, wrong, post.body)

            url, headers, body = theirs["answer"](answers, message, "U024BE7LH", "approve", "as planned")
            async with httpx2.AsyncClient() as http:
                answered = await http.post(url, headers=headers, content=body)
            assert (answered.status_code, answered.json()) == (200, {"hold": held.hold, "state": "approved"})
            (verdict,) = (await w.store.hold(held.hold)).verdicts
            assert (verdict.person, verdict.assurance) == ("alice", Assurance.CLIENT_OTHER)
            assert not (await w.call(coder, "acme__deploy", **DEPLOY)).is_error
            _, ended = await team.got(2)
            assert theirs["verified"](sent, ended.headers, ended.body)["data"]["state"] == "approved"
        assert len((tmp_path / "state" / "deployments.jsonl").read_text().splitlines()) == 1


def test_every_configuration_of_the_page_is_one() -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    templates = [next(iter(parse_config(tomllib.loads(text)).webhooks.values())).template for text in examples]
    assert templates == ["slack", "teams", "ntfy", "json", "json"]
