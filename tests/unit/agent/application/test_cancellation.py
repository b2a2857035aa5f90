"""A cancellation is honoured although `asyncio.wait_for` may forget it."""

import asyncio

import pytest

from agent.application.cancellation import honour_cancellation


async def test_a_cancellation_that_comes_with_the_result_is_honoured() -> None:
    event = asyncio.Event()

    async def work() -> None:
        await asyncio.wait_for(event.wait(), 20)
        honour_cancellation()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    event.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_a_cancellation_nothing_happens() -> None:
    honour_cancellation()
