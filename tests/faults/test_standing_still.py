"""Processes that stand still for a while, and go on."""

import signal
from pathlib import Path
from random import Random

import pytest

from ogent.client import State
from tests.e2e.gate import Gate
from tests.faults.checker import Checker
from tests.faults.plans import Plan, streaming
from tests.faults.system import System
from tests.faults.trials import some_moment, trials
from tests.integration.sdk.ogent_process import Ogent, ended

#: 24 MB: more than pipe, socket and the controller's bound for a reader hold together.
LOUD = "seq 3200000; exit 7"
LOUD_OUTPUT = "".join(f"{n}\n" for n in range(1, 3_200_001)).encode()


async def test_a_reader_that_stands_still_gets_every_byte_later(
    system: System, tmp_path: Path
) -> None:
    environ = {"OGENT_URL": system.controller.url, "OGENT_TOKEN": system.token}
    async with Ogent(tmp_path, environ).open() as cli:
        process = await cli.start("exec", system.agent.id, "--", LOUD)
        assert process.stdout is not None
        seen = await process.stdout.readexactly(1000)
        process.send_signal(signal.SIGSTOP)
        command = (await system.client.command_page(limit=1)).items[0]
        assert await system.finished(command.command_id) is State.FAILED
        process.send_signal(signal.SIGCONT)
        end = await ended(process)
    system.accepted.add(command.command_id)
    assert (end.code, seen + end.out == LOUD_OUTPUT) == (7, True)


@pytest.mark.parametrize("seconds", [3, pytest.param(70, marks=pytest.mark.slow)])
async def test_an_agent_that_stands_still_costs_no_byte(
    system: System, checker: Checker, random: Random, gate: Gate, seconds: int
) -> None:
    await checker.run(streaming(system.key(), random), readers=True)
    line = f"{gate.wait('still')}; seq 50000; {gate.mark('written')}; (exit 8)"
    command_id = await checker.run(Plan(system.key(), line), readers=True)
    await system.has_started(command_id)
    async with system.standing_still("agent"):
        gate.open("still")
        await gate.reached("written")
        await some_moment(random, seconds)
    await checker.check()


@trials(1)
async def test_a_controller_that_stands_still_costs_no_byte(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    for _ in range(3):
        await checker.run(streaming(system.key(), random), readers=True)
    await some_moment(random, 1)
    async with system.standing_still("controller"):
        await some_moment(random, 3)
    await checker.check()
