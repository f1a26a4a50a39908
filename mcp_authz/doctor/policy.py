"""The policy: it loads, and it denies what must be denied."""

from __future__ import annotations

from mcp_authz.doctor.finding import Case, Finding, broken, fine, note
from mcp_authz.errors import ConfigError
from mcp_authz.policy.on_disk import policy_on_disk, shadow_trouble
from mcp_authz.settings import approval_floor, require_rules, server_rules

POLICY = "policy"


async def check_policy(case: Case) -> tuple[Finding, ...]:
    """What a start of the gateway demands of policy, presets and approval rules."""
    config = case.config
    try:
        rules = {name: server_rules(name, server) for name, server in config.servers.items()}
        require_rules(rules, approval_floor(config))
    except ConfigError as error:
        return (broken(POLICY, f"the gateway does not start: {error}", f"correct {config.source}"),)
    disk, named = await policy_on_disk(config, case.at), ", ".join(config.policy)
    if disk.digest is None:
        return (broken(POLICY, disk.trouble, f"correct it, or {config.source}"), *_shadow(case))
    if disk.trouble:
        text = f"{named}: {disk.trouble}, and so every call is denied"
        return (broken(POLICY, text, "look after that engine"), *_shadow(case))
    return (fine(POLICY, f"{named} loads, and denies what must be denied"), *_shadow(case))


def _shadow(case: Case) -> tuple[Finding, ...]:
    trouble = shadow_trouble(case.config)
    text = f"the policy in the shadow is not asked: {trouble}; every call is decided all the same"
    return (note(POLICY, text, f"correct it, or {case.config.source}"),) if trouble else ()
