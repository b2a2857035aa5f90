"""Links that are cut, refuse, swallow, hold, split, and deliver late."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from tests.e2e.faulty_proxy import BOTH, Way
from tests.faults.checker import Checker, watching
from tests.faults.plans import short, streaming
from tests.faults.system import System, neighbour_of
from tests.faults.trials import some_moment, trials


async def some_streams(checker: Checker, random: Random, count: int = 3) -> None:
    for _ in range(count):
        await checker.run(streaming(checker.system.key(), random), readers=True)


async def some_short_ones(checker: Checker, random: Random, count: int = 3) -> None:
    for _ in range(count):
        await checker.run(short(checker.system.key(), random))


@trials(2)
async def test_resets_in_the_middle_of_streams_cost_no_byte(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    await some_streams(checker, random)
    for _ in range(4):
        await some_moment(random, 0.6)
        await system.cut_link()
    await checker.check()


async def test_a_link_that_is_away_for_a_second_costs_no_byte(
    system: System, checker: Checker, random: Random
) -> None:
    await some_streams(checker, random)
    await away_for(checker, random, 1)
    await checker.check()


async def away_for(checker: Checker, random: Random, seconds: float) -> None:
    checker.system.history.note(f"the link is cut for {seconds} s")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(checker.system.link.cut_for(seconds))
        tasks.create_task(some_short_ones(checker, random))


async def half_open(checker: Checker, random: Random, *ways: Way) -> None:
    checker.system.history.note(f"the link is half open: {[way.value for way in ways]}")
    checker.system.link.swallow(*ways)
    await some_short_ones(checker, random)
    await some_moment(random, 2)
    checker.system.link.heal()
    checker.system.history.note("new connections work again")


LONG_FAULTS: Mapping[str, Callable[[Checker, Random], Awaitable[None]]] = {
    "away": lambda checker, random: away_for(checker, random, 30),
    "up": lambda checker, random: half_open(checker, random, Way.UP),
    "down": lambda checker, random: half_open(checker, random, Way.DOWN),
    "both": lambda checker, random: half_open(checker, random, *BOTH),
}


async def long_fault(system: System, random: Random, name: str) -> None:
    async with neighbour_of(system, name) as neighbour, watching(neighbour) as checker:
        await some_streams(checker, random, 2)
        await some_moment(random, 1)
        await LONG_FAULTS[name](checker, random)
        await checker.check()


async def test_links_that_are_away_for_30_s_or_half_open_cost_no_byte(
    system: System, random: Random
) -> None:
    """Four agents beside each other, because each takes as long as a dead link is not noticed."""
    async with asyncio.TaskGroup() as tasks:
        for name in LONG_FAULTS:
            tasks.create_task(long_fault(system, random, name), name=name)


@trials(1)
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


@trials(1)
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
