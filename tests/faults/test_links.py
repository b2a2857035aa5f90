"""Links that are cut, refuse, swallow, hold, split, and deliver late."""

import asyncio
from random import Random

import pytest

from tests.e2e.faulty_proxy import BOTH, Way
from tests.faults.checker import Checker
from tests.faults.plans import short, streaming
from tests.faults.system import System
from tests.faults.trials import some_moment, trials


async def some_streams(checker: Checker, random: Random, count: int = 3) -> None:
    for _ in range(count):
        await checker.run(streaming(checker.system.key(), random), readers=True)


async def some_short_ones(checker: Checker, random: Random, count: int = 3) -> None:
    for _ in range(count):
        await checker.run(short(checker.system.key(), random))


@trials(3)
async def test_resets_in_the_middle_of_streams_cost_no_byte(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    await some_streams(checker, random)
    for _ in range(4):
        await some_moment(random, 0.6)
        await system.cut_link()
    await checker.check()


@pytest.mark.parametrize("seconds", [1, 30])
async def test_a_link_that_is_away_for_a_while_costs_no_byte(
    system: System, checker: Checker, random: Random, seconds: int
) -> None:
    await some_streams(checker, random)
    await some_moment(random, 1)
    system.history.note(f"the link is cut for {seconds} s")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(system.link.cut_for(seconds))
        tasks.create_task(some_short_ones(checker, random))
    await checker.check()


@pytest.mark.parametrize("ways", [(Way.UP,), (Way.DOWN,), BOTH], ids=["up", "down", "both"])
async def test_a_link_that_swallows_and_closes_nothing_costs_no_byte(
    system: System, checker: Checker, random: Random, ways: tuple[Way, ...]
) -> None:
    await some_streams(checker, random)
    await some_moment(random, 1)
    system.history.note(f"the link is half open: {[way.value for way in ways]}")
    system.link.swallow(*ways)
    await some_short_ones(checker, random)
    await some_moment(random, 2)
    system.link.heal()
    system.history.note("new connections work again")
    await checker.check()


@trials(2)
async def test_a_link_that_stands_still_for_seconds_costs_no_byte(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    await some_streams(checker, random)
    await some_moment(random, 1)
    system.history.note("nothing passes")
    system.link.hold()
    await some_short_ones(checker, random)
    await some_moment(random, 4)
    system.link.release()
    await checker.check()


@trials(2)
async def test_writes_that_arrive_in_parts_and_late_cost_no_byte(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    system.link.roughen(random, 0.01)
    await some_streams(checker, random)
    await some_short_ones(checker, random)
    try:
        await checker.check()
    finally:
        system.link.smooth()


@trials(2)
async def test_frames_of_an_older_session_that_arrive_after_the_newer_one_change_nothing(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    await some_streams(checker, random)
    for _ in range(2):
        await some_moment(random, 0.5)
        system.history.note("what is under way arrives after the next session")
        await system.link.overtake(1.0)
    await checker.check()
