"""kill -9 of each process: in the middle of streams, around dispatch, and of all in turn."""

import asyncio
from random import Random

import pytest

from ogent.client import State
from tests.faults.checker import Checker
from tests.faults.plans import short, streaming
from tests.faults.system import FAULTS, System
from tests.faults.trials import some_moment, trials

KILLED = ["controller", "agent", "runner"]


def excused(killed: str) -> frozenset[State]:
    """How a command may end that really had no such end."""
    return frozenset({State.LOST, State.FAILED}) if killed == "runner" else frozenset()


@trials(2)
@pytest.mark.parametrize("killed", KILLED)
async def test_a_process_killed_in_the_middle_of_streams_costs_nothing(
    system: System, checker: Checker, random: Random, killed: str, trial: int
) -> None:
    for _ in range(3):
        await checker.run(streaming(system.key(), random), readers=True)
    await some_moment(random, 1.5)
    await FAULTS[killed](system)
    await checker.check(excused(killed))


@trials(2)
@pytest.mark.parametrize("killed", KILLED)
async def test_a_process_killed_around_dispatch_starts_nothing_twice(
    system: System, checker: Checker, random: Random, killed: str, trial: int
) -> None:
    async def submissions() -> None:
        for _ in range(12):
            await checker.run(short(system.key(), random))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(submissions())
        await some_moment(random, 0.25)
        await FAULTS[killed](system)
    await checker.check(excused(killed))


@trials(1)
async def test_whatever_dies_in_whatever_order_nothing_is_lost_and_nothing_runs_twice(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    for _ in range(2):
        await checker.run(streaming(system.key(), random), readers=True)
        for fault in random.sample(["controller", "agent", "link"], 3):
            await checker.run(short(system.key(), random))
            await some_moment(random, 0.5)
            await FAULTS[fault](system)
    await checker.check()
