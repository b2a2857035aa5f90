"""GET /commands/{command_id}/output/{stream}: exact bytes."""

import hashlib

import httpx2
import pytest

from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import played, taken

WHOLE = bytes(range(256)) * 4


@pytest.fixture
async def path(admin: httpx2.AsyncClient, agent: ProtocolAgent) -> str:
    command_id = await played(admin, agent, WHOLE[:300], ("stderr", b"apart"), WHOLE[300:])
    return f"/commands/{command_id}/output/stdout"


async def test_a_stream_comes_back_byte_for_byte(admin: httpx2.AsyncClient, path: str) -> None:
    answer = await admin.get(path)
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(WHOLE))
    assert answer.headers["accept-ranges"] == "bytes"
    assert (await admin.get(path.replace("stdout", "stderr"))).content == b"apart"


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=299-300", 299, 301),
        ("bytes=1000-", 1000, 1024),
        ("bytes=-5", 1019, 1024),
        ("bytes=-5000", 0, 1024),
        ("bytes=1000-9999999", 1000, 1024),
    ],
)
async def test_a_range_is_honoured(
    admin: httpx2.AsyncClient, path: str, wanted: str, start: int, end: int
) -> None:
    answer = await admin.get(path, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, WHOLE[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/1024"
    assert answer.headers["content-length"] == str(end - start)


async def test_a_range_behind_the_end_is_not_satisfiable(
    admin: httpx2.AsyncClient, path: str
) -> None:
    for wanted in ("bytes=1024-", "bytes=5000-6000", "bytes=-0"):
        answer = await admin.get(path, headers={"Range": wanted})
        shapes.check_problem(answer, 416, "range_not_satisfiable")
        assert answer.headers["content-range"] == "bytes */1024"


async def test_what_is_no_single_range_of_bytes_gives_everything(
    admin: httpx2.AsyncClient, path: str
) -> None:
    for wanted in ("bytes=5-2", "lines=0-1", "bytes=-", "bytes=0-1,4-5", "nonsense"):
        answer = await admin.get(path, headers={"Range": wanted})
        assert (answer.status_code, len(answer.content)) == (200, 1024)


async def test_an_empty_stream_is_empty_and_has_no_range(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    path = f"/commands/{await played(admin, agent)}/output/stderr"
    answer = await admin.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "0"
    answer = await admin.get(path, headers={"Range": "bytes=0-"})
    shapes.check_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */0"


async def test_a_running_command_gives_what_is_stored_so_far(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"so far")
    await run.stored()
    path = f"/commands/{run.command_id}/output/stdout"
    assert (await admin.get(path)).content == b"so far"
    await run.write(b", and on")
    await run.stored()
    answer = await admin.get(path, headers={"Range": "bytes=6-"})
    assert (answer.status_code, answer.content) == (206, b", and on")


async def test_8_mb_come_back_whole(admin: httpx2.AsyncClient, agent: ProtocolAgent) -> None:
    blocks = [hashlib.sha256(bytes([i])).digest() * 8192 for i in range(32)]
    command_id = await played(admin, agent, *blocks)
    answer = await admin.get(f"/commands/{command_id}/output/stdout")
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(b"".join(blocks)).digest()


async def test_another_stream_does_not_exist(admin: httpx2.AsyncClient, path: str) -> None:
    answer = await admin.get(path.replace("stdout", "stdin"))
    shapes.check_problem(answer, 422, "validation_error")
