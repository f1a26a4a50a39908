"""Row 44, what lets somebody in: every token, code, secret, link and cookie that the gateway makes or is shown.

And what only a caller's call has: nobody reads it who may not answer it, on no page and by no question to the API.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_authz.agents import Agents, People
from mcp_authz.enrolment import Codes
from mcp_authz.model import HoldId
from mcp_authz.principals import AgentName
from mcp_authz.protocol.answers import ENVELOPE
from mcp_authz.rules.display import displayed_digest
from mcp_authz.rules.keys import PrivateKey, b64url, seal_private
from tests.attacks.attacker import answer_in, handshake, spy, tool
from tests.attacks.canaries import Canaries
from tests.proofs import Prover
from tests.road.test_offers import bookshelf
from tests.signing import signing
from tests.standing import ANY, give
from tests.web.asking import VERIFIER, agree, answer, asks
from tests.web.authenticator import Visit, visit, visiting
from tests.web.elsewhere import leave
from tests.web.lying_provider import SECRET, Liar, lying_provider
from tests.webhooks.receiver import Bot, answering, receiver
from tests.world import Actor, World, world

PLACES = (
    "argument free passphrase answer state completion progress_token meta uri other_code other_verifier "
    "other_refresh provider_access provider_code enrol_guess link_guess webhook_guess"
)
CLIENTS = ("httpx2", "httpcore2")  # of this test
WEB = "https://portal.example/callback"
MEANT = {
    "a webhook's message": {"argument", "free"},  # whoever has its secret may answer, so it shows what they answer
    "data/": {"reason"},  # it is signed as it was said; the log has it redacted
}
ROLES = {"admins": ["user:ada"], "auditors": ["group:audit"]}


def servers(directory: Path) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"password": {}, "n": {}}}
    server = spy(directory / "spy", tool("look", inputSchema=schema), tool("drop", inputSchema=schema))
    hazards = {"look": {"hazard": "read", "scopes": ["use"]}, "drop": {"hazard": "destructive", "scopes": ["use"]}}
    return {"spy": server.config(tools=hazards), "lib": bookshelf()}


async def keys_and_proofs(w: World, c: Canaries, coder: Actor) -> str:
    """A sign-in by a key, a token that is bound to one, a signed call; returns a bearer token."""
    c.add("client assertion", w.assertion(coder))
    token = c.add("access token", await w.token(coder, "use"))
    prover = Prover(w, PrivateKey.generate())
    bound = c.add("bound token", await prover.token(coder, "use"))
    proof = c.add("DPoP proof", prover.proof(bound))
    headers = {"authorization": f"DPoP {bound}", "dpop": proof}
    for _ in range(2):  # the second time it is refused
        await w.raw_call(None, "spy__look", {"password": c["argument"]}, headers=headers)
    signed = (await signing(w, coder)).meta("spy__look", {"password": c["argument"]}, at=w.clock())
    for proof in signed.values():
        c.add("call proof", proof)
    await w.raw_call(token, "spy__look", {"password": c["argument"]}, meta=signed)
    for chain in (await w.delegate(coder, "helper", "use"),):
        c.add("delegated token", chain)
    new = AgentName("newcomer")
    await Agents(w.store, w.clock).add(new, owner="bob", key=None, ceiling=frozenset(), by="user:op")
    code = c.add("enrolment code", (await Codes(w.store, w.clock).make(new, by="user:op")).text)
    async with httpx2.AsyncClient(base_url=w.config.public_url) as http:
        for text in (code, c["enrol_guess"]):
            await http.post("/agents/newcomer/enrol", data={"code": text, "proof": "wrong"})
    await People(w.store, w.clock).add_key("bob", PrivateKey.generate().public, by="user:op")
    c.add("sealed key", seal_private(PrivateKey.generate(), c["passphrase"]))  # is in no file of the gateway's
    return token


async def calls(w: World, c: Canaries, token: str) -> HoldId:
    """Calls with what the protocol has beside arguments; returns the id of a call that is held still."""
    sent: dict[str, Any] = {"password": c["argument"]}
    more = {"inputResponses": {"q": {"action": "accept", "content": {"x": c["answer"]}}}, "requestState": c["state"]}
    await w.raw_call(token, "spy__look", sent, **more)
    await w.raw_call(token, "spy__look", sent, meta={"progressToken": c["progress_token"], "com.example/x": c["meta"]})
    async with handshake(w, token) as session:
        prompt = {"type": "ref/prompt", "name": "lib__review"}
        asked = {"name": "title", "value": c["completion"]}
        c.look(
            "an answer to a completion",
            str(await session.request("completion/complete", {"ref": prompt, "argument": asked})),
        )
        c.look(
            "an answer to a read", str(await session.request("resources/read", {"uri": f"nothing://{c['uri'][7:]}"}))
        )
    first = await held(w, token, {"password": c["free"], "n": 1})
    await give(w, first, by="bob", password=ANY)
    for n in (1, 1):
        await w.raw_call(token, "spy__drop", {"password": c["free"], "n": n})
    return await held(w, token, {**sent, "n": 2})


async def held(w: World, token: str, arguments: Any) -> HoldId:
    said = answer_in(await w.raw_call(token, "spy__drop", arguments))["result"]
    return HoldId(said["_meta"][ENVELOPE]["hold"])


async def verdict(w: World, c: Canaries, hold: HoldId) -> None:
    """A webhook's answer, once with the wrong secret."""
    asked = await w.store.hold(hold)
    body = {
        "hold": hold,
        "act_s256": b64url(asked.digest),
        "shown_s256": b64url(displayed_digest(asked)),
        "person": "bob",
        "verdict": "deny",
        "reason": c["reason"],
    }
    for seed in (7, 2):
        c.look("the answer to a webhook", (await Bot(w, seed=seed).send(body, message_id=f"msg_{seed}")).content)
    body["act_s256"] = c["webhook_guess"]
    c.look("the answer to a webhook", (await Bot(w).send(body, message_id="msg_3")).content)


async def clients(w: World, c: Canaries, alice: Visit) -> None:
    """A client with a secret, to which alice agrees; its code, its tokens, and others that are guessed."""
    new = await w.running.clients.register("Portal", redirect_uris=[WEB], method="client_secret_basic", by="user:op")
    assert new.secret is not None
    auth = (str(new.client.id), c.add("client secret", new.secret))
    for _ in range(2):
        agreed = answer(await agree(alice, asks(new.client, state=c["state"]), ["use"]))
        code = c.add("authorization code", agreed["code"])
    form = {"grant_type": "authorization_code", "redirect_uri": WEB, "code_verifier": VERIFIER, "code": code}
    wrong = ({**form, "code": c["other_code"]}, {**form, "code_verifier": c["other_verifier"] * 2})
    refresh = {"grant_type": "refresh_token"}
    async with httpx2.AsyncClient(base_url=w.config.public_url, auth=auth) as http:
        for one in (*wrong, {**refresh, "refresh_token": c["other_refresh"]}):
            c.look("a refusal of the token endpoint", (await http.post("/token", data=one)).content)
        got = (await http.post("/token", data=form)).json()
        for name in ("access_token", "refresh_token"):
            c.add(name, got[name])
        again = (await http.post("/token", data={**refresh, "refresh_token": got["refresh_token"]})).json()
        for name in ("access_token", "refresh_token"):
            c.add(name, again[name])
        await http.post("/introspect", data={"token": again["access_token"]})
        await http.post("/revoke", data={"token": again["refresh_token"]})
        c.look("a code used twice", (await http.post("/token", data=form)).content)


async def people(w: World, c: Canaries, liar: Liar) -> None:
    """Who signs in by an invitation, by a passkey and with a provider."""
    async with visit(w) as bob:
        path = await bob.invite("bob")
        c.add("invitation", path.rpartition("/")[2])
        c.look("a wrong link", (await bob.get(f"/welcome/{c['link_guess']}")).content)
        assert (await bob.register(path)).status_code == 200
        cookies(c, bob)
        assert (await bob.sign_in()).status_code == 200
        cookies(c, bob)
    async with visit(w) as carol:
        way = await leave(carol)
        cookies(c, carol)
        liar.claims = {"preferred_username": "carol", "sub": "1002"}
        liar.userinfo = {"sub": "1002", "preferred_username": "carol"}
        back = liar.comes_back(way, code=c["provider_code"])
        liar.id_token = c.add("ID token", liar.token())
        arrived = await carol.get(back)
        assert arrived.status_code == 200, arrived.text
        cookies(c, carol)
        assert any(c["provider_code"] in str(said) for _, said in liar.asked)


def cookies(c: Canaries, them: Visit) -> None:
    for name, value in them.http.cookies.items():
        c.add(f"cookie {name}", value)


async def others(w: World, c: Canaries, hold: HoldId) -> None:
    """Every page, and every question to the API, by who is nobody to these calls, and by an auditor."""
    (session, *_) = await w.store.sessions()
    call = (await w.records("decision"))[0].event.call
    await w.person("eve")
    await w.person("ann", "audit")
    pages = f"/ /holds /holds/{hold} /holds/{hold}/asked /sessions /agents /agent/coder /audit"
    more = f"/sessions/{session.id}", f"/audit/calls/{hold}"
    asked = "/records?limit=500", "/agents", "/sessions", f"/sessions/{session.id}", f"/calls/{call}", f"/calls/{hold}"
    for name in ("eve", "ann"):
        async with visiting(w, name) as them:
            for path in (*pages.split(), "/access", *more, f"/audit/calls/{call}", "/audit?text=CANARY"):
                c.look(f"{path} of {name}", (await them.get(path)).content)
        by = await w.client_agent(f"{name}-cli", name, scope="administration:read")
        c.add("access token", by.access_token)
        headers = {"authorization": f"Bearer {by.access_token}"}
        async with httpx2.AsyncClient(base_url=f"{w.config.public_url}/administration", headers=headers) as http:
            for path in asked:
                answered = await http.get(path)
                assert (answered.status_code == 200) or name == "eve", (path, answered.text)
                c.look(f"{path} of {name}", answered.content)


async def test_nothing_that_lets_somebody_in_is_written_down_and_no_call_is_shown_to_whom_it_is_not_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    c = Canaries(PLACES, "reason", meant=MEANT)
    secret = tmp_path / "provider.secret"
    secret.write_text(c.add("provider's client secret", SECRET))
    secret.chmod(0o600)
    with lying_provider() as liar:
        provider = {"issuer": liar.issuer, "client_id": "gateway", "client_secret_file": str(secret)}
        liar.answer = None
        async with (
            receiver() as team,
            world(
                tmp_path,
                servers=servers(tmp_path),
                webhooks={"team": answering(tmp_path, team.url(), people={"bob": "bob"})},
                sign_in={"provider": provider},
                administration=ROLES,
                approval={"destructive": {"by": ["user:bob", "subject"], "assurance": "client-other"}},
            ) as w,
        ):
            for name in ("out.whsec", "back.whsec"):
                c.add(name, (tmp_path / name).read_text().strip())
            await w.person("bob")
            coder = await w.ready("coder", "use", subject="bob", delegates_to=["helper"], depth=1)
            await w.agent("helper", ceiling="use", owner="bob")
            token = await keys_and_proofs(w, c, coder)
            waits = await calls(w, c, token)
            await people(w, c, liar)
            await w.person("alice")
            async with visiting(w, "alice") as alice:
                await clients(w, c, alice)
                cookies(c, alice)
            await others(w, c, waits)
            await verdict(w, c, waits)
            async with httpx2.AsyncClient() as http:
                c.look("/metrics", (await http.get(f"{w.config.public_url}/metrics")).content)
            await team.got(3)
            decisions, state = await w.decisions(), (await w.store.hold(waits)).state
            await w.app._write_refusals()
            c.look_below(tmp_path / "data", " while it runs")
    for post in team.posts:
        c.look("a webhook's message", post.body)
    read(c, caplog.records)
    c.look_below(tmp_path / "data")
    assert c.found == [], "\n".join(c.found)
    of_webhooks = {one for one in c.meant if "webhook" in one}
    assert of_webhooks == {"argument in a webhook's message", "free in a webhook's message"}
    heard = (tmp_path / "spy" / "heard").read_text()
    assert all(c[name] in heard for name in ("argument", "free", "meta")), "they went where they had to go"
    assert {"permit", "hold", "deny", "replay"} == {one["decision"] for one in decisions} and state == "denied"
    assert {"bearer", "dpop", "signed"} == {one["proof"] for one in decisions if "proof" in one}
    kinds = {name.partition(" 4")[0].partition(" 5")[0].partition(" 6")[0] for name in c.of}
    assert kinds >= {"authorization code", "refresh_token", "invitation", "enrolment code", "ID token", "call proof"}


def read(c: Canaries, lines: Iterable[logging.LogRecord]) -> None:
    """What was logged, whatever the level."""
    for line in lines:
        if not line.name.startswith(CLIENTS):
            c.look(f"a line of {line.name}", f"{line.getMessage()} {line.exc_text}")
