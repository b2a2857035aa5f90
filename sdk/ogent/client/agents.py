"""Calls about agents."""

from typing import Literal

from ogent.client.answers import parse, parse_list
from ogent.client.api import Api, segment
from ogent.protocol.resources import Agent


class Agents:
    """The part of a Client that is about agents."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def agents(
        self,
        selector: str | None = None,
        status: Literal["online", "offline"] | None = None,
    ) -> list[Agent]:
        """The agents that the account may see; `selector` is a label selector (`env=prod,!old`).

        Raises InvalidSelector.
        """
        asked = {"selector": selector, "status": status}
        query = {name: value for name, value in asked.items() if value is not None}
        return parse_list(Agent, await self._api.get("/agents", query))

    async def agent(self, agent_id: str) -> Agent:
        """One agent; raises AgentNotFound."""
        return parse(Agent, await self._api.get(f"/agents/{segment(agent_id)}"))
