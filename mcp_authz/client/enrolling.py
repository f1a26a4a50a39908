"""An agent registers its first key at a gateway: a one-time code says which agent, a proof that the key is its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2

from mcp_authz.client.discovery import discover, endpoint
from mcp_authz.client.rotation import reached
from mcp_authz.client.sign_in import Door, NoAnswer
from mcp_authz.client.talk import line
from mcp_authz.errors import AuthzError
from mcp_authz.ids import new_id
from mcp_authz.rules.key_proof import enrolment_url, prove_key
from mcp_authz.rules.keys import PrivateKey


class EnrolmentRefused(AuthzError):
    """The gateway does not take code and key; the key is not registered by them."""

    code = "enrolment_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledAt:
    """Where the agent is known by its key now."""

    issuer: str
    resource: str
    thumbprint: str


async def enrol_at(url: str, agent: str, code: str, key: Callable[[], PrivateKey]) -> EnrolledAt:
    """The key is the agent's at the gateway; `key` is asked for it once the gateway is known to be there.

    The same code with the same key may be sent again, for the case that the first answer did not arrive.

    Raises:
        EnrolmentRefused: the gateway says no.
        NoAnswer: no gateway answers there, or not whole: the key may be registered, or not.
        InputError: the URL is none, or one by which the code would travel in the open.
    """
    resource = endpoint(url)
    async with line(resource, None) as http:
        door = await discover(http, resource)
        thumbprint = await _registered(http, door, agent, code, key())
    return EnrolledAt(issuer=door.issuer, resource=resource, thumbprint=thumbprint)


async def _registered(http: httpx2.AsyncClient, door: Door, agent: str, code: str, key: PrivateKey) -> str:
    where = enrolment_url(door.issuer, agent)
    proof = prove_key(key, agent=agent, audience=where, id=new_id("k"), at=datetime.now(UTC))
    try:
        answer = await http.post(reached(door, where), data={"code": code, "proof": proof})
        body: Any = answer.json()
    except (httpx2.HTTPError, ValueError):
        raise NoAnswer(f"no answer from {door.issuer}; the key stays where it is: run this again") from None
    if not isinstance(body, dict) or answer.status_code >= 500:
        raise NoAnswer(f"the gateway at {door.issuer} cannot enrol anybody now; run this again")
    if answer.status_code != 200:
        raise EnrolmentRefused(f"agent `{agent}` is not enrolled: {body.get('error_description', body.get('error'))}")
    return str(body.get("key"))
