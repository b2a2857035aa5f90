"""What every Journal does."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from agent.application.ports.journal import Journal, Known, Unfinished
from agent.domain.ids import CommandId
from agent.domain.models.execution import (
    Ending,
    Execution,
    Failure,
    Outcome,
    State,
    StopFailure,
)
from agent.domain.models.executor import Exit
from agent.domain.models.output import Counts
from agent.domain.models.transmission import Written
from agent.infrastructure.storage import journal_state
from agent.infrastructure.storage.file_journal import open_file_journal
from agent.infrastructure.storage.in_memory_journal import InMemoryJournal
from tests.fakes.agent_ports import LOCAL, NOW, RUNNER, C, an_order

D = CommandId("d")
#: Opens the same journal as often as it is called, as one process after the other would.
Opener = Callable[[], AbstractAsyncContextManager[Journal]]


def _in_memory(_folder: Path) -> Opener:
    journal = InMemoryJournal()

    @asynccontextmanager
    async def same() -> AsyncIterator[Journal]:
        yield journal

    return same


def _file(folder: Path) -> Opener:
    return lambda: open_file_journal(folder)


@pytest.fixture(params=[_in_memory, _file], ids=["in_memory", "file"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    make: Callable[[Path], Opener] = request.param
    return make(tmp_path / "journal")


@pytest.fixture
async def journal(opened: Opener) -> AsyncIterator[Journal]:
    async with opened() as journal:
        yield journal


def an_outcome(state: State = State.FAILED) -> Outcome:
    why = Failure("spawn_failed", "no shell")
    return Execution(order=an_order()).end_unrun(state, at=NOW, failure=why)


async def test_a_new_journal_knows_nothing(journal: Journal) -> None:
    assert await journal.epoch() == 0
    assert journal.known(C) is None
    assert journal.unfinished() == []


async def test_the_epoch_is_remembered(opened: Opener) -> None:
    async with opened() as journal:
        await journal.store_epoch(7)
        assert await journal.epoch() == 7
    async with opened() as journal:
        assert await journal.epoch() == 7


async def test_an_order_is_accepted_once(journal: Journal) -> None:
    assert await journal.accept(an_order(), keeper=RUNNER, now=NOW) is True
    journal.note(C, State.RUNNING)
    assert await journal.accept(an_order(command="other"), keeper=None, now=NOW) is False
    assert journal.known(C) == Known(State.RUNNING, is_held=True)
    assert journal.unfinished() == [Unfinished(an_order(), RUNNER)]


async def test_an_order_survives_whole_whatever_its_text(opened: Opener) -> None:
    order = an_order(
        command="echo '\udcff\n\x00€'", timeout_s=1.5, env={"A": "ä\t"}, cwd="/tmp", stdin="x" * 99,
        expires_at=NOW + timedelta(microseconds=1),
    )  # fmt: skip
    async with opened() as journal:
        await journal.accept(order, keeper=None, now=NOW)
    async with opened() as journal:
        assert journal.unfinished() == [Unfinished(order)]


async def test_who_starts_an_order_survives(opened: Opener) -> None:
    async with opened() as journal:
        await journal.accept(an_order(), keeper=None, now=NOW)
        await journal.start(C, RUNNER)
    async with opened() as journal:
        assert journal.unfinished() == [Unfinished(an_order(), RUNNER)]


async def test_an_outcome_survives(opened: Opener) -> None:
    async with opened() as journal:
        await journal.accept(an_order(), keeper=None, now=NOW)
        await journal.settle(an_outcome())
        assert journal.known(C) == Known(State.FAILED, is_held=True)
    async with opened() as journal:
        assert journal.unfinished() == [Unfinished(an_order(), None, an_outcome())]
        assert journal.known(C) == Known(State.FAILED, is_held=True)


async def test_an_outcome_survives_with_all_that_it_says(opened: Opener) -> None:
    execution = Execution(order=an_order())
    execution.start(LOCAL, at=NOW)
    outcome = execution.end(
        Ending(
            finished_at=NOW + timedelta(seconds=3.25),
            started_at=NOW,
            written=Written(Counts(5, 4), Counts(3, 2)),
            exit=Exit(signal="SIGKILL"),
            stopped_as=State.CANCELLED,
            failure=Failure("why", "ä"),
            stop_failure=StopFailure("stop_incomplete", "still there", (7, 8)),
        )
    )
    async with opened() as journal:
        await journal.accept(an_order(), keeper=RUNNER, now=NOW)
        await journal.settle(outcome)
    async with opened() as journal:
        (entry,) = journal.unfinished()
        assert entry.outcome is not None
        assert list(entry.outcome.stop_failure.pids) == [7, 8]  # type: ignore[union-attr]
        assert (entry.outcome.written, entry.outcome.exit) == (outcome.written, outcome.exit)
        assert entry.outcome.finished_at == outcome.finished_at


async def test_what_is_unfinished_comes_in_the_order_of_acceptance(opened: Opener) -> None:
    async with opened() as journal:
        for name in ("d", "b", "c", "a"):
            await journal.accept(an_order(name), keeper=None, now=NOW)
        await journal.start(CommandId("b"), RUNNER)
        await journal.release(C, now=NOW)
    async with opened() as journal:
        assert [entry.order.id for entry in journal.unfinished()] == ["d", "b", "a"]


async def test_an_unknown_command_can_be_neither_noted_started_settled_nor_released(
    journal: Journal,
) -> None:
    journal.note(C, State.RUNNING)
    await journal.start(C, RUNNER)
    await journal.settle(an_outcome())
    await journal.release(C, now=NOW)
    assert (journal.known(C), journal.unfinished()) == (None, [])
    assert await journal.accept(an_order(), keeper=None, now=NOW) is True


async def test_what_was_released_is_known_and_not_accepted_again(opened: Opener) -> None:
    async with opened() as journal:
        await journal.accept(an_order(), keeper=RUNNER, now=NOW)
        journal.note(C, State.EXITED)
        for _ in range(2):
            await journal.release(C, now=NOW)
        assert journal.unfinished() == []
    async with opened() as journal:
        assert journal.known(C) == Known(State.EXITED, is_held=False)
        assert await journal.accept(an_order(), keeper=None, now=NOW) is False
        assert journal.unfinished() == []


async def test_what_is_released_while_it_runs_still_says_how_it_ended(journal: Journal) -> None:
    await journal.accept(an_order(), keeper=RUNNER, now=NOW)
    await journal.release(C, now=NOW)
    journal.note(C, State.CANCELLED)
    assert journal.known(C) == Known(State.CANCELLED, is_held=False)


async def test_what_was_not_released_is_never_forgotten(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_state, "FORGET_EVERY", 1)
    await journal.accept(an_order(), keeper=None, now=NOW)
    await journal.accept(an_order("later"), keeper=None, now=NOW + timedelta(days=400))
    assert journal.known(C) == Known(State.ACCEPTED, is_held=True)


@pytest.mark.parametrize(("days", "is_known"), [(29.9, True), (30.1, False)])
async def test_what_was_released_is_remembered_for_thirty_days(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, days: float, is_known: bool
) -> None:
    monkeypatch.setattr(journal_state, "FORGET_EVERY", 1)
    await journal.accept(an_order(), keeper=None, now=NOW)
    await journal.release(C, now=NOW)
    await journal.accept(an_order("later"), keeper=None, now=NOW + timedelta(days=days))
    assert (journal.known(C) is not None) is is_known


@pytest.mark.parametrize(("later_s", "are_known"), [(59, [1, 1, 1]), (61, [0, 1, 1])])
async def test_of_too_many_released_the_oldest_are_forgotten_once_they_have_expired(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, later_s: int, are_known: list[int]
) -> None:
    monkeypatch.setattr(journal_state, "FORGET_EVERY", 1)
    monkeypatch.setattr(journal_state, "REMEMBERED_MAX", 2)
    for name in "abc":
        await journal.accept(an_order(name), keeper=None, now=NOW)
        await journal.release(CommandId(name), now=NOW)
    await journal.accept(an_order("later"), keeper=None, now=NOW + timedelta(seconds=later_s))
    assert [journal.known(CommandId(name)) is not None for name in "abc"] == are_known


async def test_where_none_may_be_forgotten_it_is_said(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_state, "REMEMBERED_MAX", 1)
    assert not journal.may_forget_none()
    for name in "ab":
        await journal.accept(an_order(name), keeper=None, now=NOW)
        await journal.release(CommandId(name), now=NOW)
    assert journal.may_forget_none()
