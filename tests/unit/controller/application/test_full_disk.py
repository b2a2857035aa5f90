"""Without room nothing new is stored; what has to be stored is tried until there is some."""

import pytest

from app.application import full_disk
from app.application.full_disk import once_there_is_room
from app.application.ports.repositories import CommandFilter
from app.domain.errors import StorageFull, StorageUnavailable
from app.domain.models.states import State
from tests.builders import a_command_in
from tests.fakes.in_memory_controller import InMemoryController


async def test_a_submission_without_room_stores_and_announces_nothing(
    controller: InMemoryController,
) -> None:
    await controller.register()
    controller.events.clear()
    controller.room.is_there = False
    with pytest.raises(StorageFull) as caught:
        await controller.submit()
    assert "MIN_FREE_BYTES" in caught.value.message
    assert await controller.commands.page(CommandFilter(), before=None, limit=1) == []
    assert controller.events == []
    controller.room.is_there = True
    await controller.submit()


async def test_what_the_full_disk_did_not_take_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(full_disk, "FULL_PAUSE_S", 0)
    tries: list[int] = []

    async def store() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise StorageFull("no room")
        return 7

    assert await once_there_is_room(store) == 7
    assert len(tries) == 3


async def test_another_failure_is_not_waited_for() -> None:
    async def store() -> None:
        raise StorageUnavailable("locked")

    with pytest.raises(StorageUnavailable):
        await once_there_is_room(store)


async def test_reports_are_taken_without_room(controller: InMemoryController) -> None:
    """Whoever calls decides what waits: an end needs hardly any room, and frees some."""
    command = a_command_in(State.RUNNING)
    await controller.keep(command)
    session = await controller.register("web-1", command.id)
    controller.room.is_there = False
    await controller.report(session, command.id)
