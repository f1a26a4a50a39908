"""Rules that the configuration, a tool or a preset names, and whether they are there."""

from __future__ import annotations

import pytest

from mcp_authz.errors import ConfigError
from mcp_authz.model import ApprovalRule, Classification, Hazard
from mcp_authz.rules.classify import Classified, ServerRules, classify
from mcp_authz.rules.decision import ApprovalFloor
from mcp_authz.settings import require_rules

READ = Classification(action="one.look", hazard=Hazard.READ, scopes=())
HELD = Classification(action="one.look", hazard=Hazard.READ, scopes=(), approval="release", by="preset:one")
FLOOR = ApprovalFloor(rules={"release": ApprovalRule(name="release")}, by_hazard={})
NONE = ApprovalFloor(rules={}, by_hazard={})
DIGEST = b"\x01" * 32


def test_a_rule_that_a_preset_names_for_a_tool_is_there_or_the_gateway_does_not_start() -> None:
    preset = {"look": Classified(classification=HELD, digests=frozenset({DIGEST}))}
    rules = ServerRules(server="one", preset=preset)
    require_rules({"one": rules}, FLOOR)
    assert classify(rules, "look", DIGEST).approval == "release"
    with pytest.raises(ConfigError, match=r"`servers.one.preset`: it holds `look` by rule `release`.*add \[approval.r"):
        require_rules({"one": rules}, NONE)


def test_a_tool_that_is_classified_by_the_operator_needs_no_rule_of_its_preset() -> None:
    rules = ServerRules(server="one", exact={"look": READ}, preset={"look": Classified(classification=HELD)})
    require_rules({"one": rules}, NONE)
    assert classify(rules, "look", DIGEST).approval is None
