"""The policy: it loads, and it denies what must be denied."""

from __future__ import annotations

from mcp_authz.canary import require_denials
from mcp_authz.doctor.finding import Case, Finding, broken, fine
from mcp_authz.errors import ConfigError, PolicyError
from mcp_authz.evaluation import Evaluator
from mcp_authz.settings import approval_floor, load_policy, require_rules, server_rules

POLICY = "policy"


async def check_policy(case: Case) -> tuple[Finding, ...]:
    """What a start of the gateway demands of policy, presets and approval rules."""
    try:
        engine, floor = load_policy(case.config), approval_floor(case.config)
        rules = {name: server_rules(name, server) for name, server in case.config.servers.items()}
        require_rules(rules, floor)
        await require_denials(Evaluator(engine=engine, floor=floor), lambda: case.at)
    except (ConfigError, PolicyError) as error:
        return (broken(POLICY, f"the gateway does not start: {error}", f"correct {case.config.source}"),)
    return (fine(POLICY, f"{', '.join(case.config.policy)} loads, and denies what must be denied"),)
