"""A controller whose clock was set back between two starts goes on where the first one was."""

import time
from types import SimpleNamespace

import pytest

from app.settings import Settings
from tests.fakes.protocol_agent import registered_agent
from tests.integration.controller.commands import submit
from tests.integration.controller.installation import Installation, client, serving

DAY_NS = 86_400 * 10**9


async def test_what_is_new_after_the_clock_was_set_back_is_dispatched_after_what_waited(
    settings: Settings, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, admin = installation.agents["web-1"], installation.users["admin"]
    ahead = SimpleNamespace(time_ns=lambda: time.time_ns() + DAY_NS)
    with monkeypatch.context() as wrong:
        wrong.setattr("app.domain.ids.time", ahead)
        async with serving(settings) as (url, _), client(url, admin) as http:
            async with registered_agent(url, token, "web-1"):
                pass
            waited = await submit(http, queue=True)
    async with serving(settings) as (url, _), client(url, admin) as http:
        async with registered_agent(url, token, "web-1", last_epoch=1) as agent:
            assert (await agent.next_order())["command_id"] == waited
            new = await submit(http)
            assert (await agent.next_order())["command_id"] == new
        listed = (await http.get("/commands")).json()["items"]
        assert [command["command_id"] for command in listed] == [new, waited]
