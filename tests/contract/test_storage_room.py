"""Every StorageRoom says whether there is room, and hears of it when that changes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.application.ports.storage_room import StorageRoom
from app.infrastructure.disk_room import LOOK_EVERY_S, DiskRoom, free_bytes
from app.infrastructure.in_memory_room import InMemoryRoom

ENOUGH, TOO_LITTLE = 1000, 999


@dataclass
class FakeDisk:
    """A disk and a time that a test turns; it counts how often it was looked at."""

    free: int = ENOUGH
    now: float = 0.0
    looks: list[Path] = field(default_factory=list)

    def look(self, path: Path) -> int:
        self.looks.append(path)
        return self.free


def on_disk(disk: FakeDisk) -> DiskRoom:
    return DiskRoom(Path("/data"), min_free_bytes=ENOUGH, free=disk.look, timer=lambda: disk.now)


Turn = Callable[[bool], None]


def _in_memory() -> tuple[StorageRoom, Turn]:
    room = InMemoryRoom()
    return room, lambda is_there: setattr(room, "is_there", is_there)


def _disk() -> tuple[StorageRoom, Turn]:
    disk = FakeDisk()

    def turn(is_there: bool) -> None:
        disk.free, disk.now = (ENOUGH if is_there else TOO_LITTLE), disk.now + LOOK_EVERY_S

    return on_disk(disk), turn


@pytest.mark.parametrize("make", [_in_memory, _disk])
def test_room_comes_and_goes(
    make: Callable[[], tuple[StorageRoom, Turn]],
) -> None:
    room, turn = make()
    seen = [room.has_room()]
    for is_there in (False, False, True, False, True):
        turn(is_there)
        seen.append(room.has_room())
    assert seen == [True, False, False, True, False, True]


def test_the_file_system_is_asked_once_in_a_while() -> None:
    disk = FakeDisk()
    room = on_disk(disk)
    for _ in range(100):
        assert room.has_room()
    disk.free, disk.now = 0, LOOK_EVERY_S * 0.99
    assert room.has_room()
    disk.now = LOOK_EVERY_S
    assert not room.has_room()
    assert disk.looks == [Path("/data")] * 2


def test_a_real_file_system_has_some_room_and_not_all_of_it(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    assert DiskRoom(tmp_path, min_free_bytes=0).has_room()
    assert DiskRoom(tmp_path, min_free_bytes=1).has_room() is (free > 0)
    assert not DiskRoom(tmp_path, min_free_bytes=2**63).has_room()
