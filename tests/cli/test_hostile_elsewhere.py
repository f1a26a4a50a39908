"""A gateway elsewhere is read whole and followed; one that lies is told in one sentence, and no terminal acts on it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from mcp_authz.cli import (
    agent,
    audit_export,
    client,
    elsewhere_commands,
    elsewhere_log,
    elsewhere_proofs,
    grant,
    keys,
    session,
    tools,
    user,
)
from mcp_authz.cli import elsewhere_revoke as stops
from mcp_authz.cli.audit_evidence import excerpted
from mcp_authz.cli.main import app
from mcp_authz.client import administering
from mcp_authz.client.administering import Elsewhere, segment
from mcp_authz.errors import AuthzError, InputError
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.excerpt import FORMAT
from mcp_authz.store.ports import Event
from tests.world import world

EVIL = "\x1b]0;owned\x07\x1b[2J\u202eevil\nmcp-authz: all is well"
RECORD = {"sequence": 1, "at": "2026-01-31T12:00:00Z", "kind": EVIL, "call": EVIL, "fields": {"summary": EVIL}}
AGENT = {"name": EVIL, "owner": EVIL, "status": EVIL, "ceiling": [EVIL], "depth": EVIL, "delegates_to": [EVIL]}
USED = {"mode": "delegated", "max_calls": None, "calls_made": 1, "expires_at": "2026-01-31T12:00:00Z"}
SESSION = {
    **dict.fromkeys(("id", "grant", "agent", "subject", "purpose", "status"), EVIL),
    **dict.fromkeys(("started_at", "last_used_at"), "2026-01-31T12:00:00Z"),
    **USED,
    "links": [
        {**dict.fromkeys(("id", "holder", "status", "reason"), EVIL), "scope": [EVIL], "parent": None, "tools": None}
        | {"depth": 10**9, "max_depth": 10**9, "issued_at": "2026-01-31T12:00:00Z", **USED}
    ],
}
THING = {
    **dict.fromkeys(
        ("name", "owner", "status", "depth", "interactive", "id", "handle", "metadata_url", "ends_at"), EVIL
    ),
    **dict.fromkeys(("subject", "agent", "state", "server", "hazard", "action", "classified_by", "proof"), EVIL),
    **dict.fromkeys(("client", "parent", "use", "key", "tool", "call", "actor"), EVIL),
    **{key: [EVIL] for key in ("ceiling", "roles", "delegates_to", "groups", "scope", "scopes", "warnings")},
    **dict.fromkeys(("signs_from", "retires_at", "expires_at"), "2026-01-31T12:00:00Z"),
    **{"labels": {EVIL: EVIL}, "tools": {EVIL: None}, "redirect_uris": ["https://evil.example/"], "off": True},
    **{"keys": [{"thumbprint": EVIL, "status": EVIL}], "quarantined": True, "observed": True},
}
LISTS = {**{key: [THING] for key in ("users", "clients", "grants", "tools", "agents")}, "next": None}
BEFORE = {"already": False, "already_revoked": False}
SWEPT = {"ids": {EVIL: [EVIL]}, "sign_ins": EVIL, "codes": EVIL, "running": [THING], "digest": "00", "name": EVIL}
ANSWERS: list[Any] = [
    {**LISTS, "keys": [{**THING, "thumbprint": EVIL}]},
    {**THING, "passkeys": [THING | {"label": EVIL}], "identities": [{"issuer": EVIL, "subject": EVIL}], "browsers": 1},
    {**SWEPT, **BEFORE, "links": [], "holds": [EVIL], "stopped": True, "dry_run": False},
    {"records": [RECORD], "reached": 1, "head": 1, "story": EVIL, "agents": [AGENT], "sessions": [SESSION], **SESSION}
    | {"next": None, **BEFORE, "holds": [EVIL], "stopped": True, "started": True},
    {"records": [RECORD] * 9, "reached": 10**9, "head": EVIL, "agents": [AGENT], "sessions": [SESSION], "next": "x"},
    {},
    {"records": 1, "agents": {}, "sessions": None, "links": "x", "story": 1, "already_revoked": [], "reached": "x"},
    {"records": [{"at": "9999-12-31T23:59:59-23:59"}], "agents": [[]], "sessions": [1], "story": EVIL, "reached": 1},
    {"records": [{**RECORD, "at": "soon"}], "reached": 1, "head": 1, "agents": [{}], "sessions": [{}], "story": {}},
    {"records": [{**RECORD, "fields": 1}], "reached": 1, "head": 1, "next": {}, "agents": 7, "sessions": [SESSION, 1]},
    {"format": FORMAT, "uncovered": 7, "keys": [{"kid": EVIL}]},
    {"format": FORMAT, "uncovered": [EVIL], "keys": [{"kid": [EVIL]}]},
    [],
    "x",
    None,
    1e400,
]


class _Lies(httpx2.AsyncBaseTransport):
    def __init__(self, status: int, body: bytes, **headers: str) -> None:
        self._answer, self.asked = (status, body, headers), list[httpx2.Request]()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        status, body, headers = self._answer
        return httpx2.Response(status, content=body, headers=headers)


async def commands(url: str) -> list[Any]:
    ctx = typer.Context(typer.main.get_command(app))
    every = elsewhere_commands
    done = []
    for json_ in (False, True):
        done += [
            lambda j=json_: elsewhere_log.records(url, Filter(), 5, json=j),
            lambda j=json_: elsewhere_log.story(url, "c_1", json=j),
            lambda: elsewhere_proofs.keys(url),
            lambda: elsewhere_proofs.bundle(url, "c_1"),
            lambda j=json_: every.listed(url, "agents", partial(agent._say_agents, json=j, empty="none")),
            lambda j=json_: every.one(url, "agents", "x", partial(agent._say_elsewhere, json=j)),
            lambda j=json_: every.listed(url, "users", partial(user._say_people, ctx, json=j)),
            lambda j=json_: every.one(url, "users", "x", partial(user._say_elsewhere, json=j)),
            lambda j=json_: every.listed(url, "clients", partial(client._say_clients, ctx, json=j)),
            lambda j=json_: every.listed(url, "grants", partial(grant._say_grants, json=j)),
            lambda j=json_: every.listed(url, "tools", partial(tools._say_tools, server=None, json=j)),
            lambda j=json_: every.listed(url, "keys", partial(keys._say_keys, json=j)),
            lambda j=json_: every.sessions(url, session._say_sessions, json=j),
            lambda j=json_: every.session(url, "s_1", session._say_session, json=j),
            lambda j=json_: stops.revoke(ctx, url, "link", "l_1", reason="x", dry_run=False, json=j),
            lambda j=json_: stops.revoke(ctx, url, "tool", "t", reason="x", dry_run=False, json=j),
            lambda j=json_: stops.sweep(ctx, url, "user:x", "now", reason="x", dry_run=True, json=j),
            lambda j=json_: stops.stop_all(ctx, url, reason="x", dry_run=False, json=j),
        ]
    return [*done, lambda: stops.start_all(url)]


def lying(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, **headers: str) -> _Lies:
    lies = _Lies(status, body, **headers)

    @asynccontextmanager
    async def there(url: str, _: httpx2.Auth) -> AsyncIterator[Elsewhere]:
        async with httpx2.AsyncClient(transport=lies) as http:
            yield Elsewhere(url, http)

    monkeypatch.setattr("mcp_authz.cli.elsewhere.administering", there)
    return lies


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda it: json.dumps(it)[:40])
async def test_whatever_it_answers_is_printed_harmlessly_or_refused(
    answer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lying(monkeypatch, 200, json.dumps(answer).encode())
    for does in await commands("https://gateway.example"):
        try:
            await does()
        except AuthzError as error:
            assert "\x1b" not in str(error)
        said = capsys.readouterr()
        for text in (said.out, said.err):
            assert not {"\x1b", "\x07", "\u202e"} & set(text), text
            assert "\nmcp-authz: all is well" not in text, text


async def test_what_is_no_bundle_is_not_written_and_what_is_one_has_no_character_that_acts_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, file = tmp_path / "there.json", tmp_path / "call.json"
    there.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    async def explained(answer: Any, path: Path) -> tuple[Result, int]:
        body = answer if isinstance(answer, bytes) else json.dumps(answer, ensure_ascii=False).encode()
        lies, words = lying(monkeypatch, 200, body), ("audit", "explain", "c_1", "--bundle", str(path))
        run = partial(CliRunner().invoke, app, ["--at", "https://gateway.example", *words])
        return await anyio.to_thread.run_sync(run), len(lies.asked)

    story = {"story": EVIL, "records": [RECORD]}
    lie = {**story, "format": FORMAT, "uncovered": [EVIL], "checkpoints": [], "gateway": EVIL, "evidence": {EVIL: EVIL}}
    for path in (there, tmp_path / "link"):
        done, asked = await explained(lie, path)
        assert "is there already" in str(done.exception) and asked == 0, "nobody is on record for taking it"
    deep = b'{"format": "%s", "uncovered": [], "x": %s1%s}' % (FORMAT.encode(), b"[" * 990, b"]" * 990)
    for answer in (story, {**lie, "format": EVIL}, {**lie, "uncovered": None}, {"format": FORMAT}, [lie], deep):
        done, asked = await explained(answer, file)
        assert isinstance(done.exception, AuthzError) and asked == 1, done.output
        assert "\x1b" not in str(done.exception) + done.output
    assert not (file.exists() or (tmp_path / "nowhere").exists()) and there.read_text() == "mine"

    done, _ = await explained(lie, file)
    assert done.exit_code == 0 and "mcp-authz audit verify --excerpt" in done.output, done.exception
    assert not {"\x1b", "\x07", "\u202e"} & set(done.output + file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(AuthzError):  # and what it shows is for the keys to say
        excerpted(file, {})


async def test_what_is_no_answer_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administering, "_MOST", 1000)
    bodies = (b"x" * 2000, b"[" * 900, b'{"a":' * 180, b"\xff", b"", b"NaN")
    for status in (200, 301, 401, 403, 500):
        for body in (*bodies, json.dumps({"error": EVIL, "error_description": EVIL}).encode()):
            lies = lying(monkeypatch, status, body, location="https://evil.example/", **{"content-type": "x/y"})
            with pytest.raises(AuthzError) as refused:
                await elsewhere_commands.listed("https://gateway.example", "agents", print)
            assert "\x1b" not in str(refused.value)
            assert {request.url.host for request in lies.asked} == {"gateway.example"}


def test_what_somebody_names_stays_one_part_of_the_path() -> None:
    assert segment("../stop-all?x#y") == "..%2Fstop-all%3Fx%23y"
    for nothing in ("", ".", ".."):
        with pytest.raises(InputError):
            segment(nothing)


async def test_the_log_elsewhere_is_read_past_one_answer_and_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world(tmp_path, administration={"admins": ["user:ada"]}) as w:
        cli = await w.client_agent("cli", "ada", scope="administration:read")

        @asynccontextmanager
        async def there(url: str, _: httpx2.Auth) -> AsyncIterator[Elsewhere]:
            async with httpx2.AsyncClient(headers={"authorization": f"Bearer {cli.access_token}"}) as http:
                yield Elsewhere(url, http)

        async def append(number: int) -> None:
            fields = {"summary": f"number {number:02}"}
            await w.store.append(Event(kind="administration", at=w.clock(), fields=fields))

        def told() -> list[str]:
            return re.findall(r"number \d\d", capsys.readouterr().out)

        monkeypatch.setattr("mcp_authz.cli.elsewhere.administering", there)
        monkeypatch.setattr(elsewhere_log, "_PAGE", 3)
        monkeypatch.setattr(elsewhere_log, "_FRESH", 0.01)
        for number in range(10):
            await append(number)
        wanted = Filter(text="number")
        await elsewhere_log.records(w.url, wanted, 8, json=False)
        assert told() == [f"number {number:02}" for number in range(2, 10)]
        seen: list[str] = []
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: elsewhere_log.tail(w.url, wanted, 2, json=False))
            with anyio.fail_after(20):
                while len(seen) < 2:
                    await anyio.sleep(0.01)
                    seen += told()
                for number in range(10, 17):
                    await append(number)
                while len(seen) < 9:
                    await anyio.sleep(0.01)
                    seen += told()
            group.cancel_scope.cancel()
        assert seen == [f"number {number:02}" for number in range(8, 17)]
        await elsewhere_commands.listed(w.url, "agents", partial(agent._say_agents, json=False, empty="none"))
        await elsewhere_commands.sessions(w.url, session._say_sessions, json=False)
        out = capsys.readouterr().out
        assert "cli@ada" in out and cli.session in out and "open" in out


class _Answering(Elsewhere):
    """A gateway that answers questions about its log with these, one after the other."""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        super().__init__("https://gateway.example", httpx2.AsyncClient())
        self._answers = iter(answers)

    async def read(self, path: str, **query: str | int | None) -> dict[str, Any]:
        return next(self._answers)


def exported(*numbers: int, reached: int, head: int = 4, first: int = 1) -> dict[str, Any]:
    told = {"at": "2026-01-31T12:00:00Z", "kind": "policy", "call": None, "fields": {}, "previous": "", "hash": "00"}
    records = [{**told, "sequence": number} for number in numbers]
    return {"records": records, "reached": reached, "head": head, "hash": "00", "first": first}


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([exported(1, 2, reached=2), exported(3, 4, reached=4, first=4)], "was pruned"),
        ([exported(1, 2, reached=2), exported(2, 3, reached=4)], "not in order"),
        ([exported(2, 1, reached=2)], "not in order"),
        ([exported(1, 1, reached=2)], "not in order"),
        ([exported(1, 3, reached=2)], "not in order"),
        ([exported(1, reached=2), exported(reached=2)], "what follows record 2"),
        ([exported(1, reached=2), exported(reached=1)], "what follows record 2"),
    ],
)
async def test_an_export_whose_answers_do_not_follow_on_each_other_is_refused(
    answers: list[dict[str, Any]], why: str
) -> None:
    log = elsewhere_log.LogElsewhere(_Answering(answers[1:]), Filter(), answers[0])
    with pytest.raises(AuthzError, match=why):
        _ = [page async for page in log.pages()]


async def test_a_record_that_was_altered_elsewhere_is_no_line_of_a_chain() -> None:
    log = elsewhere_log.LogElsewhere(_Answering([]), Filter(), exported(1, reached=4))
    ((_, (altered,)),) = [page async for page in log.pages()]
    with pytest.raises(AuthzError, match="record 1 of the log there was altered"):
        audit_export._chained(altered)
