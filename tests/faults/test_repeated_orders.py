"""The same order again and again: it is recognised, whatever has happened to the agent since."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.e2e.gate import Gate
from tests.e2e.services import Agent, agent_in
from tests.fakes.recording_controller import PASSWORD, USERNAME, RecordingController

TIMES = 5


@pytest_asyncio.fixture(loop_scope="session")
async def recording() -> AsyncIterator[RecordingController]:
    async with RecordingController().serving() as serving:
        yield serving


@pytest_asyncio.fixture(loop_scope="session")
async def agent(recording: RecordingController, tmp_path: Path) -> AsyncIterator[Agent]:
    account = {"AGENT_USERNAME": USERNAME, "AGENT_PASSWORD": PASSWORD}
    with agent_in(tmp_path / "agent", "told", recording.url, **account) as agent:
        agent.service.start()
        await recording.registered.wait()
        yield agent


async def five_times(recording: RecordingController, line: str) -> list[str]:
    """The states with which the agent acknowledges one order, sent five times at once."""
    order = recording.run("c1", line)
    answers = await asyncio.gather(
        *(recording.send_order("execute_command", order) for _ in range(TIMES))
    )
    assert all(answer["ok"] for answer in answers), answers
    return [answer["state"] for answer in answers]


async def test_an_order_that_comes_five_times_at_once_runs_once(
    recording: RecordingController, agent: Agent, tmp_path: Path
) -> None:
    line = f"echo ran >> {tmp_path / 'ledger'}"
    await five_times(recording, line)
    record = await recording.finished("c1")
    await five_times(recording, line)
    assert record.result is not None and record.result["state"] == "succeeded"
    assert (tmp_path / "ledger").read_text() == "ran\n"


async def test_an_order_that_comes_again_after_the_agents_death_runs_once(
    recording: RecordingController, agent: Agent, tmp_path: Path, gate: Gate
) -> None:
    line = f"echo ran >> {tmp_path / 'ledger'}; {gate.mark('begun')}; {gate.wait('go')}"
    await five_times(recording, line)
    await gate.reached("begun")
    recording.registered.clear()
    await agent.service.stop(signal.SIGKILL)
    agent.service.start()
    await recording.registered.wait()
    await five_times(recording, line)
    gate.open("go")
    await recording.finished("c1")
    assert (tmp_path / "ledger").read_text() == "ran\n"


async def test_an_order_that_the_agent_has_long_forgotten_runs_nothing(
    recording: RecordingController, agent: Agent, tmp_path: Path
) -> None:
    line = f"echo ran >> {tmp_path / 'ledger'}"
    await five_times(recording, line)
    await recording.finished("c1")
    recording.registered.clear()
    assert await agent.service.stop() == 0
    agent.service.start()
    await recording.registered.wait()
    assert set(await five_times(recording, line)) == {"succeeded"}
    assert (tmp_path / "ledger").read_text() == "ran\n"
