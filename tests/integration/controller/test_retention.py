"""Finished commands go when they were kept long enough, while the controller serves."""

import asyncio
from pathlib import Path

import httpx2
import pytest

from app.settings import Settings
from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import played, taken

SECOND = 1 / 86400


@pytest.fixture
def settings(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("app.bootstrap.RETENTION_INTERVAL_S", 0.05)
    return Settings(_env_file=None, data_dir=data_dir, retention_days=SECOND)


async def gone(http: httpx2.AsyncClient, path: str) -> httpx2.Response:
    async with asyncio.timeout(20):
        while (answer := await http.get(path)).status_code == 200:
            await asyncio.sleep(0.05)
    return answer


async def test_a_finished_command_goes_and_a_running_one_goes_on(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"still here")
    done = await played(admin, agent, b"soon gone")
    for path in (f"/commands/{done}", f"/commands/{done}/output/stdout"):
        shapes.check_problem(await gone(admin, path), 404, "command_not_found")
    listed = (await admin.get("/commands")).json()["items"]
    assert [command["command_id"] for command in listed] == [run.command_id]
    assert (await run.end())["ok"] is True


async def test_a_repeated_result_of_what_was_deleted_is_one_of_no_command(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    assert (await run.end())["ok"] is True
    await gone(admin, f"/commands/{run.command_id}")
    assert (await run.end())["error"]["code"] == "command_not_found"
