"""What is left of a process tree after a stop: nothing."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.fakes.recording_controller import Record, RecordingController
from tests.integration.agent.agent_process import (
    AgentProcess,
    agent_process,
    is_alive,
    settings_for,
)

#: A shell, a child, a child in a session of its own and a grandchild that nobody waits for.
TREE = (
    "sleep 1000 & echo $!; setsid sleep 1001 & echo $!; (setsid sh -c 'sleep 1002 & echo $!' &); "
)


async def started(
    controller: RecordingController, script: str, lines: int, **fields: object
) -> Record:
    """A command whose script has printed `lines` lines."""
    await controller.execute("c", script, **fields)
    record = controller.commands["c"]
    await controller.until(lambda: record.stdout.count(b"\n") >= lines)
    return record


@pytest.mark.parametrize("action", ["cancel", "kill"])
async def test_after_a_stop_no_process_of_the_tree_is_left(
    controller: RecordingController, agent: AgentProcess, action: str
) -> None:
    record = await started(controller, TREE + "wait", 3)
    pids = [int(line) for line in record.stdout.split()]
    assert all(is_alive(pid) for pid in pids)
    assert (await controller.control("c", action))["ok"] is True
    await controller.finished("c")
    assert record.result is not None
    assert record.result["state"] == "cancelled"
    assert not any(is_alive(pid) for pid in pids)


async def test_a_tree_that_ignores_being_asked_is_killed(
    controller: RecordingController, agent: AgentProcess
) -> None:
    script = "trap '' TERM; setsid sleep 1000 & echo $!; echo; while :; do sleep 1; done"
    record = await started(controller, script, 2)
    child = int(record.stdout.split()[0])
    await controller.control("c", "cancel")
    await controller.control("c", "cancel")  # a repeat changes nothing
    await controller.finished("c")
    assert record.result is not None
    assert (record.result["state"], record.result["signal"]) == ("cancelled", "SIGKILL")
    assert not is_alive(child)


async def test_a_kill_does_not_wait_for_the_grace_of_a_cancel(
    controller: RecordingController, agent: AgentProcess
) -> None:
    record = await started(controller, "trap '' TERM; echo; while :; do sleep 0.1; done", 1)
    await controller.control("c", "cancel")
    async with asyncio.timeout(4):
        await controller.control("c", "kill")
        await controller.finished("c")
    assert record.result is not None


async def test_a_timeout_stops_the_tree_without_any_controller(
    controller: RecordingController, tmp_path: Path
) -> None:
    async with agent_process(tmp_path, settings_for(controller.url)) as agent:
        await controller.registered.wait()
        record = await started(controller, "sleep 1000 & echo $!; wait", 1, timeout=1.5)
        child = int(record.stdout)
        await controller.cut()
        controller.token_answer = lambda: (503, {})
        await agent.logged("cannot sign in")
        while is_alive(child):
            await asyncio.sleep(0.05)  # nothing tells that somebody else's child has ended
        controller.token_answer = lambda: (200, {})
        await controller.finished("c")
    assert record.result is not None
    assert record.result["state"] == "timed_out"
    assert "1.5 s" in record.result["error"]["message"]


async def test_a_paused_command_stands_still_and_goes_on(
    controller: RecordingController, agent: AgentProcess
) -> None:
    record = await started(controller, "while sleep 0.02; do echo x; done", 3)
    await controller.control("c", "pause")
    await controller.until(lambda: record.states[-1:] == ["paused"])
    await controller.call("control_command", {})  # by its answer, all that was written is here
    written = len(record.stdout)
    await asyncio.sleep(0.3)  # the time in which it would have written
    assert len(record.stdout) <= written + 2
    await controller.control("c", "resume")
    await controller.until(lambda: len(record.stdout) > written + 4)
    await controller.control("c", "pause")
    await controller.control("c", "cancel")  # also where everything stands still
    await controller.finished("c")
    assert record.result is not None
    assert record.result["state"] == "cancelled"


async def test_a_command_that_waits_is_cancelled_without_having_run(
    controller: RecordingController, tmp_path: Path
) -> None:
    settings = settings_for(controller.url, MAX_CONCURRENT_COMMANDS="1")
    async with agent_process(tmp_path, settings):
        await controller.registered.wait()
        await started(controller, "echo; sleep 1000", 1)
        await controller.execute("waiting", f"touch {tmp_path}/ran")
        refused = await controller.control("waiting", "pause")
        await controller.control("waiting", "cancel")
        record = await controller.finished("waiting")
        await controller.control("c", "kill")
        await controller.finished("c")
    assert refused["error"]["code"] == "invalid_state"
    assert record.result is not None
    assert (record.result["state"], record.result["started_at"]) == ("cancelled", None)
    assert not (tmp_path / "ran").exists()


async def test_a_control_of_an_unknown_command_is_refused(
    controller: RecordingController, agent: AgentProcess
) -> None:
    answer = await controller.control("nobody-knows", "cancel")
    assert answer["error"]["code"] == "unknown_command"


async def test_stopping_the_agent_says_nothing_of_a_command_that_has_ended(
    controller: RecordingController, agent: AgentProcess
) -> None:
    await controller.execute("c", "exit 0")
    record = await controller.finished("c")
    assert await agent.stop() == 0
    assert record.result is not None
    assert record.result["state"] == "succeeded"
    assert os.path.exists(agent.folder / "data" / "agent-id")
