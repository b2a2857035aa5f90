"""What a user sees over the end and the restart of controller, agent and runner."""

import asyncio
import signal
from pathlib import Path
from random import Random

import pytest

from tests.e2e.gate import Gate
from tests.faults.checker import Checker
from tests.faults.plans import Plan, short, streaming
from tests.faults.system import System
from tests.faults.trials import trials
from tests.integration.sdk.ogent_process import Ogent, ended

STOPS_WITHIN_S = 10.0
LONG = "for i in $(seq 100); do seq $((i*2000)) $((i*2000+1999)); sleep 0.02; done; exit 7"
LONG_OUTPUT = "".join(f"{n}\n" for n in range(2000, 202_000)).encode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_ogent_exec_prints_every_byte_once_over_a_restart_of_the_controller(
    system: System, tmp_path: Path, number: signal.Signals
) -> None:
    environ = {"OGENT_URL": system.controller.url, "OGENT_TOKEN": system.token}
    async with Ogent(tmp_path, environ).open() as cli:
        process = await cli.start("exec", system.agent.id, "--", LONG)
        assert process.stdout is not None
        seen = await process.stdout.readexactly(50_000)
        await system.stop_controller(number)
        await system.start_controller()
        end = await ended(process)
    system.accepted.add((await system.client.command_page(limit=1)).items[0].command_id)
    assert (end.code, seen + end.out == LONG_OUTPUT) == (7, True), end.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_running_command_outlives_its_agent(
    system: System, checker: Checker, gate: Gate, number: signal.Signals
) -> None:
    line = f"echo $$; {gate.wait('away')}; seq 20000; echo $$ >&2; {gate.mark('on')}; (exit 7)"
    plan = Plan(system.key(), line.replace("$$", "same"))
    await system.has_started(await checker.run(plan, readers=True))
    await system.stop_agent(number)
    gate.open("away")
    await gate.reached("on")
    system.history.note("the command has gone on without an agent")
    system.start_agent()
    await checker.check()


@trials(1)
@pytest.mark.parametrize("service", ["controller", "agent"])
async def test_a_service_that_is_stopped_under_load_exits_0_and_loses_nothing(
    system: System, checker: Checker, random: Random, service: str, trial: int
) -> None:
    for _ in range(6):
        await checker.run(streaming(system.key(), random), readers=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(submissions(checker, random))
        async with asyncio.timeout(STOPS_WITHIN_S):
            assert await system.stop(service) == 0, system.logs()
        await system.start(service)
    await checker.check()


async def submissions(checker: Checker, random: Random) -> None:
    for _ in range(20):
        await checker.run(short(checker.system.key(), random))
