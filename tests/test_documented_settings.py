"""Every setting is documented with its default, and nothing is documented that does not exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from mcp_authz.config import (
    Config,
    ImpersonationConfig,
    KeysConfig,
    ProofConfig,
    ServerConfig,
    ToolConfig,
    parse_config,
)
from mcp_authz.config_approval import ApprovalConfig, WaitingConfig
from mcp_authz.config_obligations import BudgetConfig, NoticeConfig, RedactConfig
from mcp_authz.config_people import (
    AdministrationConfig,
    ClientsConfig,
    EnterpriseClientConfig,
    EnterpriseConfig,
    ProviderConfig,
    SignInConfig,
)
from mcp_authz.config_policy import AuditConfig, PdpConfig, RecordRedactConfig
from mcp_authz.config_telemetry import MetricsConfig, OtelConfig
from mcp_authz.config_webhooks import WebhookConfig
from mcp_authz.settings import approval_floor, require_rules, server_rules
from tool_adapters.presets import preset_names

PAGE = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
SECTIONS = {
    "## Top level": Config,
    "## `[servers.NAME]`": ServerConfig,
    "## `[servers.NAME.tools.TOOL]`": ToolConfig,
    "## `[pdp]`": PdpConfig,
    "## `[audit]`": AuditConfig,
    "## `[audit.redact]`": RecordRedactConfig,
    "## `[metrics]`": MetricsConfig,
    "## `[otel]`": OtelConfig,
    "## `[budgets.NAME]`": BudgetConfig,
    "## `[notices.NAME]`": NoticeConfig,
    "## `[redact.NAME]`": RedactConfig,
    "## `[proof]`": ProofConfig,
    "## `[keys]`": KeysConfig,
    "## `[approval.RULE]`": ApprovalConfig,
    "## `[waiting]`": WaitingConfig,
    "## `[webhooks.NAME]`": WebhookConfig,
    "## `[[impersonation]]`": ImpersonationConfig,
    "## `[administration]`": AdministrationConfig,
    "## `[sign_in]`": SignInConfig,
    "## `[sign_in.provider]`": ProviderConfig,
    "## `[clients]`": ClientsConfig,
    "## `[enterprise]`": EnterpriseConfig,
    "## `[enterprise.clients.CLIENT]`": EnterpriseClientConfig,
}


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_page_names_exactly_the_settings_there_are(heading: str) -> None:
    model: type[BaseModel] = SECTIONS[heading]
    section = PAGE.split(heading + "\n", 1)[1].split("\n## ", 1)[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert documented == set(model.model_fields) - {"source"}


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_page_gives_plain_defaults_as_they_are(heading: str) -> None:
    section = PAGE.split(heading + "\n", 1)[1].split("\n## ", 1)[0]
    for name, default in re.findall(r"^\| `(\w+)` \| `?(\w+)`? \|", section, re.MULTILINE):
        actual = SECTIONS[heading].model_fields[name].default
        if isinstance(actual, bool | int):
            assert default == str(actual).lower()
        elif isinstance(actual, str):
            assert default == actual


def test_the_example_of_the_page_is_a_configuration() -> None:
    example = PAGE.split("```toml\n", 1)[1].split("```", 1)[0]
    config = parse_config(tomllib.loads(example))
    rules = {name: server_rules(name, server) for name, server in config.servers.items()}
    require_rules(rules, approval_floor(config))


def test_the_page_names_every_preset() -> None:
    assert f"come with the gateway: {', '.join(preset_names())}" in PAGE
