"""A controller that closes at a moment of which the library under the agent does not think."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from aiohttp import WSCloseCode, web

from tests.e2e.services import agent_in, free_port, until


class ClosingController:
    """Signs in and upgrades, then closes before its first packet, as one that is stopping does."""

    def __init__(self) -> None:
        self.closed = 0
        self.url = f"http://127.0.0.1:{free_port()}"

    async def sign_in(self, _request: web.Request) -> web.Response:
        return web.json_response({"access_token": "t", "token_type": "bearer", "expires_in": 60})

    async def close(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=WSCloseCode.SERVICE_RESTART)
        self.closed += 1
        return socket


@pytest_asyncio.fixture(loop_scope="session")
async def closing() -> AsyncIterator[ClosingController]:
    made = ClosingController()
    app = web.Application()
    app.router.add_post("/token", made.sign_in)
    app.router.add_get("/agent/socket.io/", made.close)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(made.url.rsplit(":", 1)[1])).start()
    yield made
    await runner.cleanup()


async def test_a_controller_that_closes_before_its_first_packet_does_not_end_the_agent(
    closing: ClosingController, tmp_path: Path
) -> None:
    with agent_in(tmp_path / "agent", "patient", closing.url) as agent:
        agent.service.start()
        await until(lambda: closing.closed >= 3 or agent.service.has_ended())
        assert not agent.service.has_ended(), agent.service.log
        assert "Traceback" not in agent.service.log
