"""Agents on the page: who they are and what each may at most, and one agent with what it has from whom."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.principals import AgentName
from mcp_authz.rules.administration import reaches_everything
from mcp_authz.web.agent_facts import row, shown_agent
from mcp_authz.web.desk import Desk
from mcp_authz.web.picture import INLINE, drawn


class AgentPages:
    """Shows agents to those who may see them; what is stopped is stopped by `web.stopping`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in; at `/agents/NAME` is an agent's client document (`oauth`)."""
        return [Route("/agents", self.list), Route("/agent/{agent:path}", self.agent)]

    async def list(self, request: Request) -> Response:
        """The agents by name, no more than a page has room for."""
        actor = await self._desk.actor(request)
        after, most = request.query_params.get("after", ""), limits.AGENTS_SHOWN
        found = await self._desk.administration.some_agents(actor, after=after, limit=most + 1)
        now = self._desk.clock()
        return await self._desk.page(
            "agents",
            actor,
            everything=reaches_everything("agent list", actor.roles),
            agents=[await row(self._desk.store, actor, agent, now) for agent in found[:most]],
            more=found[most - 1].name if len(found) > most else None,
        )

    async def agent(self, request: Request) -> Response:
        """One agent."""
        actor = await self._desk.actor(request)
        found = await self._desk.administration.agent(actor, AgentName(request.path_params["agent"]))
        now = self._desk.clock()
        shown = await shown_agent(self._desk.administration, self._desk.store, actor, found, now)
        title = f"Whom {shown['shown']} has power from, and whom it gave some to"
        return await self._desk.page(
            "agent",
            actor,
            one=shown,
            picture=drawn(shown["forest"], INLINE, title=title, told=shown["told"]),
        )
