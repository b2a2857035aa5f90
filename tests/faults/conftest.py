import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

from tests.e2e.gate import Gate
from tests.faults.checker import Checker, watching
from tests.faults.history import History
from tests.faults.system import System, system_in
from tests.faults.trials import SEED, random_for

NewSystem = Callable[..., Awaitable[System]]
_FAILED = pytest.StashKey[bool]()


def pytest_report_header() -> str:
    trials = os.environ.get("TRIALS", "as each test says")
    return f"faults: SEED={SEED} (give it to repeat this run), TRIALS: {trials}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One loop for all: a system that outlives a test lives in it."""
    for item in items:
        is_ours = item.path.is_relative_to(Path(__file__).parent)
        if is_ours and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


class Systems:
    """The system that tests share for as long as none of them fails."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._stack = AsyncExitStack()
        self._system: System | None = None

    async def take(self) -> System:
        if self._system is None:
            folder = self._factory.mktemp("system")
            self._system = await self._stack.enter_async_context(system_in(folder))
        return self._system

    async def end(self) -> None:
        self._system = None
        await self._stack.aclose()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def systems(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Systems]:
    made = Systems(tmp_path_factory)
    yield made
    await made.end()


@pytest_asyncio.fixture(loop_scope="session")
async def system(systems: Systems, request: pytest.FixtureRequest) -> AsyncIterator[System]:
    """A whole system that has survived what the tests before did to it."""
    taken = await systems.take()
    taken.history = History()
    await taken.is_whole()
    yield taken
    if request.node.stash.get(_FAILED, False):
        await systems.end()


@pytest_asyncio.fixture(loop_scope="session")
async def checker(system: System) -> AsyncIterator[Checker]:
    async with watching(system) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def new_system(tmp_path: Path) -> AsyncIterator[NewSystem]:
    """Makes systems with settings of their own."""
    async with AsyncExitStack() as stack:

        async def make(**settings: dict[str, str]) -> System:
            return await stack.enter_async_context(system_in(tmp_path, **settings))

        yield make


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """Numbers that follow from the seed, the test and the trial."""
    return random_for(request.node.name)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path / "gates")
    yield made
    made.open_all()
