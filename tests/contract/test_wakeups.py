"""Every Wakeups rings the bells of a topic, and keeps nothing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.application.ports.wakeups import Bell, Wakeups
from app.infrastructure.in_process_wakeups import InProcessWakeups

ADAPTERS = {"in_process": InProcessWakeups}


@pytest.fixture(params=ADAPTERS)
async def wakeups(request: pytest.FixtureRequest) -> AsyncIterator[Wakeups]:
    yield ADAPTERS[request.param]()


async def rang(bell: Bell) -> None:
    async with asyncio.timeout(20):
        await bell.wait()


def waiting(bell: Bell) -> asyncio.Task[None]:
    return asyncio.create_task(bell.wait())


async def is_silent(bell: Bell) -> bool:
    """Whether a wait is still waiting once everything that is ready has run."""
    task = waiting(bell)
    for _ in range(10):
        await asyncio.sleep(0)
    silent = not task.done()
    task.cancel()
    await asyncio.wait([task])
    return silent


async def test_a_bell_rings_for_one_who_waits(wakeups: Wakeups) -> None:
    with wakeups.listen("topic") as bell:
        task = waiting(bell)
        await asyncio.sleep(0)
        wakeups.notify("topic")
        async with asyncio.timeout(20):
            await task


async def test_a_bell_that_rang_before_the_wait_is_heard(wakeups: Wakeups) -> None:
    with wakeups.listen("topic") as bell:
        wakeups.notify("topic")
        await rang(bell)


async def test_many_notifications_ring_once(wakeups: Wakeups) -> None:
    with wakeups.listen("topic") as bell:
        for _ in range(5):
            wakeups.notify("topic")
        await rang(bell)
        assert await is_silent(bell)


async def test_every_bell_of_a_topic_rings(wakeups: Wakeups) -> None:
    with wakeups.listen("topic") as one, wakeups.listen("topic") as other:
        wakeups.notify("topic")
        await rang(one)
        await rang(other)


async def test_other_topics_stay_silent(wakeups: Wakeups) -> None:
    with wakeups.listen("topic") as bell:
        wakeups.notify("another")
        assert await is_silent(bell)


async def test_nothing_is_kept_for_one_who_listens_later(wakeups: Wakeups) -> None:
    wakeups.notify("topic")
    with wakeups.listen("topic") as bell:
        assert await is_silent(bell)


async def test_a_closed_bell_leaves_the_others_ringing(wakeups: Wakeups) -> None:
    with wakeups.listen("topic") as bell:
        with wakeups.listen("topic"):
            pass
        wakeups.notify("topic")
        await rang(bell)


async def test_a_bell_that_was_cancelled_while_waiting_rings_again(wakeups: Wakeups) -> None:
    with wakeups.listen("topic") as bell:
        assert await is_silent(bell)
        wakeups.notify("topic")
        await rang(bell)
