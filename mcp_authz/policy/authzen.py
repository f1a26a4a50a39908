"""AuthZEN over HTTP: a policy decision point that speaks the OpenID Authorization API 1.0.

Asked is the access evaluation API (section 6) where the decision point's metadata say that it is (section 9), or at its
default path where there are none. Metadata count for an hour, and never lead to another origin than the one that the
operator named: the gateway's credential goes along.

**Where the document stands.** `subject` is the actor, of type `agent`; `action` has the call's method and arguments as
its properties; `resource` is the tool, of type `tool`; the rest is the `context` (`docs/policy-input.md`). What is null
is left out (section 11.5), except in arguments.

**What counts of an answer.** `decision`, and of its `context` the members `because`, `obligations` and `policy` of the
decision object (`answer_object`). The standard leaves that context to implementations, and lets one reject a permit
whose context it does not understand (section 5.5); so does this one, unless it only explains.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import anyio

from mcp_authz import limits
from mcp_authz.errors import PolicyError
from mcp_authz.ids import new_id
from mcp_authz.policy.answer_object import decision
from mcp_authz.policy.engine import PolicyAnswer, PolicyInput
from mcp_authz.policy.remote import Away, DecisionPoint, NotThere, Pdp, PdpStatus, json_object, pdp_url
from mcp_authz.rules import strict_json

_EVALUATION: Final = "/access/v1/evaluation"
_METADATA: Final = "/.well-known/authzen-configuration"
_OURS: Final = frozenset({"because", "obligations", "policy"})
_EXPLAINS: Final = frozenset({"reason_admin", "reason_user", "metadata", "environment"})  # the standard's own examples
_CONTEXT: Final = ("chain", "on_behalf_of", "session", "scope", "approval", "time")
_KEPT: Final = limits.PDP_METADATA_KEPT.total_seconds()


class AuthZenEngine:
    """The engine behind one policy decision point."""

    def __init__(self, url: str, pdp: Pdp, *, ticks: Callable[[], float] = time.monotonic) -> None:
        """Nothing is asked yet.

        Args:
            url: the decision point's identifier (section 9.1.1), such as `https://pdp.example.com` or
                `https://pdp.example.com/tenant1`, also with `authzen+` before it.
            pdp: how it is asked.
            ticks: seconds that only go on.

        Raises:
            PolicyError: the URL may not be asked.
        """
        self._url = pdp_url(url, "authzen")
        self._pdp = DecisionPoint(f"the policy decision point `{self._url}`", pdp, ticks=ticks)
        self._ticks = ticks
        self._endpoint = ""
        self._good_until = 0.0
        self._turn = anyio.Lock()  # one reading of the metadata at a time

    @property
    def digest(self) -> str:
        """Hex SHA-256 over the words `authzen` and the URL: who was asked, for nobody here knows its policy.

        It does not change when policy does. Which one decided is the `revision` of an answer, if that tells it.
        """
        return hashlib.sha256(strict_json.dump(["authzen", self._url])).hexdigest()

    @property
    def status(self) -> PdpStatus:
        """What became of the questions so far."""
        return self._pdp.status

    async def aclose(self) -> None:
        """No connection is open any more."""
        await self._pdp.aclose()

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        """Return the decision; whatever goes wrong is an answer with `permit=False` and `errors`, never a raise."""
        number = new_id("q")
        try:
            async with self._pdp.question():
                answer = await self._pdp.post(
                    await self._where(), evaluation_request(document), **{"x-request-id": number}
                )
                if answer.request_id not in (None, number):  # section 10.1.3
                    raise PolicyError("its answer is to another request")
                return _answer(json_object(answer))
        except PolicyError as error:
            return PolicyAnswer(permit=False, because=(), errors=(str(error),))

    async def _where(self) -> str:
        """Where an evaluation is asked for."""
        async with self._turn:
            if self._ticks() >= self._good_until:
                self._endpoint = await self._discovered()
                self._good_until = self._ticks() + _KEPT
            return self._endpoint

    async def _discovered(self) -> str:
        parts = urlsplit(self._url)
        origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        try:
            metadata = json_object(await self._pdp.get(f"{origin}{_METADATA}{path}"))  # section 9.2
        except NotThere:
            return f"{origin}{path}{_EVALUATION}"  # section 10.1
        except Away:
            raise
        except PolicyError as error:
            raise PolicyError(f"of its metadata: {error}") from None
        if metadata.get("policy_decision_point") not in (self._url, self._url.rstrip("/")):  # section 9.2.3
            raise PolicyError("its metadata are those of another policy decision point")
        endpoint = metadata.get("access_evaluation_endpoint")
        if not isinstance(endpoint, str) or not endpoint.isascii() or not endpoint.startswith(f"{origin}/"):
            raise PolicyError("its metadata have no `access_evaluation_endpoint` on the same origin as itself")
        return endpoint


def evaluation_request(document: PolicyInput) -> dict[str, Any]:
    """Return the access evaluation request (section 6.1) for one input document.

    Raises:
        PolicyError: it lacks what every document has.
    """
    try:
        actor, resource = dict(document["actor"]), dict(document["resource"])
        properties = {"method": document["method"], "arguments": document["arguments"]}
        return {
            "subject": {"type": actor.pop("type"), "id": actor.pop("id"), "properties": _without_null(actor)},
            "action": {"name": document["action"], "properties": properties},
            "resource": {"type": "tool", "id": resource.pop("tool"), "properties": _without_null(resource)},
            "context": _without_null({name: document[name] for name in _CONTEXT}),
        }
    except (KeyError, TypeError):
        raise PolicyError("the input lacks what every document has") from None


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_null(inner) for name, inner in value.items() if inner is not None}
    return [_without_null(one) for one in value] if isinstance(value, list) else value


def _answer(body: Mapping[str, Any]) -> PolicyAnswer:
    """What a decision says (section 5.5); members beside `decision` and `context` are ignored (section 10.1.1)."""
    permit, context = body.get("decision"), body.get("context", {})
    if not isinstance(context, Mapping):
        raise PolicyError("the `context` of its decision is no object")
    answer = decision(permit, context)
    if answer.permit and not context.keys() <= _OURS | _EXPLAINS:
        raise PolicyError("it permits with a `context` that has members which are not known here")
    return answer
