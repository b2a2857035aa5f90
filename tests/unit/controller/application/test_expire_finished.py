"""Finished commands are kept for their time, and then deleted batch by batch."""

import pytest

from app.application.use_cases import expire_finished
from app.domain.errors import CommandNotFound
from app.domain.models.states import State
from tests.builders import a_command, a_command_in
from tests.fakes.in_memory_controller import InMemoryController

DAY = 24 * 3600.0


async def test_a_finished_command_is_kept_for_its_time_and_an_unfinished_one_for_ever(
    controller: InMemoryController,
) -> None:
    ended, running = a_command_in(State.SUCCEEDED), a_command_in(State.RUNNING)
    await controller.keep(ended, running, a_command())
    controller.clock.advance(30 * DAY)
    assert await controller.expire_finished() is False
    assert (await controller.commands.get(ended.id)).state is State.SUCCEEDED
    controller.clock.advance(2)  # it ended a second after NOW
    assert await controller.expire_finished() is False
    with pytest.raises(CommandNotFound):
        await controller.commands.get(ended.id)
    assert (await controller.commands.get(running.id)).state is State.RUNNING


async def test_a_batch_says_whether_there_is_more(
    controller: InMemoryController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expire_finished, "BATCH_MAX_ROWS", 2)
    await controller.keep(*(a_command_in(State.SUCCEEDED) for _ in range(5)))
    controller.clock.advance(31 * DAY)
    assert [await controller.expire_finished() for _ in range(3)] == [True, True, False]
