"""When the engines that are extras can be tried, and short policies of their languages."""

from __future__ import annotations

import platform
from importlib.util import find_spec

import pytest

from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.policy.rego import RegoEngine

HAS_REGO = find_spec("regopy") is not None

needs_rego = pytest.mark.skipif(
    not HAS_REGO,
    reason=f"the extra `rego` is not installed; there is no wheel for every machine ({platform.platform()})",
)


async def ask_rego(policy: str, document: object) -> PolicyAnswer:
    """What this Rego policy answers, in the package `t`."""
    return await RegoEngine.load({"test.rego": f"package t\nimport rego.v1\n{policy}"}).evaluate(document)  # type: ignore[arg-type]
