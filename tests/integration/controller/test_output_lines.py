"""GET /commands/{command_id}/output: lines."""

from typing import Any

import httpx2
import pytest

from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import played, taken

KIB = 1024
MIXED = (b"a\nb", ("stderr", b"error 1\n"), b"c\nd\n", ("stderr", b"half"), b"last")


async def page(http: httpx2.AsyncClient, command_id: str, **wanted: object) -> dict[str, Any]:
    answer = await http.get(f"/commands/{command_id}/output", params=wanted)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    shapes.check(body, shapes.LINES)
    return body


def short(found: dict[str, Any]) -> list[tuple[int, str, str]]:
    return [(line["number"], line["stream"], line["text"]) for line in found["lines"]]


@pytest.fixture
async def mixed(admin: httpx2.AsyncClient, agent: ProtocolAgent) -> str:
    return await played(admin, agent, *MIXED)


ALL = [
    (0, "stdout", "a"),
    (1, "stderr", "error 1"),
    (2, "stdout", "bc"),
    (3, "stdout", "d"),
    (4, "stdout", "last"),
    (5, "stderr", "half"),
]


async def test_lines_are_numbered_over_both_streams_as_they_end(
    admin: httpx2.AsyncClient, mixed: str
) -> None:
    found = await page(admin, mixed)
    assert short(found) == ALL
    assert (found["command_id"], found["stream"]) == (mixed, "both")
    assert (found["total_lines"], found["matched_lines"]) == (6, 6)
    assert (found["next_offset"], found["complete"], found["missing"]) == (None, True, [])


async def test_one_stream_keeps_the_numbers_of_the_whole(
    admin: httpx2.AsyncClient, mixed: str
) -> None:
    assert short(await page(admin, mixed, stream="stderr")) == [ALL[1], ALL[5]]
    assert short(await page(admin, mixed, stream="stdout")) == [ALL[0], ALL[2], ALL[3], ALL[4]]


async def test_a_filter_keeps_what_matches(admin: httpx2.AsyncClient, mixed: str) -> None:
    found = await page(admin, mixed, filter="^(a|error [0-9]+)$")
    assert short(found) == [ALL[0], ALL[1]]
    assert (found["total_lines"], found["matched_lines"], found["complete"]) == (6, 2, True)


async def test_offset_and_limit_walk_through_everything_once(
    admin: httpx2.AsyncClient, mixed: str
) -> None:
    found: list[tuple[int, str, str]] = []
    offset: int | None = 0
    while offset is not None:
        part = await page(admin, mixed, offset=offset, limit=2)
        assert part["complete"] is (part["next_offset"] is None) or part["complete"]
        found += short(part)
        offset = part["next_offset"]
    assert found == ALL


async def test_a_filtered_walk_goes_on_at_the_next_match(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    text = "".join(f"{'hit' if i % 10 == 3 else 'miss'} {i}\n" for i in range(100))
    command_id = await played(admin, agent, text.encode())
    found: list[int] = []
    offset: int | None = 0
    while offset is not None:
        part = await page(admin, command_id, filter="hit", offset=offset, limit=3)
        found += [line["number"] for line in part["lines"]]
        offset = part["next_offset"]
    assert found == list(range(3, 100, 10))


async def test_a_running_command_gives_what_has_its_newline_and_goes_on_there(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"one\ntwo")
    await run.stored()
    found = await page(admin, run.command_id)
    assert short(found) == [(0, "stdout", "one")]
    assert (found["complete"], found["next_offset"]) == (False, 1)
    await run.write(b" and more\n")
    await run.end()
    found = await page(admin, run.command_id, offset=1)
    assert short(found) == [(1, "stdout", "two and more")]
    assert (found["complete"], found["next_offset"]) == (True, None)


async def test_a_line_over_64_kib_is_cut_there_and_marked(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    pieces = [b"x" * 100 * KIB, b"y" * 50 * KIB, b"z\nshort\n"]
    command_id = await played(admin, agent, *pieces)
    lines = (await page(admin, command_id))["lines"]
    assert [len(line["text"]) for line in lines] == [64 * KIB, 64 * KIB, 22 * KIB + 1, 5]
    assert [line["truncated"] for line in lines] == [True, True, False, False]
    text = "".join(line["text"] for line in lines[:3])
    assert text == "x" * 100 * KIB + "y" * 50 * KIB + "z"


async def test_a_line_of_exactly_64_kib_is_whole(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent, b"x" * 64 * KIB, b"\nend")
    lines = (await page(admin, command_id))["lines"]
    assert [(len(line["text"]), line["truncated"]) for line in lines] == [
        (64 * KIB, False),
        (3, False),
    ]


async def test_a_character_between_two_chunks_is_whole_and_bad_bytes_are_replaced(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent, "gr\u00fc".encode()[:-1], b"\xbc\xc3\x9fe\n\xff\n")
    assert [text for _, _, text in short(await page(admin, command_id))] == [
        "gr\u00fc\u00dfe",
        "\ufffd",
    ]


async def test_no_output_is_a_complete_page(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    found = await page(admin, await played(admin, agent))
    assert (found["lines"], found["total_lines"], found["complete"]) == ([], 0, True)
    assert found["next_offset"] is None


async def test_10_mb_without_a_newline_come_in_pages(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent, *[b"x" * 256 * KIB] * 40)
    total, offset = 0, 0
    while offset is not None:
        found = await page(admin, command_id, offset=offset, limit=10_000)
        total += sum(len(line["text"]) for line in found["lines"])
        offset = found["next_offset"]
    assert total == 40 * 256 * KIB


async def test_a_bad_filter_is_refused(admin: httpx2.AsyncClient, mixed: str) -> None:
    for pattern in ("(", "a(?=b)", r"(a)\1", "[z-a]"):
        answer = await admin.get(f"/commands/{mixed}/output", params={"filter": pattern})
        shapes.check_problem(answer, 422, "invalid_filter")


async def test_a_filter_that_would_stop_other_engines_does_not_stop_this_one(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent, b"a" * 60_000 + b"!\n")
    assert (await page(admin, command_id, filter="^(a+)+$"))["matched_lines"] == 0


async def test_bounds_of_the_query_are_held(admin: httpx2.AsyncClient, mixed: str) -> None:
    for wanted in (
        {"limit": "0"},
        {"limit": "10001"},
        {"offset": "-1"},
        {"stream": "stdin"},
        {"filter": "x" * 513},
    ):
        answer = await admin.get(f"/commands/{mixed}/output", params=wanted)
        assert shapes.check_problem(answer, 422, answer.json()["code"])["code"] in (
            "validation_error",
            "invalid_filter",
        )
