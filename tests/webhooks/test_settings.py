"""What a webhook's configuration may say; a mistake stops the start, in a sentence without a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz.config import parse_config
from mcp_authz.errors import ConfigError
from mcp_authz.webhook_settings import make_webhooks
from mcp_authz.webhooks import Webhook
from tests.webhooks.receiver import answering, secret

URL = "https://bot.example.com/held"


def made(directory: Path, **hooks: Any) -> tuple[Webhook, ...]:
    config = parse_config({"webhooks": hooks}, source=directory / "gateway.toml")
    return make_webhooks(config)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"url": None}, "set either `url`, or `url_file`"),
        ({"url_file": "x"}, "set either `url`, or `url_file`"),
        ({"secret_file": None}, "`mcp-authz webhooks secret FILE` writes one"),
        ({"url": "http://bot.example.com/"}, "plain http is for this computer only"),
        ({"url": "http://127.0.0.1.nip.io/"}, "plain http is for this computer only"),
        ({"url": "ftp://localhost/"}, "https URL"),
        ({"url": "https:///x"}, "https URL"),
        ({"url": "https://T0KEN@bot.example.com/"}, "no user"),
        ({"url": "https://bot.example.com/T0KEN#x"}, "fragment"),
        ({"url": "https://bot.example.com/T0KEN\r\nHost: x"}, "plain"),
        ({"url": "https://bot.example.com\\T0KEN"}, "backslash"),
        ({"url": "https://[T0KEN/"}, "no URL"),
        ({"header_files": {"Host": "x"}}, "no header"),
        ({"header_files": {"webhook-id": "x"}}, "no header"),
        ({"header_files": {"X\r\nY": "x"}}, "no header"),
        ({"callback_secret_file": "x"}, "shown the whole call"),
        ({"callback_secret_file": "x", "tells": "everything", "template": "slack"}, "shown the whole call"),
        ({"people": {"U1": "alice"}}, "set `callback_secret_file`"),
        ({"rules": ["nothing"]}, "no approval rule `nothing`"),
        ({"secret_file": "none.whsec"}, "cannot be read"),
        ({"secret_file": "weak.whsec"}, "cannot be used"),
        ({"secret_file": "open.whsec"}, "chmod 600"),
        ({"header_files": {"Authorization": "two.lines"}}, "no value that a header could have"),
        ({"template": "ntfy", "url": "https://ntfy.sh/"}, "address of the topic"),
    ],
)
def test_what_would_not_work_or_would_not_be_safe_is_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    secret(tmp_path, "out.whsec")
    Path(secret(tmp_path, "open.whsec")).chmod(0o644)
    for name, text in (("weak.whsec", "T0KEN"), ("two.lines", "Bearer T0KEN\r\nX-Other: 1")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    hook = {"url": URL, "secret_file": "out.whsec", **changes}
    with pytest.raises(ConfigError) as refused:
        made(tmp_path, team={name: value for name, value in hook.items() if value is not None})
    assert says in str(refused.value) and "T0KEN" not in str(refused.value)


@pytest.mark.parametrize("name", ["Team", "te am", "a/b", "", "..", "a" * 21])
def test_a_name_is_one_that_can_be_part_of_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name"):
        made(tmp_path, **{name: {"url": URL, "secret_file": secret(tmp_path, "out.whsec")}})


def test_no_two_secrets_are_the_same_where_that_would_let_one_pass_for_another(tmp_path: Path) -> None:
    one, two = answering(tmp_path, URL), answering(tmp_path, URL)
    with pytest.raises(ConfigError, match="another secret than those of `one`"):
        made(tmp_path, one=one, two=two)
    with pytest.raises(ConfigError, match="another secret than messages"):
        made(tmp_path, one={**one, "callback_secret_file": one["secret_file"]})
    made(tmp_path, one=one, two={**two, "callback_secret_file": secret(tmp_path, "third.whsec", 3)})


def test_nothing_that_is_printed_of_a_webhook_has_a_secret_in_it(tmp_path: Path) -> None:
    (hook,) = made(tmp_path, team=answering(tmp_path, "https://bot.example.com/T0KEN"))
    assert "T0KEN" not in repr(hook) and repr(hook).count("<redacted>") == 2
    assert "T0KEN" not in repr(parse_config({"webhooks": {"team": answering(tmp_path, "https://x.example/T0KEN")}}))
