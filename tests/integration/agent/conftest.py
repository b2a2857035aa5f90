import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.recording_controller import RecordingController
from tests.integration.agent.agent_process import (
    DEADLINE_S,
    AgentProcess,
    agent_process,
    settings_for,
)


@pytest.fixture
async def controller() -> AsyncIterator[RecordingController]:
    async with asyncio.timeout(2 * DEADLINE_S), RecordingController().serving() as controller:
        yield controller


@pytest.fixture
async def agent(controller: RecordingController, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    async with agent_process(tmp_path, settings_for(controller.url)) as agent:
        await controller.registered.wait()
        yield agent
