"""Commands outlive the agent, and what the host's people can ask of it and of them."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.fakes.recording_controller import Record, RecordingController, block_digest
from tests.fakes.runner_process import end_everything, kill_runner, runner_pid
from tests.integration.agent.agent_process import (
    agent_process,
    agent_that_leaves,
    asked,
    is_alive,
    settings_for,
)

TREE = (
    "sleep 1000 & echo $!; setsid sleep 1001 & echo $!; (setsid sh -c 'sleep 1002 & echo $!' &); "
)


@pytest.fixture
async def settings(
    controller: RecordingController, tmp_path: Path
) -> AsyncIterator[Mapping[str, str]]:
    yield settings_for(controller.url)
    end_everything(tmp_path / "data")


async def started(
    controller: RecordingController, script: str, lines: int, name: str = "c"
) -> Record:
    """A command whose script has printed `lines` lines, and whose start is known."""
    await controller.registered.wait()
    await controller.execute(name, script)
    record = controller.commands[name]
    await controller.until(lambda: record.stdout.count(b"\n") >= lines and bool(record.states))
    return record


def pids(record: Record) -> list[int]:
    return [int(line) for line in record.stdout.split()]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_command_goes_on_without_its_agent_and_ends_truly_with_the_next(
    controller: RecordingController,
    settings: Mapping[str, str],
    tmp_path: Path,
    how: signal.Signals,
) -> None:
    (tmp_path / "gate").touch()
    script = f"echo $$; while [ -e {tmp_path}/gate ]; do sleep 0.02; done; echo more; exit 7"
    async with agent_that_leaves(tmp_path, settings) as agent:
        record = await started(controller, script, 1)
        agent.process.send_signal(how)
        assert await agent.exit_code() == (-9 if how is signal.SIGKILL else 0)
    assert is_alive(pids(record)[0])
    (tmp_path / "gate").unlink()
    controller.registered.clear()
    async with agent_process(tmp_path, settings):
        await controller.finished("c")
    assert record.result is not None
    assert (record.result["state"], record.result["exit_code"]) == ("failed", 7)
    assert record.stdout.endswith(b"more\n")
    assert (record.gaps, record.repeats) == (0, 0)


async def test_output_through_killed_agents_is_whole(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    script = "for i in $(seq 60); do seq 10000; sleep 0.05; done"
    await _kill_twice(controller, settings, tmp_path, script)
    async with agent_process(tmp_path, settings):
        record = await controller.finished("c")
    expected = 60 * b"".join(b"%d\n" % number for number in range(1, 10001))
    assert record.stdout == expected
    assert record.result is not None
    assert record.result["stdout_digest"] == block_digest(expected)


async def grown(controller: RecordingController, size: int) -> None:
    """Return once so much more of the command has come."""
    record = controller.commands["c"]
    seen = len(record.stdout)
    await controller.until(lambda: len(record.stdout) > seen + size)


async def _kill_twice(
    controller: RecordingController, settings: Mapping[str, str], folder: Path, script: str
) -> None:
    for number in range(2):
        controller.registered.clear()
        async with agent_that_leaves(folder, settings) as agent:
            await controller.registered.wait()
            if number == 0:
                await controller.execute("c", script)
            await grown(controller, 300_000)
            await agent.kill()


async def test_what_waited_is_run_by_the_next_agent(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    one = {**settings, "MAX_CONCURRENT_COMMANDS": "1"}
    async with agent_that_leaves(tmp_path, one) as agent:
        await started(controller, "echo $$; sleep 1000", 1, "first")
        await controller.execute("waiting", f"echo ran >> {tmp_path}/ran")
        await agent.kill()
    controller.registered.clear()
    async with agent_process(tmp_path, one):
        await controller.registered.wait()
        assert not (tmp_path / "ran").exists()
        await controller.control("first", "kill")
        await controller.finished("waiting")
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_a_repeated_order_is_known_after_a_kill(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    script = f"echo ran >> {tmp_path}/ran"
    async with agent_that_leaves(tmp_path, settings) as agent:
        await controller.registered.wait()
        await controller.execute("c", script)
        await controller.finished("c")
        await agent.kill()
    controller.registered.clear()
    async with agent_process(tmp_path, settings):
        await controller.registered.wait()
        answer = await controller.execute("c", script)
        assert answer["ok"] is True
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_a_command_whose_runner_is_killed_is_lost_and_nothing_of_it_is_left(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    async with agent_process(tmp_path, settings):
        record = await started(controller, TREE + "wait", 3)
        kill_runner(tmp_path / "data")
        await controller.finished("c")
        assert record.result is not None
        assert record.result["state"] == "lost"
        assert record.result["error"]["code"] == "runner_died"
        assert not any(is_alive(pid) for pid in pids(record))
        await controller.execute("next", "exit 3")
        ended = await controller.finished("next")
    assert ended.result is not None
    assert ended.result["exit_code"] == 3


async def test_both_killed_the_next_agent_says_lost_and_starts_nothing_twice(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    async with agent_that_leaves(tmp_path, settings) as agent:
        record = await started(controller, f"echo >> {tmp_path}/ran; {TREE} wait", 3)
        await agent.kill()
        kill_runner(tmp_path / "data")
    controller.registered.clear()
    async with agent_process(tmp_path, settings):
        await controller.finished("c")
    assert record.result is not None
    assert record.result["state"] == "lost"
    assert not any(is_alive(pid) for pid in pids(record))
    assert (tmp_path / "ran").read_text() == "\n"


# --- what people of the host ask ----------------------------------------------------------------


async def test_all_commands_of_a_running_agent_can_be_stopped(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    async with agent_process(tmp_path, settings):
        record = await started(controller, TREE + "trap '' TERM; echo $$; wait", 4)
        assert (await asked(tmp_path, settings, "--stop-commands"))[0] == 0
        assert not any(is_alive(pid) for pid in pids(record))
        await controller.finished("c")
    assert record.result is not None
    assert record.result["state"] == "cancelled"
    assert record.result["error"]["code"] == "stopped_on_host"


async def test_all_commands_of_an_agent_that_has_gone_can_be_stopped(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    one = {**settings, "MAX_CONCURRENT_COMMANDS": "1"}
    async with agent_that_leaves(tmp_path, one) as agent:
        record = await started(controller, TREE + "wait", 3)
        await controller.execute("waiting", f"touch {tmp_path}/ran")
        await agent.kill()
    status, _, errors = await asked(tmp_path, one, "--stop-commands")
    assert (status, errors) == (0, "")
    assert not any(is_alive(pid) for pid in pids(record))
    controller.registered.clear()
    async with agent_process(tmp_path, one):
        waiting = await controller.finished("waiting")
        await controller.finished("c")
    assert [r.result["state"] for r in (record, waiting)] == ["cancelled"] * 2  # type: ignore[index]
    assert not (tmp_path / "ran").exists()


async def test_stopping_the_commands_of_nobody_is_no_mistake(
    settings: Mapping[str, str], tmp_path: Path
) -> None:
    assert (await asked(tmp_path, settings, "--stop-commands"))[0] == 0
    assert runner_pid(tmp_path / "data") is None


async def test_the_status_names_what_runs_and_waits_with_and_without_an_agent(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    one = {**settings, "MAX_CONCURRENT_COMMANDS": "1"}
    async with agent_that_leaves(tmp_path, one) as agent:
        await started(controller, "echo $$; sleep 1000", 1)
        await controller.execute("waiting", "true")
        running = json.loads((await asked(tmp_path, one, "--status", "--json"))[1])
        await agent.kill()
    left = json.loads((await asked(tmp_path, one, "--status", "--json"))[1])
    assert (running["pid"], running["connected"]) == (agent.process.pid, True)
    assert (left["pid"], left["connected"]) == (None, False)
    for status in (running, left):
        assert [command["state"] for command in status["commands"]] == ["running", "waiting"]
        assert [bool(command["started_at"]) for command in status["commands"]] == [True, False]


async def test_the_status_is_readable(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    async with agent_process(tmp_path, settings):
        await started(controller, "echo $$; sleep 1000", 1)
        status, text, _ = await asked(tmp_path, settings, "--status")
    first, head, row = text.splitlines()
    assert (status, first.endswith(", connected"), head.split()) == (
        0, True, ["COMMAND", "STATE", "SINCE"],
    )  # fmt: skip
    assert row.split()[1] == "running"


async def test_the_status_of_an_agent_that_has_gone_names_what_has_ended(
    controller: RecordingController, settings: Mapping[str, str], tmp_path: Path
) -> None:
    async with agent_that_leaves(tmp_path, settings) as agent:
        await started(controller, "echo $$; sleep 0.5; exit 7", 1)
        await started(controller, "echo $$; sleep 1000", 1, "other")
        await agent.kill()
    await asyncio.sleep(1)  # the command ends meanwhile
    status, text, errors = await asked(tmp_path, settings, "--status", "--json")
    assert (status, errors) == (0, "")
    assert [c["state"] for c in json.loads(text)["commands"]] == ["ended", "running"]


async def test_the_status_where_no_agent_ever_was_is_one_line(
    settings: Mapping[str, str], tmp_path: Path
) -> None:
    status, _, errors = await asked(tmp_path, settings, "--status")
    assert status == 2
    assert errors.count("\n") == 1
    assert errors.startswith("ogent-agent: DATA_DIR: ")
