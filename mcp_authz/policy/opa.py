"""OPA over HTTP: the Data API of an Open Policy Agent that somebody else runs and loads with policy.

Asked is `POST URL` with `{"input": document}`. The result is a boolean or the decision object of `answer_object`; none
at all is a rule that is undefined, and so a denial. `?provenance=true` makes OPA tell which bundles it has loaded.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from mcp_authz.errors import PolicyError
from mcp_authz.policy.answer_object import SILENCE, policy_answer
from mcp_authz.policy.engine import PolicyAnswer, PolicyInput
from mcp_authz.policy.remote import DecisionPoint, Pdp, PdpStatus, json_object, pdp_url
from mcp_authz.rules import strict_json

_DATA: Final = "/v1/data/"
_REVISION: Final = re.compile(r"[!-~]{1,64}", re.ASCII)


class OpaEngine:
    """The engine behind one URL of OPA's Data API."""

    def __init__(self, url: str, pdp: Pdp, *, ticks: Callable[[], float] = time.monotonic) -> None:
        """Nothing is asked yet.

        Args:
            url: the rule or package, `https://HOST/v1/data/agent/authz`, also with `opa+` before it.
            pdp: how it is asked.
            ticks: seconds that only go on.

        Raises:
            PolicyError: the URL may not be asked, or names no rule.
        """
        self._url = pdp_url(url, "opa")
        if not urlsplit(self._url).path.rpartition(_DATA)[2] or _DATA not in self._url:
            raise PolicyError(f"`{url}` names no rule: write opa+https://HOST/v1/data/PACKAGE, with / for each dot")
        self._pdp = DecisionPoint(f"OPA at `{self._url}`", pdp, ticks=ticks)

    @property
    def digest(self) -> str:
        """Hex SHA-256 over the words `opa` and the URL: who was asked, for nobody here knows what is loaded there.

        It does not change when OPA loads another policy. Which one decided is in the `revision` of each answer.
        """
        return hashlib.sha256(strict_json.dump(["opa", self._url])).hexdigest()

    @property
    def status(self) -> PdpStatus:
        """What became of the questions so far."""
        return self._pdp.status

    async def aclose(self) -> None:
        """No connection is open any more."""
        await self._pdp.aclose()

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        """Return OPA's answer; whatever goes wrong is an answer with `permit=False` and `errors`, never a raise."""
        try:
            async with self._pdp.question():
                return _answer(json_object(await self._pdp.post(f"{self._url}?provenance=true", {"input": document})))
        except PolicyError as error:
            return PolicyAnswer(permit=False, because=(), errors=(str(error),))


def _answer(body: Mapping[str, Any]) -> PolicyAnswer:
    """What a response of the Data API says; its other members are about OPA and not about the call."""
    answer = policy_answer(body["result"]) if "result" in body else SILENCE
    return answer if answer.revision else replace(answer, revision=_revision(body.get("provenance")))


def _revision(provenance: Any) -> str:
    """The revisions of the bundles that OPA had loaded, by name; empty where it tells none."""
    bundles = provenance.get("bundles") if isinstance(provenance, Mapping) else None
    if not isinstance(bundles, Mapping):
        return ""
    told = {name: one.get("revision") for name, one in sorted(bundles.items()) if isinstance(one, Mapping)}
    words = [
        f"{name}@{revision}"
        for name, revision in told.items()
        if _REVISION.fullmatch(name) and isinstance(revision, str) and _REVISION.fullmatch(revision)
    ]
    text = ",".join(words)
    return text if len(text) <= 256 else hashlib.sha256(text.encode()).hexdigest()
