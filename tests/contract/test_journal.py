"""What every Journal does."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from agent.application.ports.journal import Journal
from agent.domain.models.execution import State
from agent.infrastructure.storage.in_memory_journal import InMemoryJournal
from tests.fakes.agent_ports import NOW, C, an_order


@pytest.fixture(params=[InMemoryJournal])
def journal(request: pytest.FixtureRequest) -> Journal:
    make: Callable[[], Journal] = request.param
    return make()


async def test_a_new_journal_knows_nothing(journal: Journal) -> None:
    assert await journal.epoch() == 0
    assert await journal.state_of(C) is None


async def test_the_epoch_is_remembered(journal: Journal) -> None:
    await journal.store_epoch(7)
    assert await journal.epoch() == 7


async def test_an_order_is_accepted_once(journal: Journal) -> None:
    assert await journal.accept(an_order(), now=NOW) is True
    await journal.move(C, State.RUNNING)
    assert await journal.accept(an_order(), now=NOW) is False
    assert await journal.state_of(C) is State.RUNNING


async def test_an_unknown_command_is_neither_moved_nor_released(journal: Journal) -> None:
    await journal.move(C, State.RUNNING)
    await journal.release(C)
    assert await journal.state_of(C) is None


async def test_what_was_not_released_is_never_forgotten(journal: Journal) -> None:
    await journal.accept(an_order(), now=NOW)
    await journal.accept(an_order("later"), now=NOW + timedelta(days=400))
    assert await journal.state_of(C) is State.ACCEPTED


async def test_what_was_released_is_remembered_while_it_could_be_started(journal: Journal) -> None:
    await journal.accept(an_order(), now=NOW)
    await journal.move(C, State.EXITED)
    for _ in range(2):
        await journal.release(C)
    assert await journal.accept(an_order(), now=NOW + timedelta(seconds=59)) is False
    assert await journal.state_of(C) is State.EXITED


async def test_an_in_memory_journal_forgets_what_was_released_and_has_expired() -> None:
    journal = InMemoryJournal()
    await journal.accept(an_order(), now=NOW)
    await journal.release(C)
    await journal.accept(an_order("later"), now=NOW + timedelta(seconds=61))
    assert await journal.state_of(C) is None
