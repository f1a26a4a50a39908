"""A gateway says how it is: ready or not, counted for Prometheus, each call a span; and no secret in any of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.config import parse_config
from mcp_authz.errors import ConfigError
from mcp_authz.installation import utc_now
from mcp_authz.metrics import Metrics
from mcp_authz.protocol.operations import MetricsRoute
from mcp_authz.telemetry import PAGE, Telemetry
from tests.road.places import BOTH
from tests.world import World, world

CANARY = "CANARY-77aa12"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PULL = {"owner": "acme", "repo": "api"}


async def page(w: World, path: str, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient() as http:
        return await http.get(f"{w.config.public_url}{path}", headers=headers)


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP receiver: what came to its path for traces."""
    came: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            came.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.daemon_threads, server.block_on_close = True, False  # whoever sends keeps its connection
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", came
        finally:
            server.shutdown()
            thread.join()


def spans_in(came: list[bytes]) -> list[Any]:
    """Every span that came, as protocol buffers have it."""
    otlp = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    return [
        span
        for body in came
        for resource in otlp.ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


async def test_each_call_is_counted_and_is_a_span_in_the_trace_of_its_caller(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    with collector() as (endpoint, came):
        async with world(tmp_path, otel={"endpoint": endpoint}) as w:
            assert (await page(w, "/readyz")).json() == {"status": "ready"}
            token = await w.token(await w.ready("coder", "pr"))
            parent = f"00-{TRACE}-{SPAN}-01"
            await w.raw_call(token, "acme__list_pull_requests", PULL, headers={"traceparent": parent})
            await w.raw_call(token, "acme__list_pull_requests", PULL, meta={"traceparent": parent})
            await w.raw_call(token, f"acme__{CANARY}", {"secret": CANARY})
            await w.raw_call(token, "acme__read_secret", {"environment": "staging", "name": CANARY})
            permitted = [it for it in await w.decisions() if it["decision"] == "permit"]
            assert [(it["trace"], it["span"]) for it in permitted] == [(TRACE, SPAN)] * 2
            scraped = (await page(w, "/metrics")).text
            decisions = await w.decisions()
        (tmp_path / "metrics").write_text(scraped)
        named = 'mcp_authz_decisions_total{decision="permit",reason="",server="acme",hazard="read"}'
        assert f"{named} 2\n" in scraped and "mcp_authz_holds_waiting 0\n" in scraped
        assert 'mcp_authz_call_seconds_count{outcome="done"} 2' in scraped
        counted = [line for line in scraped.splitlines() if line.startswith("mcp_authz_decisions_total{")]
        assert sum(int(line.rpartition(" ")[2]) for line in counted) == len(decisions)
        spans = spans_in(came)
        assert len(spans) == len(decisions)
        ours = [span for span in spans if span.trace_id.hex() == TRACE]
        assert [(span.name, span.parent_span_id.hex()) for span in ours] == [
            ("tools/call acme__list_pull_requests", SPAN)
        ] * 2
        assert all(0 < span.end_time_unix_nano - span.start_time_unix_nano < 60e9 for span in ours)
        assert CANARY not in scraped and not any(CANARY.encode() in body for body in came)
        assert not any(token.encode() in body for body in came)


@BOTH
async def test_a_trace_is_on_record_in_both_eras(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        async with w.client(coder, mode) as client:
            meta: Any = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            await client.call_tool("acme__list_pull_requests", dict(PULL), meta=meta)
        assert [it["trace"] for it in await w.decisions() if it["decision"] == "permit"] == [TRACE]


async def test_metrics_are_for_this_machine_or_for_whoever_has_the_token(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert (await page(w, "/metrics")).status_code == 200
        assert (await page(w, "/metrics", origin="https://elsewhere.example")).status_code == 404
        assert (await page(w, "/metrics", host="elsewhere.example")).status_code == 404
        store, metrics = w.store, Metrics(())
        telemetry = Telemetry(store, [])
        for url, token, given, status in (
            ("https://authz.example.com", None, {}, 404),  # whatever a proxy on this machine brings comes from here
            ("https://authz.example.com", "secret", {}, 404),
            ("https://authz.example.com", "secret", {"authorization": "Bearer secre"}, 404),
            ("https://authz.example.com", "secret", {"authorization": "Bearer secret"}, 200),
            ("http://localhost:1", "secret", {}, 404),
        ):
            route = MetricsRoute(store=store, metrics=metrics, telemetry=telemetry, public_url=url, token=token)
            transport = httpx2.ASGITransport(app=route.app, client=("127.0.0.1", 1))
            async with httpx2.AsyncClient(transport=transport, base_url=url) as http:
                assert (await http.get("/metrics", headers=given)).status_code == status, (url, token, given)
        route = MetricsRoute(
            store=store, metrics=metrics, telemetry=telemetry, public_url="http://localhost:1", token=None
        )
        for peer, status in (("192.0.2.7", 404), ("::1", 200), ("", 200)):
            transport = httpx2.ASGITransport(app=route.app, client=(peer, 1))
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:1") as http:
                assert (await http.get("/metrics")).status_code == status, peer


async def test_a_gateway_whose_store_cannot_be_written_is_not_ready(tmp_path: Path) -> None:
    async with world(tmp_path, metrics={"enabled": False}) as w:
        assert (await page(w, "/metrics")).status_code == 404
        path = w.config.data / "store.db"
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TRIGGER full BEFORE INSERT ON once BEGIN SELECT RAISE(FAIL, 'no more'); END")
        answer = await page(w, "/readyz")
        assert answer.status_code == 503 and answer.json()["status"] == "not ready"
        assert (await page(w, "/healthz")).status_code == 200


async def test_the_log_is_heard_of_once_and_in_its_order_also_what_another_process_wrote(tmp_path: Path) -> None:
    from mcp_authz.rules.keys import Sealer
    from mcp_authz.store.ports import Event
    from mcp_authz.store.sqlite import SqliteStore

    def opened() -> SqliteStore:
        return SqliteStore.open(tmp_path / "store.db", sealer=Sealer(bytes(32)), clock=utc_now)

    ours, theirs, heard = opened(), opened(), []
    telemetry = Telemetry(ours, [lambda record: 1 / 0, lambda record: heard.append(record.sequence)])
    await ours.append(Event(kind="policy", at=utc_now()))
    await telemetry.begin()
    async with anyio.create_task_group() as group:
        for store in [ours, theirs] * (PAGE // 2 + 10):
            group.start_soon(store.append, Event(kind="policy", at=utc_now()))
    async with anyio.create_task_group() as group:
        group.start_soon(telemetry.catch_up)
        group.start_soon(telemetry.catch_up)
    assert heard == list(range(2, PAGE + 22))
    await ours.aclose()
    await theirs.aclose()


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://x", "http://user:pw@x", "http://x?y=z"])
def test_an_endpoint_is_a_url_without_credentials(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"`otel\.endpoint`"):
        parse_config({"otel": {"endpoint": endpoint}})
