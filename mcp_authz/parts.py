"""What the road is made of; `wiring` puts it together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mcp_authz.approvals import Approvals
from mcp_authz.audit import Evidence
from mcp_authz.catalog import Catalog
from mcp_authz.context import Contexts
from mcp_authz.deciding import Deciding
from mcp_authz.downstream import Downstream
from mcp_authz.evaluation import Evaluator
from mcp_authz.holding import Holding
from mcp_authz.obligations import Obligations
from mcp_authz.offers import Offers
from mcp_authz.policy.shadow import Shadow
from mcp_authz.proving import Proving
from mcp_authz.rules.keys import Sealer
from mcp_authz.step_ups import StepUps
from mcp_authz.store.ports import Clock, Store
from mcp_authz.underway import Underway
from mcp_authz.waits import Waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a call passes on its way, fixed for the life of the gateway."""

    store: Store
    catalog: Catalog
    evaluator: Evaluator
    holding: Holding
    approvals: Approvals
    page: str  # the URL that holds have their page under
    waits: Waits
    underway: Underway
    deciding: Deciding
    obligations: Obligations
    offers: Offers
    proving: Proving
    downstreams: Mapping[str, Downstream]
    contexts: Contexts
    elicitation: Mapping[str, bool]  # server -> whether it may ask the caller by form
    step_ups: StepUps
    evidence: Evidence
    sealer: Sealer
    clock: Clock
    keeps_inputs: bool = True  # whether it is kept what calls were decided upon (`[audit] inputs_days`)
    shadow: Shadow | None = None  # the policy that decides nothing; None where there is none
