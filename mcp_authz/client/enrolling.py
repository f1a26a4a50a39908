"""Registering an agent's first key at the gateway, by the one-time code that the operator handed over."""

from __future__ import annotations

from mcp_authz.client.asking import Applicant
from mcp_authz.client.door import NoAnswer, SignInRefused
from mcp_authz.client.talk import Ask, Talk, json_object
from mcp_authz.ids import new_id
from mcp_authz.rules.key_proof import enrolment_url, prove_key


def enrolled(who: Applicant, code: str) -> Talk[None]:
    """The talk after which the agent has this key; the same code and key once more change nothing.

    Raises:
        SignInRefused: the code is not one with which this agent can register a key now, or the key is somebody's.
        NoAnswer: what answers is no authorization server, or cannot answer now.
    """
    where = enrolment_url(who.door.issuer, who.name)
    proof = prove_key(who.key, agent=who.name, audience=where, id=new_id("k"), at=who.clock())
    answer = yield Ask(url=where, form={"code": code, "proof": proof})
    body = json_object(answer)
    if body is None or answer.status_code not in range(200, 500) or "location" in answer.headers:
        raise NoAnswer(f"the gateway at {who.door.issuer} cannot enrol anybody now")
    if answer.status_code != 200:
        said = body.get("error_description") or body.get("error") or "no reason"
        raise SignInRefused(f"agent `{who.name}` was not enrolled: {said}")
