"""Commands on a real agent: what they get, what they write, and how they end."""

import asyncio
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ogent.protocol.codec import format_time
from tests.fakes.recording_controller import Record, RecordingController, block_digest
from tests.integration.agent.agent_process import (
    OGENT_AGENT,
    AgentProcess,
    agent_process,
    settings_for,
)


async def run(controller: RecordingController, command: str, **fields: object) -> Record:
    """The record of a new command that has ended; it was accepted."""
    command_id = f"c{len(controller.commands)}"
    answer = await controller.execute(command_id, command, **fields)
    assert answer["ok"] is True, answer
    return await controller.finished(command_id)


async def test_an_order_is_acknowledged_run_and_reported(
    controller: RecordingController, agent: AgentProcess
) -> None:
    answer = await controller.execute("c", "echo hi; echo no >&2; exit 3")
    record = await controller.finished("c")
    assert (answer["ok"], answer["state"]) == (True, "dispatched")
    assert (record.stdout, record.stderr) == (b"hi\n", b"no\n")
    assert record.result is not None
    assert (record.result["state"], record.result["exit_code"]) == ("failed", 3)
    assert record.result["execution_type"] == "local"
    assert record.result["started_at"] < record.result["finished_at"]


async def test_an_agent_that_inherits_an_ignored_sigchld_still_sees_its_commands_end(
    controller: RecordingController, tmp_path: Path
) -> None:
    start = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    argv = (sys.executable, "-c", start, str(OGENT_AGENT))
    async with agent_process(tmp_path, settings_for(controller.url), *argv):
        await controller.registered.wait()
        record = await run(controller, "echo hi; exit 3")
    assert record.result is not None
    assert (record.result["state"], record.result["exit_code"]) == ("failed", 3)


async def test_a_short_command_sends_no_state_of_its_own(
    controller: RecordingController, agent: AgentProcess
) -> None:
    for _ in range(10):
        await run(controller, "echo hi")
    assert controller.frames.count("command_state") < 5  # a slow machine may need the time
    assert controller.frames.count("command_result") == 10


async def test_lines_arrive_while_the_command_runs(
    controller: RecordingController, agent: AgentProcess, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    await controller.execute("c", f"echo one; read go < {gate}; echo two")
    record = controller.commands["c"]
    await controller.until(lambda: record.stdout == b"one\n" and record.states == ["running"])
    await asyncio.to_thread(gate.write_text, "go\n")
    await controller.finished("c")
    assert record.stdout == b"one\ntwo\n"


async def test_a_command_starts_with_a_clean_environment(
    controller: RecordingController, agent: AgentProcess
) -> None:
    record = await run(controller, "env", env={"MINE": "1"})
    variables = dict(line.split("=", 1) for line in record.stdout.decode().splitlines())
    assert variables.pop("MINE") == "1"
    assert variables.pop("OGENT_COMMAND_ID") == record.result["command_id"]  # type: ignore[index]
    assert set(variables) - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        "PATH", "HOME", "USER", "SHELL", "LANG", "TZ",
    }  # fmt: skip


async def test_a_command_gets_its_input_and_folder(
    controller: RecordingController, agent: AgentProcess, tmp_path: Path
) -> None:
    text = "ä" * 100_000
    record = await run(controller, "pwd; cat", cwd=str(tmp_path), stdin=text)
    assert record.stdout.decode() == f"{tmp_path}\n{text}"
    assert (await run(controller, "cat")).stdout == b""


@pytest.mark.parametrize(
    ("command", "fields", "word"),
    [
        ("true", {"cwd": "/does/not/exist"}, "does not exist"),
        ("true", {"cwd": "/etc/passwd"}, "not a folder"),
        ("true", {"cwd": "a\0b"}, "does not exist"),
        ("echo a\0b", {}, "null byte"),
        ("true " + "x" * 140_000, {}, "longer than this system allows"),
        ("true", {"env": {"A=B": "c"}}, "illegal environment"),
        ("true", {"execution_target": "ssh"}, "no executor"),
    ],
)
async def test_a_command_that_cannot_start_says_why(
    controller: RecordingController,
    agent: AgentProcess,
    command: str,
    fields: dict[str, object],
    word: str,
) -> None:
    record = await run(controller, command, **fields)
    assert record.result is not None
    assert (record.result["state"], record.result["started_at"]) == ("failed", None)
    assert word in record.result["error"]["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_commands_run_as_the_account_that_was_set(
    controller: RecordingController, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    settings = settings_for(controller.url, COMMAND_USER="nobody")
    async with agent_process(tmp_path, settings):
        await controller.registered.wait()
        assert (await run(controller, "id -un; id -G | wc -w")).stdout.split()[0] == b"nobody"
        refused = await run(controller, "pwd", cwd=str(closed))
    assert refused.result is not None
    assert "Permission denied" in refused.result["error"]["message"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
async def test_a_folder_that_may_not_be_entered_is_named(
    controller: RecordingController, agent: AgentProcess, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    refused = await run(controller, "pwd", cwd=str(closed))
    assert refused.result is not None
    assert "Permission denied" in refused.result["error"]["message"]


@pytest.mark.parametrize(
    "script",
    [
        "head -c 3000000 /dev/urandom",  # binary
        "head -c 10000000 /dev/zero | tr '\\0' x",  # 10 MB without a newline
        "printf 'half a character: \\303'",
        "yes 'ä€😀' | head -c 1000001",
        "true",
    ],
)
async def test_output_of_every_kind_arrives_as_it_was_written(
    controller: RecordingController, agent: AgentProcess, tmp_path: Path, script: str
) -> None:
    copy = tmp_path / "copy"
    record = await run(controller, f"{script} | tee {copy}")
    assert record.stdout == copy.read_bytes()
    assert record.result is not None
    assert record.result["stdout_bytes"] == len(record.stdout)
    assert (record.gaps, record.repeats) == (0, 0)


async def test_no_character_is_split_between_two_chunks(
    controller: RecordingController, agent: AgentProcess
) -> None:
    record = await run(controller, "yes 'aä€😀' | head -c 2000000")
    ends = [chunk["offset"] + chunk["data"] for chunk in record.chunks[:-1]]
    assert len(ends) >= 7
    assert all(record.stdout[end] & 0xC0 != 0x80 for end in ends)


async def test_a_hundred_megabytes_arrive_whole_and_the_agent_stays_small(
    controller: RecordingController, agent: AgentProcess
) -> None:
    before = agent.resident_mib()
    record = await run(controller, "seq 1 20000000 | head -c 100000000")
    assert record.result is not None
    assert len(record.stdout) == 100_000_000
    assert record.result["stdout_digest"] == block_digest(record.stdout)
    assert agent.resident_mib() < before + 64


async def test_an_idle_connected_agent_is_small(
    controller: RecordingController, agent: AgentProcess
) -> None:
    await run(controller, "echo hi")
    assert agent.resident_mib() <= 60


async def test_output_beyond_the_bound_is_counted_and_not_sent(
    controller: RecordingController, agent: AgentProcess
) -> None:
    record = await run(controller, "head -c 5000000 /dev/zero", max_output_bytes=1_000_000)
    assert record.result is not None
    assert len(record.stdout) == record.result["stdout_stored"] == 1_000_000
    assert record.result["stdout_bytes"] == 5_000_000


async def test_a_command_ended_by_a_signal_names_it(
    controller: RecordingController, agent: AgentProcess
) -> None:
    record = await run(controller, "kill -SEGV $$")
    assert record.result is not None
    result = record.result
    assert (result["state"], result["signal"], result["exit_code"]) == ("failed", "SIGSEGV", None)


async def test_a_child_that_keeps_the_pipes_delays_the_end_by_a_second_and_lives_on(
    controller: RecordingController, agent: AgentProcess
) -> None:
    began = time.monotonic()
    record = await run(controller, "(while sleep 0.1; do echo x; done) & echo $!")
    assert time.monotonic() - began < 10
    child = int(record.stdout.split()[0])
    assert record.result is not None
    assert record.result["state"] == "succeeded"
    await asyncio.sleep(0.5)  # it writes on, and must not be ended by that
    os.kill(child, 0)
    os.kill(child, 9)


async def test_no_more_commands_run_than_allowed_and_they_take_turns(
    controller: RecordingController, tmp_path: Path
) -> None:
    settings = settings_for(controller.url, MAX_CONCURRENT_COMMANDS="2")
    marks = tmp_path / "marks"
    script = f"echo + >> {marks}; sleep 0.2; echo - >> {marks}"
    async with agent_process(tmp_path, settings):
        await controller.registered.wait()
        for number in range(6):
            await controller.execute(f"n{number}", script)
        records = [await controller.finished(f"n{number}") for number in range(6)]
    depth = [marks.read_text().split()[: at + 1] for at in range(12)]
    assert max(seen.count("+") - seen.count("-") for seen in depth) == 2
    starts = [record.result["started_at"] for record in records]  # type: ignore[index]
    assert starts == sorted(starts)


async def test_a_repeated_order_runs_nothing_and_is_acknowledged_with_its_state(
    controller: RecordingController, agent: AgentProcess, tmp_path: Path
) -> None:
    order = controller.run("c", f"echo ran >> {tmp_path}/ran")
    answers = [await controller.send_order("execute_command", order) for _ in range(3)]
    await controller.finished("c")
    answers.append(await controller.send_order("execute_command", order))
    assert all(answer["ok"] for answer in answers)
    assert answers[-1]["state"] == "succeeded"
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_orders_that_are_not_for_now_or_not_for_us_are_refused(
    controller: RecordingController, agent: AgentProcess
) -> None:
    past = format_time(datetime.now(UTC) - timedelta(seconds=5))
    late = await controller.execute("late", "true", expires_at=past)
    foreign = await controller.execute("foreign", "true", agent_id="somebody-else")
    broken = await controller.call("execute_command", {"order": b"\xc1", "signature": b""})
    signed = await controller.call(
        "execute_command", {"order": b"\x80", "signature": b"s", "key_id": "k"}
    )
    codes = [answer["error"]["code"] for answer in (late, foreign, broken, signed)]
    assert codes == ["expired", "wrong_agent", "malformed_order", "malformed_order"]
    assert (await run(controller, "echo still here")).stdout == b"still here\n"
