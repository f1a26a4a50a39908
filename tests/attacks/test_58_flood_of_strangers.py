"""Row 58: strangers send what is refused, from one address and from many, faster than anybody can write it down."""

from __future__ import annotations

import logging
import shutil
import signal
from collections import Counter
from pathlib import Path

import anyio
import httpx2
import pytest
from starlette.applications import Starlette

from mcp_authz import limits
from mcp_authz.installation import open_installation
from mcp_authz.oauth import oauth_routes
from mcp_authz.principals import AgentName
from mcp_authz.protocol.throttle import Refusals, Throttle, source
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from tests.attacks.attacker import spoken, spy, status_of, tool, until
from tests.oauth.house import EXCHANGE, JWT, Actor, expect, house, office
from tests.site import site
from tests.world import MODERN, modern_call, world

FLOOD = 500


def test_a_throttle_remembers_a_bounded_number_of_sources_and_the_newest_of_them() -> None:
    throttle = Throttle()
    for number in range(limits.SOURCES + 500):
        throttle.charge(f"source {number}", 0.0)
    assert len(throttle._sources) == limits.SOURCES
    for _ in range(limits.SOURCE_BURST):
        throttle.charge("one", 0.0)
    assert not throttle.allows("one", 0.0)
    assert throttle.allows("another", 0.0)
    assert throttle.allows("one", 1.0)  # it may go on after a while


def test_refusals_of_many_sources_are_counted_together_and_none_is_lost() -> None:
    refusals = Refusals()
    for number in range(5 * limits.REFUSAL_KINDS):
        refusals.count("token not valid", f"source {number}")
    taken = refusals.take()
    assert len(taken) <= limits.REFUSAL_KINDS + 1
    assert sum(count for _, _, count in taken) == 5 * limits.REFUSAL_KINDS
    assert refusals.take() == []


def test_the_table_of_refusals_is_bounded_in_reasons_as_well() -> None:
    refusals = Refusals()
    for number in range(3 * limits.REFUSAL_KINDS):
        refusals.count(f"reason {number}", f"source {number % 7}")
    taken = refusals.take()
    assert len(taken) <= limits.REFUSAL_KINDS + 1
    assert ("other", "many sources", 2 * limits.REFUSAL_KINDS) in taken


async def test_refusals_leave_the_last_of_the_disk_to_decisions_and_are_counted_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        for number in range(3 * limits.REFUSALS_RECORDED):
            w.app._refusals.count("token not valid", f"source {number}")
            w.app._refusals.count("unreadable", "the loudest")
        monkeypatch.setattr(limits, "STORE_RESERVE", shutil.disk_usage(tmp_path).total)
        await w.app._write_refusals()
        assert await w.records("refusals") == ()
        assert (await w.raw_call(token, "spy__look", {})).status_code == 200

        monkeypatch.undo()
        path = w.config.data / "store.db"
        path.rename(tmp_path / "away")
        await w.app._write_refusals()  # nor is anything forgotten while nothing can be written
        (tmp_path / "away").rename(path)

        await w.app._write_refusals()
        counted = [it.event.fields for it in await w.records("refusals")]
        assert len(counted) == limits.REFUSALS_RECORDED + 1
        assert sum(it["count"] for it in counted) == 6 * limits.REFUSALS_RECORDED
        assert {"reason": "unreadable", "source": "the loudest", "count": 3 * limits.REFUSALS_RECORDED} in counted
        assert counted[-1]["source"] == "many sources" and counted[-1]["reason"] == "token not valid"


async def test_refusals_of_the_last_minute_are_recorded_when_the_gateway_stops(tmp_path: Path) -> None:
    async with site(tmp_path, {}, "use") as here, here.at() as http:
        with here.serving() as gateway:
            await here.up(http)
            for _ in range(3):
                await http.post("/mcp", content=b"{", headers={"authorization": "Bearer stolen"})
            gateway.send_signal(signal.SIGTERM)
            gateway.wait()
        async with open_installation(here.config) as installation:
            (record,) = await installation.store.records(kind="refusals")
        assert record.event.fields["count"] == 3


async def test_strangers_choose_no_words_by_which_their_refusals_are_counted(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        nobody, kinds = Actor(AgentName("planner/x"), PrivateKey.generate()), set[str]()
        for number in range(4):
            bad = f"e30.{jose.b64url(b'{' + b' ' * number + b'x}')}.{jose.b64url(bytes(64))}"
            form = {"grant_type": EXCHANGE, "subject_token_type": JWT, "subject_token": f"{bad}\n{bad}"}
            await h.post(nobody, **form)
            for path in ("/token", "/revoke", "/agents/planner/key"):
                await h.post(nobody, path, client_assertion=bad, **form)
            await h.post(nobody, client_assertion=h.assertion(nobody, exp=number), **form)
            await h.post(nobody, "/agents/planner/enrol", proof=bad, code=f"{number}")
            await h.post(nobody, f"/agents/planner-{number}/enrol", proof="x" * number, code=f"{number}")
            await h.post(nobody, grant_type=f"mine-{number}", **{f"field {number}": "x"})
            await h.http.post(f"{h.issuer}/token", content=b"x" * number)
            await h.post(nobody, headers={"DPoP": bad}, **form)
            kinds = kinds or set(h.refusals)
        assert set(h.refusals) == kinds and all(len(kind) < 80 for kind in kinds), h.refusals


async def test_all_of_an_ipv6_network_is_one_source_at_the_authorization_server_too(tmp_path: Path) -> None:
    counted = list[tuple[str, str]]()
    async with office(tmp_path) as h:
        routes = oauth_routes(h.server(lambda reason, peer: counted.append((reason, peer))))
        for host in ("2001:db8::1", "2001:db8::2:3", "192.0.2.7"):
            transport = httpx2.ASGITransport(Starlette(routes=routes), client=(host, 1))
            async with httpx2.AsyncClient(transport=transport, base_url=h.issuer) as http:
                for path in ("/token", "/revoke", "/agents/planner/key"):
                    await http.post(path, data={"grant_type": "client_credentials"})
    assert Counter(peer for _, peer in counted) == {"2001:db8::/64": 6, "192.0.2.7": 3}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::1", "::2", True),
        ("testclient", "no address", True),
    ],
)
def test_a_host_with_many_addresses_is_one_source(one: str, other: str, same: bool) -> None:
    assert (source(one) == source(other)) is same


async def test_a_flood_from_an_address_does_not_lock_out_an_agent_behind_it(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        coder = await w.ready("coder", "spy:look")
        token = await w.token(coder)
        records = len(await w.records())
        statuses: Counter[int] = Counter()
        lines = {"authorization": "Bearer stolen", "mcp-protocol-version": MODERN, "content-type": "application/json"}
        lines |= {"mcp-method": "tools/call", "mcp-name": "spy__look"}
        async with httpx2.AsyncClient(timeout=20, headers=lines) as http:

            async def knock() -> None:
                while True:
                    statuses[(await http.post(w.url, json=modern_call("spy__look", {}))).status_code] += 1

            async def is_spent() -> bool:
                return statuses[429] >= FLOOD

            async with anyio.create_task_group() as group:
                for _ in range(16):
                    group.start_soon(knock)
                await until(is_spent)
                with anyio.fail_after(10):  # in the middle of it
                    for _ in range(5):
                        assert (await w.raw_call(token, "spy__look", {})).status_code == 200
                    assert (await w.call(coder, "spy__look")).text == "ran look"  # and a new one can log in
                group.cancel_scope.cancel()
        assert statuses.keys() == {401, 429}
        assert [fields["decision"] for fields in await w.decisions()].count("permit") == 6
        assert len(await w.records()) - records <= 16  # nothing for each of the refusals
        await w.app._write_refusals()
        counted = await w.records("refusals")
        assert len(counted) <= 4
        assert sum(record.event.fields["count"] for record in counted) >= FLOOD


async def test_a_spent_address_is_refused_before_its_body_is_read(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        async with httpx2.AsyncClient(timeout=20) as http:
            stolen = {"authorization": "Bearer stolen"}
            statuses = [(await http.post(w.url, content=b"{", headers=stolen)).status_code for _ in range(FLOOD)]
        assert statuses[-1] == 429
        head = f"POST /mcp HTTP/1.1\r\nhost: localhost:{w.config.listen_port}\r\ncontent-length: 100000\r\n"
        assert status_of(await spoken(w, f"{head}authorization: Bearer stolen\r\n\r\n".encode())) == 429
        said = await spoken(w, f"{head}\r\n".encode())  # who has no token yet still hears where to get one
        assert status_of(said) == 401 and b"resource_metadata" in said


async def test_what_strangers_send_writes_no_line_into_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)
    sent = [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"no http at all\r\n\r\n",
        b"GET /mcp HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"GET /%00%ff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        b"POST /token HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\na=b",
        b"POST /revoke HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\na=b",
        b"POST /mcp HTTP/1.1\r\nhost: \xff\xfe\r\nauthorization: Bearer \xe2\x82\xac\r\ncontent-length: 0\r\n\r\n",
    ]
    async with world(tmp_path, servers={}) as w:
        for raw in sent:
            await spoken(w, raw)
    assert caplog.text == ""
    assert capfd.readouterr().err == ""


async def test_connections_that_say_nothing_do_not_keep_others_waiting(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        streams = [await anyio.connect_tcp("127.0.0.1", w.config.listen_port) for _ in range(200)]
        for stream in streams:
            await stream.send(b"POST /mcp HTTP/1.1\r\n")
        with anyio.fail_after(5):
            assert (await w.raw_call(token, "spy__look", {})).status_code == 200
        for stream in streams:
            await stream.aclose()


async def test_strangers_who_registered_themselves_write_no_line_by_being_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="client_secret_post", kind="dynamic")
        before = len(await h.store.records(after=0))
        for _ in range(2 * limits.SIGN_INS_REFUSED):
            answer = await h.redeem_code(app, "unknown", headers=h.proof(PrivateKey.generate()))
            if answer.status_code == 429:
                break
        assert answer.status_code == 429, "whoever can register counts as anybody"
        assert len(await h.store.records(after=0)) == before
        assert expect(await h.redeem_code(app, await h.agreed(app)))["refresh_token"]
