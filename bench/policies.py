"""What a decision costs by the number of rules, engine by engine, and what a list of tools costs by its length.

The rules are those of an operator with many tools: each permits one action in one repository. The one that decides is
the last of them, and the input is the document of a real call. Rego is asked in its own process, as the gateway does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from bench.house import House
from bench.timing import timed
from mcp_authz.catalog import could_ever_use
from mcp_authz.errors import AuthzError
from mcp_authz.evaluation import effective
from mcp_authz.installation import utc_now
from mcp_authz.model import Tool, ToolName
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.document import policy_input
from mcp_authz.policy.engine import PolicyEngine
from mcp_authz.policy.opa import OpaEngine
from mcp_authz.policy.rego import RegoEngine
from mcp_authz.policy.remote import Pdp

RULES: Final = (10, 200)
LISTED: Final = (30, 1000)
ACTION, REPOSITORY = "pr.create", "acme/api"

_CEDAR: Final = """@id("rule-{number}")
permit (principal is Agent, action == Action::"{action}", resource is Tool)
when {{ context has session && resource has repo && resource.repo == "{repo}" && context.scope.contains("pr") }};
"""
_REGO: Final = """allow {{
  input.session
  input.action == "{action}"
  input.resource.repo == "{repo}"
  input.scope[_] == "pr"
}}
"""


async def policies(house: House, calls: int) -> list[tuple[str, float]]:
    """Name and microseconds of each; an engine that is not installed is left out."""
    document = await _document(house)
    measured: list[tuple[str, float]] = []
    for name, rules, engine in _engines():
        answer = await engine.evaluate(document)
        if not answer.permit:
            raise AssertionError(f"{name} does not permit what it is asked: {answer}")

        async def decide(engine: PolicyEngine = engine) -> None:
            await engine.evaluate(document)

        measured.append((f"{name}, {rules} rules", await timed(decide, calls)))
    measured.append(("OPA adapter, a server that answers at once", await _elsewhere(document, calls)))
    caller = await house.caller()
    for length in LISTED:
        tools = _tools(house.tool, length)

        async def listed(tools: tuple[Tool, ...] = tools) -> None:
            if not all(could_ever_use(caller, tool) for tool in tools):
                raise AssertionError("the caller could use every one of them")

        measured.append((f"which of {length} tools one caller is shown", await timed(listed, max(9, calls // length))))
    return measured


async def _elsewhere(document: dict[str, Any], calls: int) -> float:
    """What the way to a decision point on this machine and back costs; the decision itself costs nothing there."""
    answer = b'{"result": true}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(asked.partition(b"content-length:")[2].split(b"\r\n")[0]))
                writer.write(head + answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        engine = OpaEngine(f"http://127.0.0.1:{port}/v1/data/bench/allow", Pdp(timeout=timedelta(seconds=1)))
        try:
            if not (await engine.evaluate(document)).permit:
                raise AssertionError("the server permits everything")
            return await timed(lambda: engine.evaluate(document), calls)
        finally:
            await engine.aclose()


async def _document(house: House) -> dict[str, Any]:
    caller = await house.caller()
    made = policy_input(
        caller=caller,
        call=house.tool_call,
        scope=effective(caller),
        resource={"repo": REPOSITORY},
        approval=None,
        at=utc_now(),
        agents=caller.holders,
    )
    return {**made, "action": ACTION, "scope": ["pr", "pr:write"]}


def _engines() -> Iterator[tuple[str, int, PolicyEngine]]:
    for rules in RULES:
        yield "Cedar", rules, CedarEngine.load({"bench.cedar": "\n".join(_rules(_CEDAR, rules))})
    for rules in RULES:
        text = "package bench\n\ndefault allow = false\n\n" + "\n".join(_rules(_REGO, rules))
        try:
            yield "Rego", rules, RegoEngine.load({"bench.rego": text})
        except AuthzError:
            return


def _rules(form: str, rules: int) -> Iterator[str]:
    for number in range(rules - 1):
        yield form.format(number=number, action=f"tool.{number}", repo=f"acme/{number}")
    yield form.format(number=rules - 1, action=ACTION, repo=REPOSITORY)


def _tools(tool: Tool, number: int) -> tuple[Tool, ...]:
    return tuple(replace(tool, name=ToolName(f"{tool.name}_{one}")) for one in range(number))
