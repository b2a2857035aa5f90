import asyncio
from collections.abc import AsyncIterator

import pytest

from ogent.client import Client
from tests.fakes.scripted_controller import GOOD_TOKEN, ScriptedController, serving
from tests.integration.sdk.ogent_process import Ogent


@pytest.fixture
def controller() -> ScriptedController:
    return ScriptedController()


@pytest.fixture
async def url(controller: ScriptedController) -> AsyncIterator[str]:
    async with serving(controller) as address:
        yield address


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    async with asyncio.timeout(60), Client(url, token=GOOD_TOKEN) as opened:
        yield opened


@pytest.fixture
async def ogent(url: str, tmp_path) -> AsyncIterator[Ogent]:
    async with Ogent(tmp_path, {"OGENT_URL": url, "OGENT_TOKEN": GOOD_TOKEN}).open() as opened:
        yield opened
