"""Sessions that break, and what arrives nevertheless."""

import asyncio
from pathlib import Path

import aiohttp

from agent.infrastructure.controller.socketio_link import open_link
from ogent.protocol.messages import AgentAuth
from ogent.protocol.version import PROTOCOL_VERSION
from tests.fakes.recording_controller import RecordingController, block_digest
from tests.integration.agent.agent_process import AgentProcess, agent_process, settings_for

COUNT = 300_000
SCRIPT = f"seq 1 {COUNT}; sleep 0.1; seq 1 {COUNT}"
WRITTEN = 2 * b"".join(b"%d\n" % number for number in range(1, COUNT + 1))


async def test_an_agent_waits_for_a_controller_that_is_not_there_yet(tmp_path: Path) -> None:
    controller = RecordingController()
    async with controller.serving():
        pass  # so that the port is known, and free
    async with asyncio.timeout(60), agent_process(tmp_path, settings_for(controller.url)) as agent:
        await agent.logged("cannot be reached")
        async with controller.serving():
            await controller.registered.wait()
            await controller.execute("c", "echo hi")
            assert (await controller.finished("c")).stdout == b"hi\n"


async def test_a_controller_that_restarts_in_the_middle_misses_nothing(tmp_path: Path) -> None:
    controller = RecordingController()
    async with asyncio.timeout(60), controller.serving():
        settings = settings_for(controller.url)
        async with agent_process(tmp_path, settings) as agent:
            await controller.registered.wait()
            await controller.execute("c", SCRIPT)
            record = controller.commands["c"]
            await controller.until(lambda: len(record.stdout) > 100_000)
            await controller.cut()
            await controller.registered.wait()
            assert await _finished(controller, "c") == (WRITTEN, 0)
            assert await agent.stop() == 0


async def _finished(controller: RecordingController, command_id: str) -> tuple[bytes, int]:
    record = await controller.finished(command_id)
    return bytes(record.stdout), record.gaps


async def test_cuts_all_the_time_neither_lose_nor_repeat_a_byte(
    controller: RecordingController, agent: AgentProcess
) -> None:
    await controller.execute("c", f"for i in 1 2 3 4 5 6 7 8; do seq 1 {COUNT}; sleep 0.05; done")
    record = controller.commands["c"]
    for _ in range(6):
        seen = len(record.stdout)
        await controller.until(lambda seen=seen: len(record.stdout) > seen)  # type: ignore[misc]
        await controller.cut()
        await controller.registered.wait()
    await controller.finished("c")
    assert record.stdout == 4 * WRITTEN
    assert record.result is not None
    assert record.result["stdout_digest"] == block_digest(record.stdout)
    epochs = [registration["last_epoch"] for registration in controller.registrations]
    assert len(epochs) >= 7  # one more where a cut came before the epoch was acknowledged
    assert epochs == sorted(epochs)


async def test_a_cancellation_that_comes_with_the_connection_is_honoured(
    controller: RecordingController,
) -> None:
    async def connect() -> None:
        connecting = asyncio.current_task()
        assert connecting is not None

        async def cancel() -> None:
            asyncio.get_running_loop().call_soon(connecting.cancel)

        auth = AgentAuth(instance_id="i" * 22, boot_id="", protocol=PROTOCOL_VERSION)
        async with (
            aiohttp.ClientSession() as http,
            open_link(
                controller.url, http=http, token="t", auth=auth, handlers={"connect": cancel}
            ) as link,
        ):
            await link.closed()

    task = asyncio.create_task(connect())
    await asyncio.wait({task}, timeout=20)
    assert task.done()
    assert task.cancelled()


async def test_a_command_that_ends_without_a_controller_is_reported_later(
    controller: RecordingController, agent: AgentProcess, tmp_path: Path
) -> None:
    controller.token_answer = lambda: (503, {})
    done = tmp_path / "done"
    await controller.execute("c", f"sleep 0.3; echo out; exit 7; # then {done}")
    await controller.cut()
    await agent.logged("cannot sign in: the controller answered 503")
    await asyncio.sleep(0.5)  # the command ends meanwhile
    controller.token_answer = lambda: (200, {})
    record = await controller.finished("c")
    assert record.result is not None
    assert (record.stdout, record.result["exit_code"]) == (b"out\n", 7)


async def test_an_outcome_that_is_answered_incomplete_is_sent_again_with_its_output(
    controller: RecordingController, agent: AgentProcess
) -> None:
    controller.acks_chunks = False
    incomplete = {"ok": False, "error": {"code": "incomplete", "message": ""}, "next_seq": 0}
    controller.outcome_answers = [incomplete]
    await controller.execute("c", "echo hi")
    record = await controller.finished("c")
    assert (record.stdout, record.repeats) == (b"hi\n", 1)


async def test_an_outcome_that_is_refused_for_good_is_not_sent_again(
    controller: RecordingController, agent: AgentProcess
) -> None:
    refusal = {"ok": False, "error": {"code": "command_not_found", "message": "no such"}}
    controller.outcome_answers = [refusal]
    await controller.execute("c", "echo hi")
    await agent.logged("command_not_found")
    await controller.cut()
    await controller.registered.wait()
    assert controller.registrations[-1]["resume"] == []


async def test_an_outcome_that_is_never_taken_is_settled_by_a_new_session(
    controller: RecordingController, agent: AgentProcess
) -> None:
    await controller.execute("before", "echo hi")
    await controller.finished("before")
    disagreement = {"ok": False, "error": {"code": "digest_mismatch", "message": ""}}
    controller.outcome_answers = [{**disagreement, "next_seq": 1, "stdout_bytes": 3}]
    await controller.execute("c", "echo hi")
    await controller.until(lambda: len(controller.registrations) == 2)
    assert controller.registrations[1]["resume"] == []


async def test_a_command_that_the_controller_drops_is_stopped(
    controller: RecordingController, agent: AgentProcess, tmp_path: Path
) -> None:
    await controller.execute("c", "echo; sleep 1000 & wait")
    record = controller.commands["c"]
    await controller.until(lambda: record.stdout == b"\n")
    del controller.commands["c"]
    await controller.cut()
    await controller.registered.wait()
    assert [held["command_id"] for held in controller.registrations[-1]["resume"]] == ["c"]
    answer = await controller.control("c", "cancel")
    while answer["state"] != "cancelled":
        answer = await controller.control("c", "cancel")


async def test_output_waits_for_acknowledgements_and_then_all_arrives(
    controller: RecordingController, tmp_path: Path
) -> None:
    settings = settings_for(controller.url, SPOOL_MAX_BYTES=str(2 * 1024 * 1024))
    async with agent_process(tmp_path, settings):
        await controller.registered.wait()
        controller.acks_chunks = False
        await controller.execute("c", "head -c 20000000 /dev/zero")
        record = controller.commands["c"]
        await controller.until(lambda: len(record.stdout) >= 1_500_000)
        await controller.execute("other", "echo hi")  # which the full spool does not silence
        assert (await controller.finished("other")).stdout == b"hi\n"
        assert len(record.stdout) <= 2 * 1024 * 1024
        controller.acks_chunks = True
        await controller.emit("progress_ack", {"command_id": "c", **record.stored()})
        await controller.finished("c")
    assert len(record.stdout) == 20_000_000


async def test_a_noisy_command_does_not_delay_another(
    controller: RecordingController, agent: AgentProcess
) -> None:
    await controller.execute("noisy", "head -c 300000000 /dev/zero")
    noisy = controller.commands["noisy"]
    await controller.until(lambda: len(noisy.stdout) > 1_000_000)
    await controller.execute("c", "echo hi")
    await controller.finished("c")
    assert noisy.result is None
    await controller.control("noisy", "kill")
    await controller.finished("noisy")


async def test_a_superseded_agent_ends_with_three(
    controller: RecordingController, agent: AgentProcess
) -> None:
    await controller.emit("superseded", {})
    assert await agent.exit_code() == 3
    assert agent.log.count("superseded") == 1
    assert "Traceback" not in agent.log


async def test_an_outcome_that_is_refused_for_now_is_sent_again_until_it_is_taken(
    controller: RecordingController, agent: AgentProcess
) -> None:
    refusal = {"ok": False, "error": {"code": "storage_full", "message": "make room"}}
    controller.outcome_answers = [refusal, refusal]
    await controller.execute("c", "echo hi")
    await agent.logged("storage_full")
    record = await controller.finished("c")
    assert record.result is not None
    assert record.result["state"] == "succeeded"
