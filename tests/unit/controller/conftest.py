import pytest

from tests.fakes.in_memory_controller import InMemoryController


@pytest.fixture
async def controller() -> InMemoryController:
    return InMemoryController()
