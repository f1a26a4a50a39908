"""Row 44: a secret that went through the gateway turns up in what it writes or says. Every byte is searched."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from tests.attacks.attacker import SOON, answer_in, handshake, spy, tool
from tests.world import ENVELOPE, World, world

CANARY = "CANARY-2f1d9c0b7a"
TOOLS = ("look", "drop", "raw", "refuse", "complain")


def spellings(secret: str) -> list[bytes]:
    """The ways in which a secret could have been written."""
    plain = secret.encode()
    coded = [base64.b64encode(plain[start:])[:-4] for start in range(3)]
    return [plain, plain[::-1], plain.hex().encode(), secret.encode("utf-16-le"), *(code for code in coded if code)]


def found_in(raw: bytes, secret: str = CANARY) -> bool:
    return any(spelling in raw for spelling in spellings(secret))


def files_with(directory: Path, secret: str = CANARY) -> list[str]:
    """The files below `directory` that have it in clear: database, write-ahead log, everything."""
    return [path.name for path in directory.rglob("*") if path.is_file() and found_in(path.read_bytes(), secret)]


def entry(directory: Path, **more: Any) -> tuple[Any, dict[str, Any]]:
    server = spy(directory / "spy", *(tool(name) for name in TOOLS))
    secret = directory / "secret"
    secret.write_text(f"{CANARY}\n")
    secret.chmod(0o600)
    tools = {name: {"hazard": "destructive" if name == "drop" else "read"} for name in TOOLS}
    tools["look"]["resource"] = {"path": "{path}"}  # type: ignore[assignment]
    config = server.config(tools=tools, env={"PLAIN": f"{CANARY}-env"}, env_files={"TOKEN": str(secret)}, **more)
    return server, config


async def told(w: World, token: str, name: str, arguments: Any, **more: Any) -> str:
    return (await w.raw_call(token, name, arguments, **more)).text


async def test_secrets_in_calls_results_and_configuration_are_written_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server, config = entry(tmp_path)
    secret = {"password": CANARY, "deep": [{"er": f"x{CANARY}y"}], "where": "here"}
    async with world(tmp_path, servers={"spy": config}) as w:
        token = await w.token(await w.ready("coder", " ".join(f"spy:{name}" for name in TOOLS)))
        for name in ("look", "complain", "refuse", "nothing", "x" + CANARY):
            await told(w, token, f"spy__{name}", secret, headers={"x_secret": CANARY, "cookie": CANARY})
        await told(w, token, "spy__look", "not an object " + CANARY)
        await told(w, token, "spy__raw", {"result": json.dumps({"content": [{"type": "text", "text": CANARY}]})})
        await told(w, token, "spy__raw", {"result": json.dumps({"content": CANARY, "isError": True})})
        held = answer_in(await w.raw_call(token, "spy__drop", secret))["result"]["_meta"][ENVELOPE]
        await w.answer(held["hold"], by="alice")
        assert "ran drop" in await told(w, token, "spy__drop", secret)
        async with handshake(w, token) as session:
            await session.call("spy__look", secret)
            await session.call("spy__drop", {**secret, "more": 1})
        assert any(arguments.get("password") == CANARY for _, arguments in server.ran)  # it went where it had to go
        log = b"".join(json.dumps(dict(record.event.fields)).encode() for record in await w.records())
        # The name of a tool that is not there is recorded as it was asked for; nothing else of these calls may be.
        assert CANARY.encode() not in log.replace(f"spy__x{CANARY}".encode(), b"")
        assert token.encode() not in log
        await w.app._write_refusals()
        for path in sorted((tmp_path / "data").rglob("*")):
            raw = path.read_bytes() if path.is_file() else b""
            assert not found_in(raw.replace(f"spy__x{CANARY}".encode(), b"")), path.name
            assert token.encode() not in raw, path.name
    assert CANARY not in caplog.text and token not in caplog.text


async def test_what_calls_were_decided_upon_is_kept_sealed_and_in_no_other_form(tmp_path: Path) -> None:
    _, config = entry(tmp_path)
    async with world(tmp_path, servers={"spy": config}) as w:
        token = await w.token(await w.ready("coder", "spy:look spy:drop"))
        await told(w, token, "spy__look", {"password": CANARY})
        await told(w, token, "spy__drop", {"password": CANARY})
        decided = await w.store.decisions()
        assert [one.input["document"]["arguments"] for one in decided] == [{"password": CANARY}] * 2
        assert CANARY not in repr(decided)  # nor can a traceback have it
        assert (tmp_path / "data" / "store.db-wal").stat().st_size > 0
        assert files_with(tmp_path / "data") == []
    assert files_with(tmp_path / "data") == []


async def test_nothing_is_kept_of_arguments_where_the_configuration_says_so(tmp_path: Path) -> None:
    _, config = entry(tmp_path)
    async with world(tmp_path, servers={"spy": config}, audit={"inputs_days": 0}) as w:
        await told(w, await w.token(await w.ready("coder", "spy:look")), "spy__look", {"password": CANARY})
        assert [one.input for one in await w.store.decisions()] == [None]


async def test_answers_about_a_failure_carry_no_secret_of_the_configuration(tmp_path: Path) -> None:
    _, config = entry(tmp_path)
    config["command"] = [sys.executable, "-c", "import os,sys; sys.exit(os.environ['TOKEN'])"]
    async with world(tmp_path, servers={"spy": config}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        said = await told(w, token, "spy__look", {"path": "a"})
        async with httpx2.AsyncClient() as http:
            said += (await http.get(f"{w.config.public_url}/healthz")).text
            said += (await http.get(f"{w.config.public_url}/nothing")).text
        said += (await w.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, CANARY)).text
        assert not found_in(said.encode())
        assert str(tmp_path) not in said and "Traceback" not in said


async def test_declared_attributes_that_are_long_are_recorded_as_digests(tmp_path: Path) -> None:
    _, config = entry(tmp_path)
    async with world(tmp_path, servers={"spy": config}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        await told(w, token, "spy__look", {"path": "short"})
        await told(w, token, "spy__look", {"path": CANARY + "x" * 256})
        await told(w, token, "spy__look", {"path": {"deep": CANARY}})
        first, *others = [fields["resource"]["path"] for fields in await w.decisions()]
        assert first == "short"  # what the operator declared is recorded, by design
        assert all(value.startswith("digest:") for value in others)
        assert files_with(tmp_path / "data") == []


async def test_names_of_arguments_cannot_carry_a_secret_or_fill_the_log(tmp_path: Path) -> None:
    _, config = entry(tmp_path)
    async with world(tmp_path, servers={"spy": config}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        await told(w, token, "spy__look", {CANARY + "x" * 100: 1, "path": "a"})
        await told(w, token, "spy__look", {f"name{number}": 1 for number in range(20_000)})
        await told(w, token, "n" * 100_000, {})
        for record in await w.records("decision"):
            assert len(json.dumps(dict(record.event.fields))) < 8_000
        assert files_with(tmp_path / "data") == []


async def test_a_header_that_contradicts_a_secret_argument_does_not_put_it_into_the_log(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"key": {"type": "string", "x-mcp-header": "Key"}}}
    server = spy(tmp_path / "spy", tool("look", inputSchema=schema))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        wrong = {"mcp_param_key": CANARY + "-header"}
        assert (await w.raw_call(token, "spy__look", {"key": CANARY}, headers=wrong)).status_code == 400
        (fields,) = await w.decisions()
        assert fields["reason"] == "header_mismatch"
        assert files_with(tmp_path / "data") == []


def written(config: dict[str, Any]) -> str:
    """A configuration as TOML; JSON strings, lists and numbers are TOML too."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items() if not isinstance(value, dict)]
    for name, server in config["servers"].items():
        lines.append(f"[servers.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in server.items() if not isinstance(value, dict)]
        for table in ("env", "env_files"):
            lines.append(f"[servers.{name}.{table}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in server[table].items()]
    return "\n".join(lines)


async def test_a_real_process_prints_no_secret(tmp_path: Path) -> None:
    _, config = entry(tmp_path)
    file = tmp_path / "gateway.toml"
    values = {"public_url": "http://localhost:1", "port": 0, "data_dir": str(tmp_path / "data")}
    file.write_text(written({**values, "servers": {"spy": config}}))
    command = [sys.executable, "-m", "mcp_authz.cli.main", "--config", str(file), "serve"]
    environment = {**os.environ, "SOME_SECRET": CANARY}
    process = await anyio.open_process(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    async with process:
        assert process.stdout is not None and process.stderr is not None
        with anyio.fail_after(SOON):
            said = b""
            while b"Ctrl-C" not in said:
                said += await process.stdout.receive()
            process.send_signal(signal.SIGINT)
            said += b"".join([part async for part in process.stderr])
            await process.wait()
    assert b"gateway at" in said
    assert not found_in(said)
    assert files_with(tmp_path / "data") == []
