"""The journal on a disk that is damaged, cut off or full."""

import asyncio
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.domain.errors import JournalUnavailable
from agent.domain.ids import CommandId
from agent.domain.models.execution import Execution, State
from agent.infrastructure.runner.records import Damage, frames_in
from agent.infrastructure.storage import file_journal
from agent.infrastructure.storage.file_journal import (
    DAMAGED_MAX,
    FileJournal,
    log_files,
    open_file_journal,
    read_journal,
)
from tests.fakes.agent_ports import NOW, RUNNER, C, an_order

NAMES = "abcd"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


async def fill(folder: Path) -> None:
    """A journal of orders that wait, are started, have ended and are done with."""
    async with open_file_journal(folder) as journal:
        await journal.store_epoch(7)
        for name in NAMES:
            await journal.accept(an_order(name), keeper=None, now=NOW)
        await journal.start(CommandId("b"), RUNNER)
        outcome = Execution(order=an_order("c")).end_unrun(State.FAILED, at=NOW)
        await journal.settle(outcome)
        await journal.release(CommandId("d"), now=NOW)


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in log_files(folder))


def place(folder: Path, data: bytes) -> None:
    """Let `data` be all that is left of a journal."""
    for path in folder.glob("*"):
        path.unlink()
    (folder / "00000009.log").write_bytes(data)


def known(folder: Path) -> set[str]:
    state = read_journal(folder)
    return {name for name in NAMES if state.known(CommandId(name)) is not None}


# --- damage -----------------------------------------------------------------------------------


async def test_a_flipped_bit_anywhere_costs_at_most_one_record(folder: Path) -> None:
    await fill(folder)
    whole = bytes_of(folder)
    records = len(list(frames_in(whole)))
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        parts = list(frames_in(bytes(damaged)))
        assert len([part for part in parts if isinstance(part, bytes)]) == records - 1
        assert [part for part in parts if isinstance(part, Damage)]


async def test_a_flipped_bit_anywhere_forgets_no_other_order(folder: Path) -> None:
    await fill(folder)
    whole = bytes_of(folder)
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        place(folder, bytes(damaged))
        assert len(known(folder)) >= len(NAMES) - 1, position


async def test_who_started_an_order_is_forgotten_only_with_the_order_or_its_mark(
    folder: Path,
) -> None:
    async with open_file_journal(folder) as journal:
        await journal.accept(an_order(), keeper=RUNNER, now=NOW)
    whole = bytes_of(folder)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        place(folder, bytes(damaged))
        for entry in read_journal(folder, is_kept_aside=False).unfinished():
            assert entry.keeper == RUNNER


async def test_a_journal_that_was_cut_anywhere_keeps_every_record_before(folder: Path) -> None:
    await fill(folder)
    whole = bytes_of(folder)
    ends, end = [], 0
    for part in frames_in(whole):
        assert isinstance(part, bytes)
        end += len(part) + 12
        ends.append(end)
    for length in range(len(whole)):
        read = [part for part in frames_in(whole[:length]) if isinstance(part, bytes)]
        assert len(read) == len([end for end in ends if end <= length])


async def test_after_damage_the_journal_goes_on_and_the_damage_is_kept_and_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(folder)
    damaged = bytearray(bytes_of(folder))
    damaged[len(damaged) // 2] ^= 1
    place(folder, bytes(damaged))
    async with open_file_journal(folder) as journal:
        assert await journal.accept(an_order("e"), keeper=None, now=NOW)
    assert "is damaged" in caplog.text
    (kept,) = folder.glob("damaged-*")
    assert kept.read_bytes() in bytes(damaged)
    assert known(folder) >= known(folder) and len(known(folder)) >= len(NAMES) - 1
    assert not any(isinstance(part, Damage) for part in frames_in(bytes_of(folder)))


async def test_a_last_record_that_is_not_whole_is_said_more_quietly(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(folder)
    place(folder, bytes_of(folder)[:-5])
    async with open_file_journal(folder):
        pass
    assert "not whole" in caplog.text
    assert "is damaged" not in caplog.text


async def test_not_more_damage_is_kept_than_people_will_look_at(folder: Path) -> None:
    folder.mkdir()
    for number in range(DAMAGED_MAX + 9):
        (folder / f"damaged-{number:08d}-0").write_bytes(b"x")
    (folder / "00000099.log").write_bytes(b"garbage" * 10)
    read_journal(folder)
    assert len(list(folder.glob("damaged-*"))) == DAMAGED_MAX


@pytest.mark.parametrize("garbage", [b"", b"\0" * 5000, b"\xf5OG\x01" * 300, b"{}" * 99])
async def test_a_file_of_garbage_is_an_empty_journal(folder: Path, garbage: bytes) -> None:
    folder.mkdir()
    (folder / "00000001.log").write_bytes(garbage)
    async with open_file_journal(folder) as journal:
        assert journal.unfinished() == []
        assert await journal.accept(an_order(), keeper=None, now=NOW)


async def test_records_that_say_nothing_known_are_passed_over(folder: Path) -> None:
    from agent.infrastructure.runner.records import frame

    await fill(folder)
    strange = [b"[]", b"{}", b'{"epoch":"x"}', b'{"order":{}}', b'{"released":[[1]]}', b"\xff"]
    place(folder, b"".join(map(frame, strange)) + bytes_of(folder))
    assert known(folder) == set(NAMES)


# --- a disk that does not take it ---------------------------------------------------------------


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Let every write beyond `size` fail, as it does on a disk that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_what_cannot_be_written_is_not_known_and_can_be_tried_again(folder: Path) -> None:
    async with open_file_journal(folder) as journal:
        await journal.accept(an_order("before"), keeper=None, now=NOW)
        with no_file_larger_than(len(bytes_of(folder)) + 5):
            for _ in range(3):
                with pytest.raises(JournalUnavailable):
                    await journal.accept(an_order(), keeper=None, now=NOW)
            assert journal.known(C) is None
        assert await journal.accept(an_order(), keeper=RUNNER, now=NOW) is True
    state = read_journal(folder)
    assert [entry.order.id for entry in state.unfinished()] == ["before", "c"]
    assert not any(isinstance(part, Damage) for part in frames_in(bytes_of(folder)))


async def test_nothing_that_failed_comes_back_with_the_next_start(folder: Path) -> None:
    async with open_file_journal(folder) as journal:
        await journal.accept(an_order("before"), keeper=None, now=NOW)
        with no_file_larger_than(len(bytes_of(folder)) + 300):
            with pytest.raises(JournalUnavailable):
                await asyncio.gather(
                    *(journal.accept(an_order(f"n{n}"), keeper=None, now=NOW) for n in range(9))
                )
            await asyncio.sleep(0)
            accepted = {f"n{n}" for n in range(9) if journal.known(CommandId(f"n{n}"))}
    found = {entry.order.id for entry in read_journal(folder).unfinished()}
    assert found == accepted | {"before"}


@pytest.mark.parametrize("what", ["start", "settle"])
async def test_a_change_that_cannot_be_written_has_not_happened(folder: Path, what: str) -> None:
    async with open_file_journal(folder) as journal:
        await journal.accept(an_order(), keeper=None, now=NOW)
        with no_file_larger_than(len(bytes_of(folder)) + 5), pytest.raises(JournalUnavailable):
            await _change(journal, what)
        (entry,) = journal.unfinished()
        assert (entry.keeper, entry.outcome) == (None, None)
        await _change(journal, what)
    (entry,) = read_journal(folder).unfinished()
    assert (entry.keeper, entry.outcome) != (None, None)


async def _change(journal: FileJournal, what: str) -> None:
    if what == "start":
        await journal.start(C, RUNNER)
    else:
        await journal.settle(Execution(order=an_order()).end_unrun(State.FAILED, at=NOW))


async def test_without_room_for_a_new_file_the_old_one_is_used(folder: Path) -> None:
    await fill(folder)
    before = bytes_of(folder)
    with no_file_larger_than(len(before) // 2):
        async with open_file_journal(folder) as journal:
            assert journal.known(CommandId("a")) is not None
            await journal.store_epoch(8)  # it takes no room
            with pytest.raises(JournalUnavailable):
                await journal.accept(an_order("e"), keeper=None, now=NOW)
    state = read_journal(folder)
    assert (state.epoch, known(folder)) == (8, set(NAMES))


# --- its life ---------------------------------------------------------------------------------


async def test_every_start_begins_one_new_file_with_all_that_is_known(folder: Path) -> None:
    await fill(folder)
    for _ in range(3):
        async with open_file_journal(folder) as journal:
            assert await journal.epoch() == 7
        (path,) = log_files(folder)
        assert known(folder) == set(NAMES)
    assert int(path.stem) >= 4


async def test_a_start_that_died_before_it_removed_the_old_file_costs_nothing(
    folder: Path,
) -> None:
    await fill(folder)
    old = bytes_of(folder)
    async with open_file_journal(folder) as journal:
        await journal.release(CommandId("a"), now=NOW)
    (folder / "00000001.log").write_bytes(old)
    state = read_journal(folder)
    assert {e.order.id for e in state.unfinished()} == {"b", "c"}
    assert known(folder) == set(NAMES)


async def test_a_file_that_was_begun_and_not_ended_is_no_file(folder: Path) -> None:
    await fill(folder)
    (folder / "fresh").write_bytes(b"half")
    async with open_file_journal(folder):
        assert known(folder) == set(NAMES)
    assert not (folder / "fresh").exists()


async def test_a_file_that_has_grown_is_written_anew_while_it_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_journal, "REWRITE_MIN_BYTES", 2000)
    async with open_file_journal(folder) as journal:
        for number in range(40):
            orders = [an_order(f"{number}-{beside}") for beside in range(5)]
            await asyncio.gather(*(journal.accept(o, keeper=None, now=NOW) for o in orders))
            for order in orders[1:]:
                await journal.release(order.id, now=NOW)
        numbers = [int(path.stem) for path in log_files(folder)]
    assert numbers[-1] > 3
    state = read_journal(folder)
    assert [e.order.id for e in state.unfinished()] == [f"{number}-0" for number in range(40)]
    assert all(state.known(CommandId(f"{n}-{b}")) for n in range(40) for b in range(5))


async def test_orders_at_once_are_each_stored_once(folder: Path) -> None:
    async with open_file_journal(folder) as journal:
        answers = await asyncio.gather(
            *(journal.accept(an_order(f"n{n % 20}"), keeper=None, now=NOW) for n in range(60))
        )
    assert sum(answers) == 20
    assert len(read_journal(folder).unfinished()) == 20


async def test_who_asks_while_it_is_being_stored_waits_for_that(folder: Path) -> None:
    async with open_file_journal(folder) as journal:
        with no_file_larger_than(len(bytes_of(folder)) + 5):
            first = asyncio.create_task(journal.accept(an_order(), keeper=None, now=NOW))
            second = asyncio.create_task(journal.accept(an_order(), keeper=None, now=NOW))
            await asyncio.wait({first, second})
        assert isinstance(first.exception(), JournalUnavailable)
        assert isinstance(second.exception(), JournalUnavailable)


async def test_a_waiter_that_is_cancelled_stores_nevertheless(folder: Path) -> None:
    async with open_file_journal(folder) as journal:
        task = asyncio.create_task(journal.store_epoch(9))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    assert read_journal(folder).epoch == 9


async def test_a_release_is_written_soon_although_nothing_follows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_journal, "RELEASE_DELAY_S", 0.01)
    async with open_file_journal(folder) as journal:
        await journal.accept(an_order(), keeper=None, now=NOW)
        await journal.release(C, now=NOW)
        async with asyncio.timeout(10):
            while read_journal(folder, is_kept_aside=False).unfinished():
                await asyncio.sleep(0.01)  # a file tells nobody


async def test_the_files_are_the_accounts_own(folder: Path) -> None:
    await fill(folder)
    modes = {path.stat().st_mode & 0o777 for path in folder.glob("*")}
    assert (folder.stat().st_mode & 0o777, modes) == (0o700, {0o600})
