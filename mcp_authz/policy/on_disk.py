"""The policy as it lies on disk now, which need not be the one that a running gateway decides by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mcp_authz.canary import require_denials
from mcp_authz.config import Config
from mcp_authz.errors import ConfigError, PolicyError
from mcp_authz.evaluation import Evaluator
from mcp_authz.locking import is_locked
from mcp_authz.policy.loading import load_engine
from mcp_authz.settings import approval_floor


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDisk:
    """What would decide after a start of the gateway; `trouble` is why nothing would, and what to do, if so."""

    digest: str | None
    trouble: str = ""


async def policy_on_disk(config: Config, at: datetime) -> OnDisk:
    """Load the policy as a start of the gateway would, and try it: it must deny what no policy may permit."""
    engine = None
    try:
        engine = load_engine(config, config.policy)
        evaluator = Evaluator(engine=engine, floor=approval_floor(config), means=config.means)
        await require_denials(evaluator, lambda: at)
        status = getattr(engine, "status", None)  # of an engine elsewhere: where it is away, everything is denied
        return OnDisk(digest=engine.digest, trouble="" if status is None else status.trouble)
    except (ConfigError, PolicyError) as error:
        return OnDisk(digest=None, trouble=_sentence(config, str(error)))
    finally:
        if (close := getattr(engine, "aclose", None)) is not None:
            await close()


def shadow_trouble(config: Config) -> str:
    """Why the second policy cannot be loaded; empty where it can, or there is none."""
    try:
        load_engine(config, config.shadow_policy, key="shadow_policy")
    except (ConfigError, PolicyError) as error:
        return str(error)
    return ""


def _sentence(config: Config, why: str) -> str:
    if is_locked(config.lock):
        return f"policy on disk is not what decides: {why}"
    return f"the gateway does not start: {why}"
